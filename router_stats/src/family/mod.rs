//! Model families: what a checkpoint's configuration and tensor names mean.
//!
//! A family is one file that implements [`Family`] and one line in
//! [`FAMILIES`]. It owns the reading and rewriting of `config.json` and the
//! spelling of tensor names; it owns no arithmetic (see [`crate::forward`]).

mod config;
mod keep;
mod mixtral;
mod names;
mod qwen3_moe;
mod topology;

use serde_json::Value;

pub use config::Config;
pub use keep::Keep;
pub use names::{Names, Part, Projection, Role};
pub use topology::{AttentionSpec, MlpSpec, MoeSpec, RouterRule, Scoring, Topology};

use crate::{Error, Result};

/// Every family this build reads.
pub const FAMILIES: &[&dyn Family] = &[&qwen3_moe::Qwen3Moe, &mixtral::Mixtral];

/// What one architecture's configuration and names mean.
pub trait Family: Sync + std::fmt::Debug {
    /// `model_type` in `config.json`: `qwen3_moe`.
    fn model_type(&self) -> &'static str;

    /// Entry of `architectures` in `config.json`: `Qwen3MoeForCausalLM`.
    fn architecture(&self) -> &'static str;

    /// How tensors are called.
    fn names(&self) -> &'static Names;

    /// Whether mistral.rs wants experts stacked in one tensor per projection.
    fn engine_stacks_experts(&self) -> bool;

    /// Reads the model's structure from its configuration.
    ///
    /// # Errors
    /// [`Error::Config`] for a field that is absent or unusable.
    fn topology(&self, config: &Config) -> Result<Topology>;

    /// Rewrites `config` so that it describes what `keep` leaves of the model.
    /// Keys that do not change are left alone, unknown ones included.
    ///
    /// `keep` has passed [`Keep::check`].
    fn rewrite_config(&self, config: &mut Value, topology: &Topology, keep: &Keep);
}

/// Finds the family of a configuration by `architectures`, else `model_type`.
///
/// # Errors
/// [`Error::UnknownFamily`] if none is registered.
pub fn detect(config: &Config) -> Result<&'static dyn Family> {
    let architecture = config.architecture();
    let model_type = config.model_type();
    FAMILIES
        .iter()
        .copied()
        .find(|family| architecture == Some(family.architecture()))
        .or_else(|| {
            FAMILIES
                .iter()
                .copied()
                .find(|family| architecture.is_none() && model_type == Some(family.model_type()))
        })
        .ok_or_else(|| Error::UnknownFamily {
            path: config.path().to_path_buf(),
            found: architecture.or(model_type).unwrap_or("none").to_owned(),
            known: FAMILIES
                .iter()
                .map(|family| family.architecture())
                .collect::<Vec<_>>()
                .join(", "),
        })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn detected(value: Value) -> Result<&'static str> {
        detect(&Config::new("config.json", value)?).map(Family::model_type)
    }

    #[test]
    fn architectures_decide_before_the_model_type() {
        for family in FAMILIES {
            let (architecture, model_type) = (family.architecture(), family.model_type());
            assert_eq!(
                detected(json!({"architectures": [architecture]})).unwrap(),
                model_type
            );
            assert_eq!(
                detected(json!({"model_type": model_type})).unwrap(),
                model_type
            );
            let contradicting = json!({"architectures": [architecture], "model_type": "other"});
            assert_eq!(detected(contradicting).unwrap(), model_type);
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
                        .all(|family| known.contains(family.architecture())));
                }
                other => panic!("{other:?}"),
            }
        }
    }
}
