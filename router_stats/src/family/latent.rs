//! Multi-head latent attention as configurations have it.

use super::{rope, AttentionSpec, Config, Latent, Pairs, Projections, Topology};
use crate::Result;

/// ε of the norms over the latents, whatever that of the other norms is.
const EPS: f64 = 1e-6;

/// The attention of DeepSeek-V2 and its descendants, over all positions.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config)
pub(super) fn attention(config: &Config, layers: usize, theta: f64) -> Result<AttentionSpec> {
    let heads = config.count("num_attention_heads")?;
    let key_heads = config.count_or("num_key_value_heads", heads)?;
    if key_heads != heads {
        return Err(config.error("num_key_value_heads", &format!("the {heads} heads")));
    }
    let turning = config.count("qk_rope_head_dim")?;
    if !turning.is_multiple_of(2) {
        return Err(config.error("qk_rope_head_dim", "a positive even number"));
    }
    let latent = Latent {
        heads,
        q_rank: query_rank(config)?,
        kv_rank: config.count("kv_lora_rank")?,
        nope_dim: config.count("qk_nope_head_dim")?,
        value_dim: config.count("v_head_dim")?,
        eps: EPS,
        bias: config.flag_or("attention_bias", false)?,
    };
    let (rotary, softmax) = rope::yarn(config, turning, theta)?;
    Ok(AttentionSpec {
        scale: softmax / ((latent.nope_dim + turning) as f64).sqrt(),
        projections: Projections::Latent(latent),
        rotary,
        windows: vec![None; layers],
    })
}

/// The width of the latent of queries. Absent, it means another thing to
/// DeepSeek's code than to transformers, so it must be said.
fn query_rank(config: &Config) -> Result<Option<usize>> {
    let field = "q_lora_rank";
    match config.value().get(field) {
        None => Err(config.error(field, "a positive integer or null")),
        Some(_) => config.optional_count(field),
    }
}

/// Why the engine does not compute latent attention of this shape, if it does
/// not.
pub(super) fn refusal(topology: &Topology) -> Option<&'static str> {
    let attention = &topology.attention;
    let Projections::Latent(latent) = &attention.projections else {
        return None;
    };
    if attention.rotary.pairs == Pairs::Halves {
        Some("mistral.rs 0.8.1 turns adjacent dimensions only in latent attention")
    } else if latent.value_dim > latent.nope_dim + attention.rotary.dim {
        Some("mistral.rs 0.8.1 reads no values that are wider than queries")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{json, Value};

    use super::*;
    use crate::{Error, Result};

    fn small() -> Value {
        json!({"num_attention_heads": 4, "q_lora_rank": 24, "kv_lora_rank": 16,
            "qk_nope_head_dim": 12, "qk_rope_head_dim": 4, "v_head_dim": 10,
            "rope_theta": 50000, "attention_bias": true})
    }

    fn read(value: Value) -> Result<AttentionSpec> {
        attention(&Config::new("config.json", value)?, 2, 1e4)
    }

    #[test]
    fn reads_the_shape() {
        let spec = read(small()).unwrap();
        let expected = Latent {
            heads: 4,
            q_rank: Some(24),
            kv_rank: 16,
            nope_dim: 12,
            value_dim: 10,
            eps: 1e-6,
            bias: true,
        };
        assert_eq!(spec.projections, Projections::Latent(expected));
        assert_eq!(spec.scale, 0.25);
        assert_eq!((spec.rotary.dim, spec.rotary.theta), (4, 50_000.0));
        assert_eq!(spec.rotary.pairs, Pairs::Adjacent);
        assert_eq!(spec.windows, [None; 2]);
    }

    #[test]
    fn queries_may_come_without_a_latent() {
        let mut value = small();
        value["q_lora_rank"] = Value::Null;
        match read(value).unwrap().projections {
            Projections::Latent(latent) => assert_eq!(latent.q_rank, None),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn unusable_fields_are_named() {
        let mut absent = small();
        absent.as_object_mut().unwrap().remove("q_lora_rank");
        let mut cases = vec![(absent, "q_lora_rank")];
        for (field, change) in [
            ("num_attention_heads", json!(0)),
            ("num_key_value_heads", json!(2)),
            ("q_lora_rank", json!(0)),
            ("kv_lora_rank", json!(null)),
            ("qk_rope_head_dim", json!(3)),
            ("partial_rotary_factor", json!(0.5)),
        ] {
            let mut value = small();
            value[field] = change;
            cases.push((value, field));
        }
        for (value, field) in cases {
            match read(value) {
                Err(Error::Config { field: named, .. }) => assert_eq!(named, field),
                other => panic!("{field}: {other:?}"),
            }
        }
    }
}
