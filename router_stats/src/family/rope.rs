//! Rotary positions as configurations have them.
//!
//! transformers 4 wrote `rope_theta` and `rope_scaling`; transformers 5 writes
//! both into `rope_parameters`. Either is read, and [`flatten`] turns the second
//! into the first, which is what the engine reads.

mod spell;
#[cfg(test)]
mod tests;

use serde_json::{Map, Value};

pub(super) use spell::{flatten, spell_yarn};

use super::{Config, LongRope, Pairs, RotarySpec, Scaling, Yarn};
use crate::Result;

/// Where transformers 5 keeps everything about rotary positions.
const NESTED: &str = "rope_parameters";
/// Where transformers 4 kept how they are scaled.
const SCALING: &str = "rope_scaling";
/// The fraction of a head that turns.
const PARTIAL: &str = "partial_rotary_factor";

/// Unscaled positions over all `dim` dimensions of a head, paired in halves.
/// `theta` is the base where the configuration does not say.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) if it asks for scaled, partial or
/// per-layer positions.
pub(super) fn plain(config: &Config, dim: usize, theta: f64) -> Result<RotarySpec> {
    whole(config)?;
    unscaled(config, dim, theta)
}

/// Unscaled positions over the first dimensions of a head of `head_dim`, paired
/// in halves. `fraction` of them turn where the configuration does not say.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) if it asks for scaled or per-layer
/// positions, or if no even number of dimensions turns.
pub(super) fn partial(
    config: &Config,
    head_dim: usize,
    fraction: f64,
    theta: f64,
) -> Result<RotarySpec> {
    let section = section(config, PARTIAL)?;
    // As transformers rounds.
    let dim = (section.positive_or(PARTIAL, fraction)? * head_dim as f64) as usize;
    if !(1..=head_dim).contains(&dim) || !dim.is_multiple_of(2) {
        let expected = format!("an even part of {head_dim} dimensions");
        return Err(section.error(PARTIAL, &expected));
    }
    unscaled(config, dim, theta)
}

fn unscaled(config: &Config, dim: usize, theta: f64) -> Result<RotarySpec> {
    if let Some((field, _)) = scaled(config)? {
        return Err(config.error(field, "null or the default rotary positions"));
    }
    Ok(RotarySpec::plain(dim, base(config, theta)?))
}

/// Adjacent pairs, plain or scaled by YaRN, and what that multiplies q·k by, as
/// DeepSeek-V2 and its descendants have them: a positive `mscale_all_dim` takes
/// the magnitude out of cosines and sines and into the softmax.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) for another kind of scaling.
pub(super) fn yarn(config: &Config, dim: usize, theta: f64) -> Result<(RotarySpec, f64)> {
    whole(config)?;
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
    if factor <= 1.0 {
        return Err(section.error("factor", "a number above 1"));
    }
    let magnitude = |scale: f64| 0.1 * scale * factor.ln() + 1.0;
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
    whole(config)?;
    let mut rotary = RotarySpec::plain(dim, base(config, theta)?);
    let Some((field, kind)) = scaled(config)? else {
        return Ok(rotary);
    };
    if !["longrope", "su"].contains(&kind.as_str()) {
        return Err(config.error(field, "null, the default rotary positions or `longrope`"));
    }
    let section = config.section(field)?;
    let field = "original_max_position_embeddings";
    let inside = section.optional_count(field)?;
    let original = match config.optional_count(field)?.or(inside) {
        Some(original) => original,
        None => return Err(section.error(field, "a positive integer")),
    };
    // transformers 4 and 5 believe different ones.
    if inside.is_some_and(|inside| inside != original) {
        return Err(section.error(field, &format!("{original}, as outside it")));
    }
    rotary.scaling = Scaling::Long(LongRope {
        original,
        short: section.positives("short_factor", dim / 2)?,
        long: section.positives("long_factor", dim / 2)?,
        short_magnitude: section.positive("short_mscale")?,
        long_magnitude: section.positive("long_mscale")?,
    });
    Ok(rotary)
}

/// Fails unless all dimensions turn.
fn whole(config: &Config) -> Result<()> {
    let section = section(config, PARTIAL)?;
    match section.number_or(PARTIAL, 1.0)? {
        1.0 => Ok(()),
        _ => Err(section.error(PARTIAL, "1")),
    }
}

/// The base of the frequencies.
fn base(config: &Config, default: f64) -> Result<f64> {
    let field = "rope_theta";
    section(config, field)?.positive_or(field, default)
}

/// The section that holds `field`: the configuration itself if none does.
fn section(config: &Config, field: &str) -> Result<Config> {
    if config.has(NESTED) {
        let nested = config.section(NESTED)?;
        if nested.has(field) {
            return Ok(nested);
        }
    }
    Ok(config.clone())
}

/// The field that scales positions and the kind of scaling; `None` for plain
/// ones.
fn scaled(config: &Config) -> Result<Option<(&'static str, String)>> {
    let field = match (config.has(NESTED), config.has(SCALING)) {
        (false, false) => return Ok(None),
        (true, true) => return Err(config.error(SCALING, "nothing beside `rope_parameters`")),
        (true, false) => NESTED,
        (false, true) => SCALING,
    };
    let section = config.section(field)?;
    let Some(fields) = section.value().as_object() else {
        return Ok(None);
    };
    if fields.values().any(Value::is_object) {
        return Err(config.error(field, "the same rotary positions for all layers"));
    }
    Ok((!is_default(fields)).then(|| {
        let kind = kind(fields).and_then(Value::as_str);
        (field, kind.unwrap_or("").to_owned())
    }))
}

fn kind(fields: &Map<String, Value>) -> Option<&Value> {
    let said = |field| fields.get(field).filter(|value| !value.is_null());
    said("rope_type").or_else(|| said("type"))
}

/// Whether positions are not scaled. `mrope` is the default where all tokens
/// are text: the positions in time, height and width are then the same.
fn is_default(fields: &Map<String, Value>) -> bool {
    kind(fields).is_none_or(|kind| kind == "default" || kind == "mrope")
}
