//! Causal softmax attention over ragged sequences.
//!
//! out_t = Σ_{s ≤ t} softmax_s(scale · q_t·k_s) v_s, restricted to the last w
//! positions where the block has a sliding window.
//!
//! The CPU has a kernel of its own; other devices compose attention from tensor
//! operations per sequence. Tests hold the two equal.

mod cpu;

use candle_core::{DType, Device, Tensor, D};

use super::rows::with_slices;
use crate::Result;

/// Shape of an attention.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    /// Query heads.
    pub queries: usize,
    /// Key and value heads; divides `queries`.
    pub keys: usize,
    /// Width of a query and of a key, d.
    pub dim: usize,
    /// Width of a value and of what comes out of a head.
    pub value_dim: usize,
    /// What q·k is multiplied by before the softmax.
    pub scale: f64,
    /// Positions each token sees, itself included.
    pub window: Option<usize>,
}

/// Attends within each sequence: q [N, heads·d], k [N, kv_heads·d] and v
/// [N, kv_heads·value_dim] → [N, heads·value_dim], all f32. `starts` delimits
/// the sequences.
pub(super) fn attend(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    starts: &[usize],
    heads: Heads,
) -> Result<Tensor> {
    match with_slices([q, k, v], |[q, k, v]| cpu::attend(q, k, v, starts, heads))? {
        Some(out) => {
            let shape = (q.dim(0)?, heads.queries * heads.value_dim);
            Ok(Tensor::from_vec(out, shape, q.device())?)
        }
        None => attend_tensors(q, k, v, starts, heads),
    }
}

fn attend_tensors(
    q: &Tensor,
    k: &Tensor,
    v: &Tensor,
    starts: &[usize],
    heads: Heads,
) -> Result<Tensor> {
    let Heads {
        queries,
        keys,
        dim,
        value_dim,
        scale,
        window,
    } = heads;
    let groups = queries / keys;
    let mut outputs = Vec::with_capacity(starts.len());
    for pair in starts.windows(2) {
        let (start, length) = (pair[0], pair[1] - pair[0]);
        // [T, heads·d] → [kv_heads, groups·T, d]
        let q = q
            .narrow(0, start, length)?
            .reshape((length, keys, groups, dim))?;
        let q = q
            .permute((1, 2, 0, 3))?
            .reshape((keys, groups * length, dim))?;
        let split = |x: &Tensor, dim: usize| -> Result<Tensor> {
            let x = x.narrow(0, start, length)?.reshape((length, keys, dim))?;
            Ok(x.transpose(0, 1)?.contiguous()?)
        };
        let (k, v) = (split(k, dim)?, split(v, value_dim)?);
        let scores = (q.matmul(&k.t()?)? * scale)?.reshape((keys, groups, length, length))?;
        let scores = scores.broadcast_add(&causal_mask(length, window, scores.device())?)?;
        let weights = candle_nn::ops::softmax(&scores, D::Minus1)?.reshape((
            keys,
            groups * length,
            length,
        ))?;
        let out = weights
            .matmul(&v)?
            .reshape((keys, groups, length, value_dim))?;
        outputs.push(
            out.permute((2, 0, 1, 3))?
                .reshape((length, queries * value_dim))?,
        );
    }
    Ok(Tensor::cat(&outputs, 0)?)
}

/// 0 where a position is seen, −∞ elsewhere: [T, T].
fn causal_mask(length: usize, window: Option<usize>, device: &Device) -> Result<Tensor> {
    let window = window.unwrap_or(length);
    let mask: Vec<f32> = (0..length * length)
        .map(|i| {
            let (query, key) = (i / length, i % length);
            if key <= query && query - key < window {
                0.0
            } else {
                f32::NEG_INFINITY
            }
        })
        .collect();
    Ok(Tensor::from_vec(mask, (length, length), device)?.to_dtype(DType::F32)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::testing::worst;

    fn random(rows: usize, width: usize, seed: f32) -> Tensor {
        let values: Vec<f32> = (0..rows * width)
            .map(|i| ((i as f32 + seed) * 78.233).sin() * 2.0)
            .collect();
        Tensor::from_vec(values, (rows, width), &Device::Cpu).unwrap()
    }

    #[test]
    fn slices_and_tensors_agree() {
        for (dim, value_dim, window) in [
            (32, 32, None),
            (64, 64, Some(7)),
            (16, 16, None),
            (8, 8, Some(40)),
            (6, 6, None),
            (128, 128, Some(1)),
            (192, 128, None),
            (24, 16, None),
            (6, 40, Some(9)),
        ] {
            let heads = Heads {
                queries: 6,
                keys: 2,
                dim,
                value_dim,
                scale: 1.3 / (dim as f64).sqrt(),
                window,
            };
            let starts = [0, 1, 70, 75, 210];
            let (q, k, v) = (
                random(210, 6 * dim, 1.0),
                random(210, 2 * dim, 2.0),
                random(210, 2 * value_dim, 3.0),
            );
            let a = attend(&q, &k, &v, &starts, heads).unwrap();
            let b = attend_tensors(&q, &k, &v, &starts, heads).unwrap();
            assert_eq!(a.dims(), [210, 6 * value_dim]);
            let worst = worst(&a, &b);
            assert!(worst < 2e-5, "{heads:?}: {worst}");
        }
    }

    #[test]
    fn later_tokens_and_other_sequences_are_not_seen() {
        let heads = Heads {
            queries: 2,
            keys: 1,
            dim: 8,
            value_dim: 8,
            scale: 0.35,
            window: None,
        };
        let run = |n: usize, starts: &[usize]| {
            let all = [16, 8, 8].map(|w| random(20, w, w as f32).narrow(0, 0, n).unwrap());
            attend(&all[0], &all[1], &all[2], starts, heads)
                .unwrap()
                .to_vec2::<f32>()
                .unwrap()
        };
        let (whole, prefix) = (run(20, &[0, 9, 20]), run(5, &[0, 5]));
        assert_eq!(whole[..5], prefix[..]);
    }
}
