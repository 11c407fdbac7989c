//! What holds for every family, on real configurations in either spelling.

mod detection;
mod hostile;
mod pruning;
mod serving;
mod spelling;

use std::path::Path;

use serde_json::{json, Value};

use super::{detect, Config, Family, Serving, Topology};
use crate::{Error, Result};

/// What `family` reads from a configuration.
pub(super) fn read(family: &dyn Family, value: &Value) -> Result<Topology> {
    family.topology(&Config::new("config.json", value.clone())?)
}

/// `value` with some fields changed.
pub(super) fn with(value: &Value, changes: &[(&str, Value)]) -> Value {
    let mut value = value.clone();
    for (field, change) in changes {
        value[*field] = change.clone();
    }
    value
}

/// `value` without a field.
pub(super) fn without(value: &Value, field: &str) -> Value {
    let mut value = value.clone();
    value.as_object_mut().unwrap().remove(field);
    value
}

/// Fails unless each of these values alone makes `family` refuse `value` by the
/// name of its field.
pub(super) fn refuses(family: &dyn Family, value: &Value, cases: &[(&str, Value)]) {
    read(family, value).unwrap();
    for (field, change) in cases {
        match read(family, &with(value, &[(field, change.clone())])) {
            Err(Error::Config { field: named, .. }) => assert_eq!(named, *field),
            other => panic!("{field}: {other:?}"),
        }
    }
}

/// Why the engine does not take a model, or an empty string.
pub(super) fn refusal(family: &dyn Family, value: &Value) -> &'static str {
    match family.serving(&read(family, value).unwrap()) {
        Serving::No(reason) => reason,
        _ => "",
    }
}

/// A real configuration.
struct Case {
    /// Its name, with `nested` in the spelling of transformers 5.
    name: String,
    value: Value,
    family: &'static dyn Family,
    topology: Topology,
}

impl Case {
    fn new(name: String, value: Value) -> Self {
        let config = Config::new(&name, value.clone()).unwrap();
        let family = detect(&config).unwrap();
        let topology = family.topology(&config).unwrap();
        Self {
            name,
            value,
            family,
            topology,
        }
    }

    fn read(&self, value: &Value) -> Topology {
        read(self.family, value).unwrap()
    }
}

/// `tests/configs`, as they are on the hub.
fn published() -> Vec<Case> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/configs");
    let mut cases: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .filter_map(|path| {
            let name = path.file_stem()?.to_str()?.to_owned();
            let value: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            value.get("architectures")?;
            Some(Case::new(name, value))
        })
        .collect();
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    assert!(cases.len() >= 20);
    cases
}

/// The same as transformers 5 writes them.
fn nested() -> impl Iterator<Item = Case> {
    published().into_iter().map(|case| {
        let mut value = case.value;
        match value.get_mut("text_config") {
            Some(text) => nest(text),
            None => nest(&mut value),
        }
        Case::new(format!("{} nested", case.name), value)
    })
}

/// Both.
fn either_spelling() -> Vec<Case> {
    published().into_iter().chain(nested()).collect()
}

/// Spells as transformers 5 does.
fn nest(config: &mut Value) {
    let layers = config["num_hidden_layers"].as_u64().unwrap() as usize;
    let model_type = config["model_type"].as_str().unwrap().to_owned();
    let fields = config.as_object_mut().unwrap();
    let mut rope = match fields.remove("rope_scaling") {
        Some(Value::Object(rope)) => rope,
        _ => serde_json::Map::new(),
    };
    let kind = rope.get("type").cloned().unwrap_or("default".into());
    rope.entry("rope_type").or_insert(kind);
    for field in ["rope_theta", "partial_rotary_factor"] {
        if let Some(value) = fields.remove(field) {
            rope.insert(field.to_owned(), value);
        }
    }
    if let Some(dim) = fields.get("rotary_dim").and_then(Value::as_f64) {
        let fraction = dim / fields["head_dim"].as_f64().unwrap();
        rope.insert("partial_rotary_factor".to_owned(), fraction.into());
    }
    fields.insert("rope_parameters".to_owned(), rope.into());
    if model_type.starts_with("qwen3") {
        let experts = fields.remove("num_experts").unwrap();
        fields.insert("num_local_experts".to_owned(), experts);
    }
    if model_type == "glm4_moe_lite" {
        let mut kinds = vec!["sparse"; layers];
        kinds[0] = "dense";
        fields.remove("first_k_dense_replace");
        fields.insert("mlp_layer_types".to_owned(), json!(kinds));
    }
    // transformers 5 has no such fields of its own.
    for field in ["scoring_func", "topk_method", "max_window_layers"] {
        if model_type != "deepseek_v2" {
            fields.remove(field);
        }
    }
}
