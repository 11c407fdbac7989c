//! An OpenAPI document as a page.

use std::fmt::Write;

use serde_json::Value;

/// The page's style sheet.
pub(super) const STYLE: &str = include_str!("style.css");

/// The page: every route with the fields of its body.
pub(super) fn page(document: &Value) -> String {
    let mut out = String::with_capacity(16 << 10);
    // Writing to a string cannot fail.
    let _ = write(&mut out, document);
    out
}

fn write(out: &mut String, document: &Value) -> std::fmt::Result {
    let (title, about) = (&document["info"]["title"], &document["info"]["description"]);
    writeln!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{0} API</title>\n\
         <link rel=\"stylesheet\" href=\"{2}\">\n<h1>{0} API</h1>\n<p>{1} \
         As a document for programs: <a href=\"/openapi.json\">openapi.json</a>.</p>",
        text(title),
        text(about),
        super::DOCS_STYLE,
    )?;
    for (path, methods) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            let keyed = operation["security"] != serde_json::json!([]);
            writeln!(
                out,
                "<section>\n<h2><code>{} {}</code></h2>\n<p>{}.{}</p>",
                method.to_uppercase(),
                escape(path),
                text(&operation["summary"]),
                if keyed { "" } else { " Needs no key." },
            )?;
            let body = &operation["requestBody"]["content"]["application/json"]["schema"];
            fields(out, document, body)?;
            writeln!(out, "</section>")?;
        }
    }
    Ok(())
}

/// The fields of a schema that is referred to.
fn fields(out: &mut String, document: &Value, schema: &Value) -> std::fmt::Result {
    let schema = match schema["$ref"].as_str().and_then(|it| it.rsplit('/').next()) {
        Some(name) => &document["components"]["schemas"][name],
        None => schema,
    };
    let Some(fields) = schema["properties"].as_object() else {
        return Ok(());
    };
    let required = schema["required"].as_array();
    writeln!(
        out,
        "<table>\n<thead><tr><th>Field<th>Type<th>Example</thead>\n<tbody>"
    )?;
    for (name, field) in fields {
        let needed = required.is_some_and(|names| names.iter().any(|it| it == name));
        let example = match &field["example"] {
            Value::Null => String::new(),
            example => format!("<code>{}</code>", escape(&example.to_string())),
        };
        writeln!(
            out,
            "<tr><th scope=\"row\"><code>{}</code>{}<td>{}<td>{example}",
            escape(name),
            if needed { " (required)" } else { "" },
            escape(&kind(field)),
        )?;
    }
    writeln!(out, "</tbody>\n</table>")
}

/// `string`, `integer or null`, `Tool`.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str() {
        return name.rsplit('/').next().unwrap_or_default().to_owned();
    }
    for several in ["oneOf", "anyOf", "allOf"] {
        if let Some(kinds) = schema[several].as_array() {
            return kinds.iter().map(kind).collect::<Vec<_>>().join(" or ");
        }
    }
    match &schema["type"] {
        Value::String(one) if one == "array" => format!("list of {}", kind(&schema["items"])),
        Value::String(one) => one.clone(),
        Value::Array(several) => {
            let names = several.iter().filter_map(Value::as_str);
            names.collect::<Vec<_>>().join(" or ")
        }
        _ => "any".to_owned(),
    }
}

fn text(value: &Value) -> String {
    escape(value.as_str().unwrap_or_default())
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;")
}
