//! Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1).
//!
//! Keys and values are expanded from their latent for all heads and attended
//! to as any others; nothing is cached, so the latent saves no work here.

use candle_core::Tensor;
use rayon::prelude::*;

use super::Module;
use crate::family::{self, Topology};
use crate::forward::batch::Batch;
use crate::forward::causal::{attend, Heads};
use crate::forward::rotary::{rotate, Turn};
use crate::forward::rows::{self, with_slices};
use crate::forward::weights::Linear;
use crate::Result;

/// Rows that pass together, unless a sequence has more. Queries, keys and
/// values of all heads are many times as wide as the residual stream.
const ROWS: usize = 2048;

/// Rows a parallel task takes at least.
const ROWS_PER_TASK: usize = 16;

/// The weights of one block's attention.
#[derive(Debug)]
pub(in crate::forward) struct Latent {
    q: Queries,
    /// To the latent of keys and values and the rotary part of all keys.
    kv_a: Linear,
    /// [kv_rank]
    kv_norm: Tensor,
    /// From the latent to the rest of every head's key, then its value.
    kv_b: Linear,
    o: Linear,
    heads: Heads,
    turn: Turn,
    eps: f32,
}

/// Where queries come from.
#[derive(Debug)]
enum Queries {
    /// The residual stream.
    Direct(Linear),
    /// A normalised latent of it.
    Latent {
        a: Linear,
        /// [q_rank]
        norm: Tensor,
        b: Linear,
    },
}

impl Latent {
    /// # Errors
    /// Names the tensor that is missing or malformed.
    pub(super) fn load(
        module: &Module<'_>,
        spec: &family::Latent,
        topology: &Topology,
        layer: usize,
    ) -> Result<Self> {
        let hidden = topology.hidden;
        let attention = &topology.attention;
        let rotary = &attention.rotary;
        let heads = Heads {
            queries: spec.heads,
            keys: spec.heads,
            dim: spec.nope_dim + rotary.dim,
            value_dim: spec.value_dim,
            scale: attention.scale,
            window: attention.windows[layer],
        };
        let q_width = heads.queries * heads.dim;
        let kv_width = heads.keys * (spec.nope_dim + spec.value_dim);
        let latent = spec.kv_rank + rotary.dim;
        Ok(Self {
            q: match spec.q_rank {
                None => Queries::Direct(module.linear("q_proj", [q_width, hidden], false)?),
                Some(rank) => Queries::Latent {
                    a: module.linear("q_a_proj", [rank, hidden], spec.bias)?,
                    norm: module.norm("q_a_layernorm", rank)?,
                    b: module.linear("q_b_proj", [q_width, rank], false)?,
                },
            },
            kv_a: module.linear("kv_a_proj_with_mqa", [latent, hidden], spec.bias)?,
            kv_norm: module.norm("kv_a_layernorm", spec.kv_rank)?,
            kv_b: module.linear("kv_b_proj", [kv_width, spec.kv_rank], false)?,
            o: module.linear("o_proj", [hidden, spec.heads * spec.value_dim], spec.bias)?,
            heads,
            turn: Turn {
                head: heads.dim,
                first: spec.nope_dim,
                dim: rotary.dim,
                pairs: rotary.pairs,
            },
            eps: spec.eps as f32,
        })
    }

    /// [N, H] → [N, H]
    pub(super) fn forward(&self, x: &Tensor, batch: &Batch) -> Result<Tensor> {
        let outputs = batch.pieces(ROWS)?.into_iter().map(|(rows, piece)| {
            let x = x.narrow(0, rows.start, rows.len())?;
            let q = self.queries(&x, &piece)?;
            let (k, v) = self.keys_and_values(&x, &piece)?;
            self.o
                .forward(&attend(&q, &k, &v, &piece.starts, self.heads)?)
        });
        Ok(Tensor::cat(&outputs.collect::<Result<Vec<_>>>()?, 0)?)
    }

    /// [N, H] → [N, heads·d]
    fn queries(&self, x: &Tensor, batch: &Batch) -> Result<Tensor> {
        let q = match &self.q {
            Queries::Direct(q) => q.forward(x)?,
            Queries::Latent { a, norm, b } => {
                b.forward(&rows::rms_norm(&a.forward(x)?, norm, self.eps)?)?
            }
        };
        rotate(&q, None, self.eps, self.turn, batch)
    }

