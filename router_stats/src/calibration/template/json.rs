//! The `tojson` filter as transformers defines it.

use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, Value};
use serde::Serialize;

/// `json.dumps(value, ensure_ascii=False, indent=indent)`: Jinja's own filter
/// escapes for HTML, which no model was trained on.
pub(super) fn to_json(value: Value, options: Kwargs) -> Result<Value, Error> {
    let failed = |error: &dyn std::fmt::Display| {
        Error::new(ErrorKind::InvalidOperation, format!("tojson: {error}"))
    };
    let indent: Option<usize> = options.get("indent")?;
    options.assert_all_used()?;
    let mut out = Vec::new();
    match indent {
        Some(width) => {
            let indent = " ".repeat(width);
            let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(
                &mut out, formatter,
            ))
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(
            &mut out,
            PythonStyle,
        )),
    }
    .map_err(|error| failed(&error))?;
    let text = String::from_utf8(out).map_err(|error| failed(&error))?;
    Ok(Value::from_safe_string(text))
}

/// One line, with a space after `,` and `:`.
struct PythonStyle;

impl serde_json::ser::Formatter for PythonStyle {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first {
            Ok(())
        } else {
            writer.write_all(b", ")
        }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        if first {
            Ok(())
        } else {
            writer.write_all(b", ")
        }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(
        &mut self,
        writer: &mut W,
    ) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use minijinja::{context, Environment};

    use super::*;

    fn render(filter: &str) -> String {
        let mut environment = Environment::new();
        environment.add_filter("tojson", to_json);
        let value = serde_json::json!([{"content": "<é> 'a'", "n": [1, 2]}]);
        environment
            .render_str(&format!("{{{{ value | {filter} }}}}"), context! { value })
            .unwrap()
    }

    #[test]
    fn one_line_is_spaced_as_in_python_and_not_escaped() {
        assert_eq!(render("tojson"), r#"[{"content": "<é> 'a'", "n": [1, 2]}]"#);
    }

    #[test]
    fn indented_json_has_one_value_a_line() {
        assert_eq!(render("tojson(indent=1)").lines().count(), 9);
        assert!(render("tojson(indent=1)").starts_with("[\n {\n  \"content\": \"<é>"));
    }
}
