//! Causal softmax attention over ragged sequences.
//!
//! out_t = Σ_{s ≤ t} softmax_s(q_t·k_s / √d) v_s, restricted to the last w
//! positions where the block has a sliding window.
//!
//! On the CPU a task takes a tile of queries of one sequence, scores them
//! against transposed keys a vector of positions at a time and never forms a
//! T × T matrix; other devices compose it from tensor operations per sequence.

use std::ops::Range;

use candle_core::{DType, Device, Tensor, D};
use rayon::prelude::*;

use super::rows::with_slices;
use super::simd;
use crate::Result;

/// Shape of an attention.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    /// Query heads.
    pub queries: usize,
    /// Key and value heads; divides `queries`.
    pub keys: usize,
    /// Width of a head, d.
    pub dim: usize,
    /// Positions each token sees, itself included.
    pub window: Option<usize>,
}

/// Queries a parallel task takes.
const TASK: usize = 64;
/// Queries scored together, so that a load of keys or values serves all.
const TILE: usize = 4;
/// Positions or dimensions in a vector step.
const STEP: usize = 32;

/// Attends within each sequence: q [N, heads·d], k and v [N, kv_heads·d] →
/// [N, heads·d], all f32. `starts` delimits the sequences.
pub(super) fn attend(q: &Tensor, k: &Tensor, v: &Tensor, starts: &[usize], heads: Heads) -> Result<Tensor> {
    match with_slices([q, k, v], |[q, k, v]| attend_slices(q, k, v, starts, heads))? {
        Some(out) => Ok(Tensor::from_vec(out, q.shape(), q.device())?),
        None => attend_tensors(q, k, v, starts, heads),
    }
}

/// Keys of one sequence, transposed to [kv_heads · d, stride] so that
/// positions are contiguous, zero-padded to whole steps.
struct TransposedKeys {
    values: Vec<f32>,
    stride: usize,
}

impl TransposedKeys {
    fn new(keys: &[f32], width: usize) -> Self {
        let length = keys.len() / width;
        // An odd number of steps between rows spreads them over cache sets.
        let stride = (length.div_ceil(STEP) | 1) * STEP;
        let mut values = vec![0f32; width * stride];
        for (position, key) in keys.chunks_exact(width).enumerate() {
            for (dimension, &value) in key.iter().enumerate() {
                values[dimension * stride + position] = value;
            }
        }
        Self { values, stride }
    }

    fn head(&self, head: usize, dim: usize) -> &[f32] {
        &self.values[head * dim * self.stride..][..dim * self.stride]
    }
}

fn attend_slices(q: &[f32], k: &[f32], v: &[f32], starts: &[usize], heads: Heads) -> Vec<f32> {
    let (q_width, kv_width) = (heads.queries * heads.dim, heads.keys * heads.dim);
    let sequences: Vec<Range<usize>> = starts.windows(2).map(|pair| pair[0]..pair[1]).collect();
    let keys: Vec<TransposedKeys> = sequences
        .par_iter()
        .map(|rows| TransposedKeys::new(&k[rows.start * kv_width..rows.end * kv_width], kv_width))
        .collect();
    let mut out = vec![0f32; q.len()];
    let mut tasks = Vec::new();
    let mut rest = out.as_mut_slice();
    for (rows, keys) in sequences.iter().zip(&keys) {
        let (sequence, after) = rest.split_at_mut(rows.len() * q_width);
        rest = after;
        let queries = &q[rows.start * q_width..rows.end * q_width];
        let values = &v[rows.start * kv_width..rows.end * kv_width];
        for (index, out) in sequence.chunks_mut(TASK * q_width).enumerate() {
            tasks.push((index * TASK, queries, keys, values, out));
        }
    }
    tasks.into_par_iter().for_each(|(first, queries, keys, values, out)| {
        let task = Task { heads, first, queries, keys, values };
        simd::dispatch(
            #[inline(always)]
            || match heads.dim {
                dim if dim % STEP == 0 => task.run::<STEP>(out),
                dim if dim % 16 == 0 => task.run::<16>(out),
                dim if dim % 8 == 0 => task.run::<8>(out),
                _ => task.run::<2>(out),
            },
        );
    });
    out
}

