//! The schemas that a document refers to, and those that these refer to.

use serde_json::{json, Map, Value};

/// Prefix of a reference.
pub(super) const PREFIX: &str = "#/components/schemas/";

/// Of `all` schemas, those that `paths` lead to, ours added.
pub(super) fn used(paths: &Map<String, Value>, all: &Value) -> Map<String, Value> {
    let mut used = Map::new();
    let mut open = Vec::new();
    for path in paths.values() {
        references(path, &mut open);
    }
    while let Some(name) = open.pop() {
        if used.contains_key(&name) {
            continue;
        }
        let schema = match (name.as_str(), &all[name.as_str()]) {
            ("Error", _) => error(),
            ("VariantRequest", _) => variant(),
            ("RecalibrationRequest", _) => recalibration(),
            (_, Value::Null) => json!({}),
            (_, schema) => with_ours(&name, schema.clone()),
        };
        references(&schema, &mut open);
        used.insert(name, schema);
    }
    used.sort_keys();
    used
}

/// Adds the names that a value refers to.
fn references(value: &Value, names: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            let name = fields.get("$ref").and_then(Value::as_str);
            names.extend(
                name.and_then(|it| it.strip_prefix(PREFIX))
                    .map(str::to_owned),
            );
            fields.values().for_each(|value| references(value, names));
        }
        Value::Array(values) => values.iter().for_each(|value| references(value, names)),
        _ => {}
    }
}

/// Fields that this server reads and the engine's routes do not.
fn with_ours(name: &str, mut schema: Value) -> Value {
    if !matches!(name, "ChatCompletionRequest" | "CompletionRequest") {
        return schema;
    }
    if let Some(fields) = schema["properties"].as_object_mut() {
        let seed = json!({ "type": "integer", "description": "Draws the same tokens again" });
        fields.insert("seed".to_owned(), seed);
        let options = json!({ "type": "object", "properties": {
            "include_usage": { "type": "boolean" },
        } });
        fields.insert("stream_options".to_owned(), options);
    }
    schema
}

/// The body of `POST /v1/variants`.
fn variant() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "id": { "type": "string" },
            "plan": { "type": "object" },
            "prune_experts": { "type": "number", "example": 0.25 },
            "criterion": { "type": "string", "example": "reap" },
            "replace": { "type": "string", "example": "default" },
        },
    })
}

/// The body of `POST /v1/recalibrate`.
fn recalibration() -> Value {
    json!({
        "type": "object",
        "additionalProperties": false,
        "properties": {
            "model": { "type": "string", "example": "default" },
            "weight": { "type": "number", "example": 1.0 },
        },
    })
}

/// The body of every failure.
fn error() -> Value {
    let text = json!({ "type": "string" });
    let perhaps = json!({ "type": ["string", "null"] });
    json!({
        "type": "object",
        "required": ["error"],
        "properties": { "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": { "message": text, "type": text, "param": perhaps, "code": perhaps },
        } },
    })
}
