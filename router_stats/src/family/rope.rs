//! Rotary positions as configurations have them.
//!
//! transformers 4 wrote `rope_theta` and `rope_scaling`; transformers 5 writes
//! both into `rope_parameters`. Either is read, and [`flatten`] turns the second
//! into the first, which is what the engine reads.

use serde_json::{Map, Value};

use super::{AttentionSpec, Config, LongRope, Pairs, Projections, RotarySpec, Scaling, Yarn};
use crate::Result;

/// Where transformers 5 keeps everything about rotary positions.
const NESTED: &str = "rope_parameters";
/// Where transformers 4 kept how they are scaled.
const SCALING: &str = "rope_scaling";
/// Keys inside [`NESTED`] that are fields of their own outside it.
const OWN_FIELDS: [&str; 2] = ["rope_theta", "partial_rotary_factor"];

/// Unscaled positions over the first `dim` dimensions of a head, paired in
/// halves. `theta` is the base where the configuration does not say.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) if it asks for scaled or per-layer
/// positions.
pub(super) fn plain(config: &Config, dim: usize, theta: f64) -> Result<RotarySpec> {
    if let Some((field, _)) = scaled(config)? {
        return Err(config.error(field, "null or the default rotary positions"));
    }
    Ok(RotarySpec::plain(dim, base(config, theta)?))
}

/// The fraction of a head that turns.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) unless it is above 0 and at most 1.
pub(super) fn partial(config: &Config, default: f64) -> Result<f64> {
    let field = "partial_rotary_factor";
    let (section, _) = section(config, field)?;
    let fraction = section.positive_or(field, default)?;
    if fraction > 1.0 {
        return Err(section.error(field, "a number above 0 and at most 1"));
    }
    Ok(fraction)
}

/// Adjacent pairs, plain or scaled by YaRN, and what that multiplies q·k by, as
/// DeepSeek-V2 and its descendants have them: a positive `mscale_all_dim` takes
/// the magnitude out of cosines and sines and into the softmax.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) for another kind of scaling.
pub(super) fn yarn(config: &Config, dim: usize, theta: f64) -> Result<(RotarySpec, f64)> {
    let mut rotary = RotarySpec::plain(dim, base(config, theta)?);
    rotary.pairs = if config.flag_or("rope_interleave", true)? {
        Pairs::Adjacent
    } else {
        Pairs::Halves
    };
    let Some((field, kind)) = scaled(config)? else {
        return Ok((rotary, 1.0));
    };
    if kind != "yarn" {
        return Err(config.error(field, "null, the default rotary positions or `yarn`"));
    }
    let section = config.section(field)?;
    if !section.flag_or("truncate", true)? {
        return Err(section.error("truncate", "true"));
    }
    let factor = section.positive("factor")?;
    let magnitude = |scale: f64| {
        if factor > 1.0 {
            0.1 * scale * factor.ln() + 1.0
        } else {
            1.0
        }
    };
    let (each, all) = (
        section.number_or("mscale", 0.0)?,
        section.number_or("mscale_all_dim", 0.0)?,
    );
    let default = if each != 0.0 && all != 0.0 {
        magnitude(each) / magnitude(all)
    } else {
        magnitude(1.0)
    };
    rotary.scaling = Scaling::Yarn(Yarn {
        factor,
        original: section.count("original_max_position_embeddings")?,
        beta_fast: section.positive_or("beta_fast", 32.0)?,
        beta_slow: section.positive_or("beta_slow", 1.0)?,
        magnitude: section.positive_or("attention_factor", default)?,
    });
    let softmax = if all == 0.0 {
        1.0
    } else {
        magnitude(all).powi(2)
    };
    Ok((rotary, softmax))
}

/// Positions in halves, plain or scaled by LongRoPE with magnitudes of its own
/// for short and long sequences, as Phi-3.5-MoE has them.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) for another kind of scaling.
pub(super) fn long(config: &Config, dim: usize, theta: f64) -> Result<RotarySpec> {
    let mut rotary = RotarySpec::plain(dim, base(config, theta)?);
    let Some((field, kind)) = scaled(config)? else {
        return Ok(rotary);
    };
    if !["longrope", "su"].contains(&kind.as_str()) {
        return Err(config.error(field, "null, the default rotary positions or `longrope`"));
    }
    let section = config.section(field)?;
    let original = "original_max_position_embeddings";
    let original = if section.has(original) {
        section.count(original)?
    } else {
        config.count(original)?
    };
    rotary.scaling = Scaling::Long(LongRope {
        original,
        short: section.positives("short_factor", dim / 2)?,
        long: section.positives("long_factor", dim / 2)?,
        short_magnitude: section.positive("short_mscale")?,
        long_magnitude: section.positive("long_mscale")?,
    });
    Ok(rotary)
}

