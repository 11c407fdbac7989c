//! Multi-head latent attention as configurations have it.

use super::{rope, AttentionSpec, Config, Latent, Projections};
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
        q_rank: match config.has("q_lora_rank") {
            true => Some(config.count("q_lora_rank")?),
            false => None,
        },
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