/// Consecutive queries of one sequence, all heads.
struct Task<'a> {
    heads: Heads,
    /// Position of the first query.
    first: usize,
    /// Queries of the whole sequence [T, heads·d].
    queries: &'a [f32],
    keys: &'a TransposedKeys,
    /// Values of the whole sequence [T, kv_heads·d].
    values: &'a [f32],
}

impl Task<'_> {
    /// Attends with values read `W` dimensions at a time; d is a multiple of W.
    #[inline(always)]
    fn run<const W: usize>(&self, out: &mut [f32]) {
        let Heads { queries, keys, dim, window } = self.heads;
        let (q_width, kv_width) = (queries * dim, keys * dim);
        let scale = 1.0 / (dim as f32).sqrt();
        let last = self.first + out.len() / q_width - 1;
        let mut weights = vec![0f32; TILE * self.keys.stride];
        for head in 0..queries {
            let key_head = head / (queries / keys);
            let transposed = self.keys.head(key_head, dim);
            for tile in (self.first..=last).step_by(TILE) {
                // A short last tile repeats its last query.
                let positions: [usize; TILE] = std::array::from_fn(|i| (tile + i).min(last));
                let from = window.map_or(0, |w| (tile + 1).saturating_sub(w));
                let steps = from / STEP * STEP..positions[TILE - 1] + 1;
                let query = positions.map(|p| &self.queries[p * q_width + head * dim..][..dim]);
                self.score(query, transposed, steps.clone(), &mut weights);
                let mut inverse = [0f32; TILE];
                for (i, &position) in positions.iter().enumerate() {
                    let seen = window.map_or(0, |w| (position + 1).saturating_sub(w))..position + 1;
                    let row = &mut weights[i * self.keys.stride..][..self.keys.stride];
                    inverse[i] = 1.0 / softmax_numerators(row, steps.start, seen, steps.end, scale);
                }
                for column in (0..dim).step_by(W) {
                    let sums = self.mix::<W>(&weights, key_head * dim + column, kv_width, from..steps.end);
                    for ((sum, &position), &inverse) in sums.iter().zip(&positions).zip(&inverse) {
                        let start = (position - self.first) * q_width + head * dim + column;
                        for (out, &sum) in out[start..][..W].iter_mut().zip(sum) {
                            *out = sum * inverse;
                        }
                    }
                }
            }
        }
    }

    /// weights[i][s] = q_i·k_s for the positions of `steps`, rounded up to whole steps.
    #[inline(always)]
    fn score(&self, query: [&[f32]; TILE], keys: &[f32], steps: Range<usize>, weights: &mut [f32]) {
        let stride = self.keys.stride;
        for step in steps.step_by(STEP) {
            let mut sums = [[0f32; STEP]; TILE];
            for (dimension, keys) in keys.chunks_exact(stride).enumerate() {
                let keys = &keys[step..step + STEP];
                for (sums, query) in sums.iter_mut().zip(&query) {
                    let q = query[dimension];
                    for (sum, &key) in sums.iter_mut().zip(keys) {
                        *sum = q.mul_add(key, *sum);
                    }
                }
            }
            for (i, sums) in sums.iter().enumerate() {
                weights[i * stride + step..][..STEP].copy_from_slice(sums);
            }
        }
    }

    /// Σ_s weights[i][s] · v_s over `W` dimensions of one key head.
    #[inline(always)]
    fn mix<const W: usize>(
        &self,
        weights: &[f32],
        column: usize,
        kv_width: usize,
        positions: Range<usize>,
    ) -> [[f32; W]; TILE] {
        let stride = self.keys.stride;
        let mut sums = [[0f32; W]; TILE];
        for position in positions {
            let value = &self.values[position * kv_width + column..][..W];
            for (i, sums) in sums.iter_mut().enumerate() {
                let weight = weights[i * stride + position];
                for (sum, &value) in sums.iter_mut().zip(value) {
                    *sum = weight.mul_add(value, *sum);
                }
            }
        }
        sums
    }
}