/// Spells rotary positions as transformers 4 did, if they are not yet.
pub(super) fn flatten(config: &mut Value) {
    let Some(config) = config.as_object_mut() else {
        return;
    };
    let Some(Value::Object(mut nested)) = config.remove(NESTED) else {
        return;
    };
    for field in OWN_FIELDS {
        if let Some(value) = nested.remove(field) {
            config.insert(field.to_owned(), value);
        }
    }
    if kind(&nested) == Some("default") && nested.len() == 1 {
        nested.clear();
    }
    let scaling = match nested.is_empty() {
        true => Value::Null,
        false => Value::Object(nested),
    };
    config.insert(SCALING.to_owned(), scaling);
}

/// Spells YaRN in `rope_scaling` with every field that the engine requires,
/// which has no defaults for them.
pub(super) fn spell_yarn(config: &mut Value, attention: &AttentionSpec) {
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
    let mscales = ["mscale", "mscale_all_dim"];
    if scaling.contains_key("attention_factor") || mscales.iter().any(|m| !scaling.contains_key(*m))
    {
        scaling.insert(mscales[0].to_owned(), exponent(yarn.magnitude * all).into());
        scaling.insert(mscales[1].to_owned(), exponent(all).into());
    }
    scaling.insert("type".to_owned(), "yarn".into());
    for (field, value) in [("beta_fast", yarn.beta_fast), ("beta_slow", yarn.beta_slow)] {
        // 32 stays 32 and does not become 32.0.
        if scaling.get(field).and_then(Value::as_f64) != Some(value) {
            scaling.insert(field.to_owned(), value.into());
        }
    }
}

/// The base of the frequencies.
fn base(config: &Config, default: f64) -> Result<f64> {
    let field = "rope_theta";
    section(config, field)?.0.positive_or(field, default)
}

/// The section that holds `field`, and its name: the configuration itself if
/// none does.
fn section(config: &Config, field: &str) -> Result<(Config, &'static str)> {
    if config.has(NESTED) {
        let nested = config.section(NESTED)?;
        if nested.has(field) {
            return Ok((nested, NESTED));
        }
    }
    Ok((config.clone(), ""))
}

/// The field that scales positions and the kind of scaling; `None` for plain
/// ones.
fn scaled(config: &Config) -> Result<Option<(&'static str, String)>> {
    for field in [NESTED, SCALING] {
        if !config.has(field) {
            continue;
        }
        let section = config.section(field)?;
        let Some(fields) = section.value().as_object() else {
            continue;
        };
        if fields.values().any(Value::is_object) {
            return Err(config.error(field, "the same rotary positions for all layers"));
        }
        if !is_default(fields) {
            return Ok(Some((field, kind(fields).unwrap_or("").to_owned())));
        }
    }
    Ok(None)
}

fn kind(fields: &Map<String, Value>) -> Option<&str> {
    let kind = fields.get("rope_type").or_else(|| fields.get("type"))?;
    kind.as_str()
}