    /// [N, H] → [N, heads·d] and [N, heads·value_dim]
    fn keys_and_values(&self, x: &Tensor, batch: &Batch) -> Result<(Tensor, Tensor)> {
        let rank = self.kv_norm.elem_count();
        let latent = self.kv_a.forward(x)?;
        let turned = latent.narrow(1, rank, self.turn.dim)?;
        let single = Turn {
            head: self.turn.dim,
            first: 0,
            ..self.turn
        };
        let turned = rotate(&turned, None, self.eps, single, batch)?;
        let latent = rows::rms_norm(&latent.narrow(1, 0, rank)?, &self.kv_norm, self.eps)?;
        expand(&self.kv_b.forward(&latent)?, &turned, self.heads)
    }
}

/// Puts keys and values together: of every head in `kv`
/// [N, heads·(nope + value_dim)], the first part followed by the row of
/// `turned` [N, d − nope] that all heads share, and the second.
fn expand(kv: &Tensor, turned: &Tensor, heads: Heads) -> Result<(Tensor, Tensor)> {
    let (rows, shared) = turned.dims2()?;
    let still = heads.dim - shared;
    let (k_width, v_width) = (heads.keys * heads.dim, heads.keys * heads.value_dim);
    let on_cpu = with_slices([kv, turned], |[kv, turned]| {
        let (mut keys, mut values) = (vec![0f32; rows * k_width], vec![0f32; rows * v_width]);
        keys.par_chunks_exact_mut(k_width)
            .zip(values.par_chunks_exact_mut(v_width))
            .zip(kv.par_chunks_exact(heads.keys * (still + heads.value_dim)))
            .zip(turned.par_chunks_exact(shared))
            .with_min_len(ROWS_PER_TASK)
            .for_each(|(((keys, values), kv), turned)| {
                for ((key, value), kv) in keys
                    .chunks_exact_mut(heads.dim)
                    .zip(values.chunks_exact_mut(heads.value_dim))
                    .zip(kv.chunks_exact(still + heads.value_dim))
                {
                    key[..still].copy_from_slice(&kv[..still]);
                    key[still..].copy_from_slice(turned);
                    value.copy_from_slice(&kv[still..]);
                }
            });
        (keys, values)
    })?;
    match on_cpu {
        Some((keys, values)) => Ok((
            Tensor::from_vec(keys, (rows, k_width), kv.device())?,
            Tensor::from_vec(values, (rows, v_width), kv.device())?,
        )),
        None => expand_tensors(kv, turned, heads),
    }
}

fn expand_tensors(kv: &Tensor, turned: &Tensor, heads: Heads) -> Result<(Tensor, Tensor)> {
    let (rows, shared) = turned.dims2()?;
    let still = heads.dim - shared;
    let kv = kv.reshape((rows, heads.keys, still + heads.value_dim))?;
    let turned = turned
        .unsqueeze(1)?
        .broadcast_as((rows, heads.keys, shared))?;
    let keys = Tensor::cat(&[kv.narrow(2, 0, still)?, turned], 2)?;
    let values = kv.narrow(2, still, heads.value_dim)?;
    Ok((
        keys.reshape((rows, heads.keys * heads.dim))?,
        values.reshape((rows, heads.keys * heads.value_dim))?,
    ))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn slices_and_tensors_agree() {
        let heads = Heads {
            queries: 3,
            keys: 3,
            dim: 6,
            value_dim: 5,
            scale: 1.0,
            window: None,
        };
        // Heads of 4 still dimensions and a value; 2 that turn.
        let kv = Tensor::arange(0f32, 20.0 * 27.0, &Device::Cpu).unwrap();
        let kv = kv.reshape((20, 27)).unwrap();
        let turned = Tensor::arange(1000f32, 1040.0, &Device::Cpu).unwrap();
        let turned = turned.reshape((20, 2)).unwrap();
        let values = |x: Tensor| x.to_vec2::<f32>().unwrap();
        let (keys, mixed) = expand(&kv, &turned, heads).unwrap();
        let (expected_keys, expected_mixed) = expand_tensors(&kv, &turned, heads).unwrap();
        let keys = values(keys);
        assert_eq!(keys, values(expected_keys));
        assert_eq!(values(mixed), values(expected_mixed));
        let second = &keys[1][6..12];
        assert_eq!(second, [36.0, 37.0, 38.0, 39.0, 1002.0, 1003.0]);
    }
}
