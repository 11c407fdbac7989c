//! Configurations that lie are refused by name and break nothing.

use serde_json::{json, Value};

use super::either_spelling;
use crate::family::{Config, Family};
use crate::Error;

/// Values that few fields can have.
fn values() -> [Value; 12] {
    [
        Value::Null,
        json!(0),
        json!(1),
        json!(-1),
        json!(0.3),
        json!(1e300),
        json!(i32::MAX),
        json!(u64::MAX),
        json!(true),
        json!("default"),
        json!([]),
        json!({}),
    ]
}

/// Reads `value` and does all that is done with a structure.
fn use_all(family: &dyn Family, value: &Value) {
    let config = Config::new("config.json", value.clone()).unwrap();
    let topology = match family.topology(&config) {
        Ok(topology) => topology,
        Err(Error::Config { field, .. }) => return assert!(!field.is_empty()),
        Err(other) => panic!("{other:?}"),
    };
    family.serving(&topology);
    assert!(!topology.tensors_beside_experts(family.names()).is_empty());
    let mut spelled = value.clone();
    family.spell_for_engine(&mut spelled, &topology);
    family.spell_for_others(&mut spelled);
    assert!(topology.layers() > 0 && !topology.predicts(0));
}

#[test]
fn no_value_of_a_field_panics() {
    for case in either_spelling() {
        let sections: &[&[&str]] = match case.value.get("text_config") {
            Some(_) => &[&["text_config"], &["text_config", "rope_parameters"]],
            None => &[&[], &["rope_parameters"], &["rope_scaling"]],
        };
        for path in sections {
            let pointer: String = path.iter().map(|key| format!("/{key}")).collect();
            let Some(Value::Object(fields)) = case.value.pointer(&pointer) else {
                continue;
            };
            for field in fields.keys() {
                for replacement in values() {
                    let mut value = case.value.clone();
                    value.pointer_mut(&pointer).unwrap()[field] = replacement;
                    use_all(case.family, &value);
                }
                let mut value = case.value.clone();
                let section = value.pointer_mut(&pointer).unwrap();
                section.as_object_mut().unwrap().remove(field);
                use_all(case.family, &value);
            }
        }
    }
}

#[test]
fn a_configuration_that_says_nothing_is_refused() {
    for family in crate::family::FAMILIES {
        for value in [json!({}), json!({"text_config": {}})] {
            let config = Config::new("config.json", value).unwrap();
            assert!(matches!(
                family.topology(&config),
                Err(Error::Config { .. })
            ));
        }
    }
}