/// Whether positions are not scaled. `mrope` is the default where all tokens
/// are text: the positions in time, height and width are then the same.
fn is_default(fields: &Map<String, Value>) -> bool {
    matches!(kind(fields), None | Some("default" | "mrope"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(value: Value) -> Config {
        Config::new("config.json", value).unwrap()
    }

    #[test]
    fn the_base_is_read_from_either_place() {
        let theta = |value| base(&config(value), 1e4);
        assert_eq!(theta(json!({})).unwrap(), 1e4);
        assert_eq!(theta(json!({"rope_theta": 5e5})).unwrap(), 5e5);
        let nested = json!({"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}});
        assert_eq!(theta(nested).unwrap(), 1e6);
        assert_eq!(
            theta(json!({"rope_theta": 2.0, "rope_parameters": null})).unwrap(),
            2.0
        );
        assert!(theta(json!({"rope_parameters": {"rope_theta": -1.0}})).is_err());
        assert!(theta(json!({"rope_theta": "big"})).is_err());
    }

    #[test]
    fn scaled_positions_are_not_plain() {
        let plain = |value| plain(&config(value), 8, 1e4).is_ok();
        assert!(plain(json!({})));
        assert!(plain(json!({"rope_scaling": null})));
        assert!(plain(
            json!({"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}})
        ));
        assert!(plain(
            json!({"rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}})
        ));
        assert!(!plain(
            json!({"rope_scaling": {"type": "linear", "factor": 2.0}})
        ));
        assert!(!plain(
            json!({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}})
        ));
        assert!(!plain(
            json!({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}})
        ));
        assert!(!plain(json!({"rope_scaling": "linear"})));
    }

    #[test]
    fn a_fraction_turns() {
        let fraction = |value| partial(&config(value), 1.0);
        assert_eq!(fraction(json!({})).unwrap(), 1.0);
        assert_eq!(
            fraction(json!({"partial_rotary_factor": 0.5})).unwrap(),
            0.5
        );
        assert_eq!(
            fraction(json!({"rope_parameters": {"partial_rotary_factor": 0.25}})).unwrap(),
            0.25
        );
        assert!(fraction(json!({"partial_rotary_factor": 1.5})).is_err());
    }

    #[test]
    fn yarn_moves_its_magnitude_into_the_softmax() {
        // DeepSeek-V3's own numbers.
        let yarn = |value| yarn(&config(value), 64, 1e4).unwrap();
        let scaling = json!({"type": "yarn", "factor": 40, "beta_fast": 32, "beta_slow": 1,
            "mscale": 1.0, "mscale_all_dim": 1.0, "original_max_position_embeddings": 4096});
        let (rotary, softmax) = yarn(json!({"rope_scaling": scaling}));
        let magnitude = 0.1 * 40f64.ln() + 1.0;
        assert!((softmax - magnitude * magnitude).abs() < 1e-12);
        assert_eq!(rotary.pairs, Pairs::Adjacent);
        let Scaling::Yarn(scaled) = rotary.scaling else {
            panic!("{rotary:?}")
        };
        assert_eq!((scaled.factor, scaled.original), (40.0, 4096));
        assert_eq!(scaled.magnitude, 1.0);
        // Without the two, the magnitude is in cosines and sines.
        let (rotary, softmax) = yarn(json!({"rope_parameters": {"rope_type": "yarn",
            "factor": 40, "original_max_position_embeddings": 4096}}));
        assert_eq!(softmax, 1.0);
        assert!(
            matches!(rotary.scaling, Scaling::Yarn(Yarn { magnitude: m, .. }) if m == magnitude)
        );
    }

    #[test]
    fn long_rope_has_a_divisor_for_each_frequency() {
        let scaling = |short| {
            json!({"original_max_position_embeddings": 4096, "rope_scaling": {"type": "longrope",
                "short_factor": short, "long_factor": [2.0, 3.0], "short_mscale": 1.1,
                "long_mscale": 1.3}})
        };
        let rotary = long(&config(scaling(vec![1.0, 1.5])), 4, 1e4).unwrap();
        let expected = LongRope {
            original: 4096,
            short: vec![1.0, 1.5],
            long: vec![2.0, 3.0],
            short_magnitude: 1.1,
            long_magnitude: 1.3,
        };
        assert_eq!(rotary.scaling, Scaling::Long(expected));
        assert!(long(&config(scaling(vec![1.0])), 4, 1e4).is_err());
        assert!(long(&config(json!({"rope_scaling": {"type": "yarn"}})), 4, 1e4).is_err());
    }

    #[test]
    fn flattening_keeps_what_is_said() {
        let mut nested = json!({"rope_parameters": {"rope_theta": 1e6, "rope_type": "yarn",
            "factor": 4.0, "partial_rotary_factor": 0.5}});
        flatten(&mut nested);
        let flat = json!({"rope_theta": 1e6, "partial_rotary_factor": 0.5,
            "rope_scaling": {"rope_type": "yarn", "factor": 4.0}});
        assert_eq!(nested, flat);
        flatten(&mut nested);
        assert_eq!(nested, flat);
        let mut plain = json!({"rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}});
        flatten(&mut plain);
        assert_eq!(plain, json!({"rope_theta": 1e6, "rope_scaling": null}));
        let mut images = json!({"rope_parameters": {"rope_theta": 1e6, "rope_type": "default",
            "mrope_section": [2, 1, 1]}});
        flatten(&mut images);
        let flat = json!({"rope_theta": 1e6,
            "rope_scaling": {"rope_type": "default", "mrope_section": [2, 1, 1]}});
        assert_eq!(images, flat);
    }

    #[test]
    fn what_the_engine_requires_means_the_same() {
        let read = |value: &Value| {
            super::super::latent::attention(&config(value.clone()), 1, 1e4).unwrap()
        };
        let shape = json!({"num_attention_heads": 2, "kv_lora_rank": 4, "qk_nope_head_dim": 6,
            "qk_rope_head_dim": 4, "v_head_dim": 6});
        for scaling in [
            json!({"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 64}),
            json!({"type": "yarn", "factor": 40.0, "original_max_position_embeddings": 64,
                "mscale": 0.707, "mscale_all_dim": 0.5}),
            json!({"type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64,
                "mscale_all_dim": 1.0, "attention_factor": 1.5, "beta_fast": 16}),
        ] {
            let mut value = shape.clone();
            value["rope_scaling"] = scaling;
            let before = read(&value);
            spell_yarn(&mut value, &before);
            let fields = value["rope_scaling"].as_object_mut().unwrap();
            for field in ["beta_fast", "beta_slow", "mscale", "mscale_all_dim", "type"] {
                assert!(fields.contains_key(field), "{field}");
            }
            fields.remove("attention_factor");
            let after = read(&value);
            assert!((before.scale / after.scale - 1.0).abs() < 1e-12);
            let (Scaling::Yarn(a), Scaling::Yarn(b)) =
                (before.rotary.scaling, after.rotary.scaling)
            else {
                panic!()
            };
            assert!((a.magnitude / b.magnitude - 1.0).abs() < 1e-12);
            assert_eq!((a.beta_fast, a.beta_slow), (b.beta_fast, b.beta_slow));
        }
    }
}