/// Turns scores into exp(scale·(score − max)) over `seen`, zeroes the rest of
/// `start..end` and returns the sum.
#[inline(always)]
fn softmax_numerators(row: &mut [f32], start: usize, seen: Range<usize>, end: usize, scale: f32) -> f32 {
    row[start..seen.start].fill(0.0);
    row[seen.end..end].fill(0.0);
    let row = &mut row[seen];
    let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    for weight in row.iter_mut() {
        *weight = simd::exp((*weight - max) * scale);
    }
    simd::reduce(row, row, #[inline(always)] |sum, weight, _| sum + weight)
}

fn attend_tensors(q: &Tensor, k: &Tensor, v: &Tensor, starts: &[usize], heads: Heads) -> Result<Tensor> {
    let Heads { queries, keys, dim, window } = heads;
    let groups = queries / keys;
    let scale = 1.0 / (dim as f64).sqrt();
    let mut outputs = Vec::with_capacity(starts.len());
    for pair in starts.windows(2) {
        let (start, length) = (pair[0], pair[1] - pair[0]);
        // [T, heads·d] → [kv_heads, groups·T, d]
        let q = q.narrow(0, start, length)?.reshape((length, keys, groups, dim))?;
        let q = q.permute((1, 2, 0, 3))?.reshape((keys, groups * length, dim))?;
        let split = |x: &Tensor| -> Result<Tensor> {
            let x = x.narrow(0, start, length)?.reshape((length, keys, dim))?;
            Ok(x.transpose(0, 1)?.contiguous()?)
        };
        let (k, v) = (split(k)?, split(v)?);
        let scores = (q.matmul(&k.t()?)? * scale)?.reshape((keys, groups, length, length))?;
        let scores = scores.broadcast_add(&causal_mask(length, window, scores.device())?)?;
        let weights = candle_nn::ops::softmax(&scores, D::Minus1)?.reshape((keys, groups * length, length))?;
        let out = weights.matmul(&v)?.reshape((keys, groups, length, dim))?;
        outputs.push(out.permute((2, 0, 1, 3))?.reshape((length, queries * dim))?);
    }
    Ok(Tensor::cat(&outputs, 0)?)
}

/// 0 where a position is seen, −∞ elsewhere: [T, T].
fn causal_mask(length: usize, window: Option<usize>, device: &Device) -> Result<Tensor> {
    let window = window.unwrap_or(length);
    let mask: Vec<f32> = (0..length * length)
        .map(|i| {
            let (query, key) = (i / length, i % length);
            if key <= query && query - key < window { 0.0 } else { f32::NEG_INFINITY }
        })
        .collect();
    Ok(Tensor::from_vec(mask, (length, length), device)?.to_dtype(DType::F32)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(rows: usize, width: usize, seed: f32) -> Tensor {
        let values: Vec<f32> = (0..rows * width).map(|i| ((i as f32 + seed) * 78.233).sin() * 2.0).collect();
        Tensor::from_vec(values, (rows, width), &Device::Cpu).unwrap()
    }

    #[test]
    fn slices_and_tensors_agree() {
        for (dim, window) in [(32, None), (64, Some(7)), (16, None), (8, Some(40)), (6, None), (128, Some(1))] {
            let heads = Heads { queries: 6, keys: 2, dim, window };
            let starts = [0, 1, 70, 75, 210];
            let (q, k, v) = (random(210, 6 * dim, 1.0), random(210, 2 * dim, 2.0), random(210, 2 * dim, 3.0));
            let a = attend(&q, &k, &v, &starts, heads).unwrap();
            let b = attend_tensors(&q, &k, &v, &starts, heads).unwrap();
            let worst = (a - b).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(worst < 2e-5, "d {dim}, window {window:?}: {worst}");
        }
    }

    #[test]
    fn later_tokens_and_other_sequences_are_not_seen() {
        let heads = Heads { queries: 2, keys: 1, dim: 8, window: None };
        let run = |n: usize, starts: &[usize]| {
            let all = [16, 8, 8].map(|w| random(20, w, w as f32).narrow(0, 0, n).unwrap());
            attend(&all[0], &all[1], &all[2], starts, heads).unwrap().to_vec2::<f32>().unwrap()
        };
        let (whole, prefix) = (run(20, &[0, 9, 20]), run(5, &[0, 5]));
        assert_eq!(whole[..5], prefix[..]);
    }
}
