//! Rotary positions as the engine reads them: in the flat spelling, with every
//! field of YaRN said.

use serde_json::{Map, Value};

use super::{is_default, NESTED, PARTIAL, SCALING};
use crate::family::{AttentionSpec, Projections, Scaling};

/// Spells rotary positions as transformers 4 did, if they are not yet, and
/// unscaled ones as null.
pub(in crate::family) fn flatten(config: &mut Value) {
    let Some(config) = config.as_object_mut() else {
        return;
    };
    if let Some(Value::Object(mut nested)) = config.shift_remove(NESTED) {
        for field in ["rope_theta", PARTIAL] {
            if let Some(value) = nested.shift_remove(field) {
                config.insert(field.to_owned(), value);
            }
        }
        config.insert(SCALING.to_owned(), Value::Object(nested));
    }
    let scaling = config.get(SCALING).and_then(Value::as_object);
    if scaling.is_some_and(says_nothing) {
        config.insert(SCALING.to_owned(), Value::Null);
    }
}

/// Whether only the kind of positions is said, and that it is the default.
fn says_nothing(scaling: &Map<String, Value>) -> bool {
    let mut keys = scaling.keys();
    is_default(scaling) && keys.all(|key| key == "rope_type" || key == "type")
}

/// Spells YaRN in `rope_scaling` with every field that the engine requires,
/// which has no defaults for them.
pub(in crate::family) fn spell_yarn(config: &mut Value, attention: &AttentionSpec) {
    let (Scaling::Yarn(yarn), Projections::Latent(latent)) =
        (&attention.rotary.scaling, &attention.projections)
    else {
        return;
    };
    let Some(scaling) = config.get_mut(SCALING).and_then(Value::as_object_mut) else {
        return;
    };
    // The engine computes magnitudes 0.1·m·ln(factor) + 1: m is found back.
    let width = (latent.nope_dim + attention.rotary.dim) as f64;
    let all = (attention.scale * width.sqrt()).sqrt();
    let exponent = |magnitude: f64| (magnitude - 1.0) / (0.1 * yarn.factor.ln());
    let positive = |field: &str| scaling.get(field).and_then(Value::as_f64) > Some(0.0);
    // Both are said, and nothing overrides them: they mean the same there.
    let same = positive("mscale") && positive("mscale_all_dim");
    if scaling.contains_key("attention_factor") || !same {
        scaling.insert("mscale".to_owned(), exponent(yarn.magnitude * all).into());
        scaling.insert("mscale_all_dim".to_owned(), exponent(all).into());
    }
    scaling.insert("type".to_owned(), "yarn".into());
    for (field, value) in [("beta_fast", yarn.beta_fast), ("beta_slow", yarn.beta_slow)] {
        // 32 stays 32 and does not become 32.0.
        if scaling.get(field).and_then(Value::as_f64) != Some(value) {
            scaling.insert(field.to_owned(), value.into());
        }
    }
}
