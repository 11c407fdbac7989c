//! Which family a configuration is of.

use serde_json::{json, Value};

use crate::family::{detect, Config, Family, FAMILIES};
use crate::{Error, Result};

fn detected(value: Value) -> Result<&'static str> {
    detect(&Config::new("config.json", value)?).map(Family::model_type)
}

#[test]
fn architectures_decide_before_the_model_type() {
    for family in FAMILIES {
        let model_type = family.model_type();
        assert_eq!(
            detected(json!({"model_type": model_type})).unwrap(),
            model_type
        );
        for architecture in family.architectures() {
            assert_eq!(
                detected(json!({"architectures": [architecture]})).unwrap(),
                model_type
            );
            let contradicting = json!({"architectures": [architecture], "model_type": "other"});
            assert_eq!(detected(contradicting).unwrap(), model_type);
        }
    }
}

#[test]
fn an_unknown_family_is_named_with_the_known_ones() {
    for (value, expected) in [
        (
            json!({"architectures": ["LlamaForCausalLM"], "model_type": "mixtral"}),
            "LlamaForCausalLM",
        ),
        (json!({"model_type": "llama"}), "llama"),
        (json!({}), "none"),
    ] {
        match detected(value) {
            Err(Error::UnknownFamily { found, known, .. }) => {
                assert_eq!(found, expected);
                assert!(FAMILIES
                    .iter()
                    .all(|family| known.contains(family.architectures()[0])));
            }
            other => panic!("{other:?}"),
        }
    }
}
