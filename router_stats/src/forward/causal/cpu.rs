//! The CPU kernel of causal attention.
//!
//! A task takes a tile of queries of one sequence. Scores come from keys that
//! are stored position-minor, so that one vector holds one dimension of many
//! positions; the mix comes from values stored dimension-minor. Both keep a
//! `TILE × 2` block of vector sums in registers, and no T × T matrix exists.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::Heads;
use crate::forward::simd;

/// Queries a parallel task takes.
const TASK: usize = 60;
/// Queries scored together, so that a load of keys or values serves all.
const TILE: usize = 6;
/// Vectors of positions or dimensions taken together.
const WIDE: usize = 2;
/// Rows are padded to a multiple of this: `WIDE` of the widest vectors.
const PADDING: usize = 32;

/// [`super::attend`] on slices.
pub(super) fn attend(q: &[f32], k: &[f32], v: &[f32], starts: &[usize], heads: Heads) -> Vec<f32> {
    let (q_width, out_width) = (heads.queries * heads.dim, heads.queries * heads.value_dim);
    let (k_width, v_width) = (heads.keys * heads.dim, heads.keys * heads.value_dim);
    let sequences: Vec<Range<usize>> = starts.windows(2).map(|pair| pair[0]..pair[1]).collect();
    let memories: Vec<Memory> = sequences
        .par_iter()
        .map(|rows| {
            let keys = &k[rows.start * k_width..rows.end * k_width];
            let values = &v[rows.start * v_width..rows.end * v_width];
            Memory::new(keys, values, heads)
        })
        .collect();
    let mut out = vec![0f32; q.len() / q_width * out_width];
    let mut tasks = Vec::new();
    let mut rest = out.as_mut_slice();
    for (rows, memory) in sequences.iter().zip(&memories) {
        let (sequence, after) = rest.split_at_mut(rows.len() * out_width);
        rest = after;
        let queries = &q[rows.start * q_width..rows.end * q_width];
        for (index, out) in sequence.chunks_mut(TASK * out_width).enumerate() {
            tasks.push(Task {
                heads,
                first: index * TASK,
                queries,
                memory,
                out,
            });
        }
    }
    tasks
        .into_par_iter()
        .for_each(|task| pulp::Arch::new().dispatch(task));
    out
}

/// Keys and values of one sequence, rearranged and padded with zeros.
struct Memory {
    /// [kv_heads, d, positions]
    keys: Vec<f32>,
    /// Padded number of positions.
    positions: usize,
    /// [kv_heads, T, width]
    values: Vec<f32>,
    /// Padded width of a value.
    width: usize,
}

impl Memory {
    fn new(keys: &[f32], values: &[f32], heads: Heads) -> Self {
        let (k_width, v_width) = (heads.keys * heads.dim, heads.keys * heads.value_dim);
        let length = keys.len() / k_width;
        // An odd number of steps between rows spreads them over cache sets.
        let positions = (length.div_ceil(PADDING) | 1) * PADDING;
        let width = heads.value_dim.next_multiple_of(PADDING);
        let mut memory = Self {
            keys: vec![0f32; k_width * positions],
            positions,
            values: vec![0f32; heads.keys * length * width],
            width,
        };
        for (position, key) in keys.chunks_exact(k_width).enumerate() {
            for (row, &value) in memory.keys.chunks_exact_mut(positions).zip(key) {
                row[position] = value;
            }
        }
        for (position, value) in values.chunks_exact(v_width).enumerate() {
            for (head, value) in value.chunks_exact(heads.value_dim).enumerate() {
                let start = (head * length + position) * width;
                memory.values[start..start + heads.value_dim].copy_from_slice(value);
            }
        }
        memory
    }
}

/// Consecutive queries of one sequence, all heads.
struct Task<'a> {
    heads: Heads,
    /// Position of the first query.
    first: usize,
    /// Queries of the whole sequence [T, heads·d].
    queries: &'a [f32],
    memory: &'a Memory,
    /// Output of the task's queries.
    out: &'a mut [f32],
}

impl WithSimd for Task<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            heads:
                Heads {
                    queries,
                    keys,
                    dim,
                    value_dim,
                    scale,
                    window,
                },
            first,
            memory,
            ..
        } = self;
        let (q_width, out_width) = (queries * dim, queries * value_dim);
        let length = self.queries.len() / q_width;
        let scale = scale as f32;
        let last = first + self.out.len() / out_width - 1;
        let mut weights = vec![0f32; TILE * memory.positions];
        let mut mixed = vec![0f32; TILE * memory.width];
        for head in 0..queries {
            let key_head = head / (queries / keys);
            let head_keys =
                &memory.keys[key_head * dim * memory.positions..][..dim * memory.positions];
            let head_values =
                &memory.values[key_head * length * memory.width..][..length * memory.width];
            for tile in (first..=last).step_by(TILE) {
                // A short last tile repeats its last query.
                let positions: [usize; TILE] = std::array::from_fn(|i| (tile + i).min(last));
                let seen = |position: usize| {
                    window.map_or(0, |w| (position + 1).saturating_sub(w))..position + 1
                };
                let all = seen(tile).start..positions[TILE - 1] + 1;
                let query = positions.map(|p| &self.queries[p * q_width + head * dim..][..dim]);
                score(simd, query, head_keys, all.clone(), &mut weights);
                let mut inverse = [0f32; TILE];
                for (i, &position) in positions.iter().enumerate() {
                    let row = &mut weights[i * memory.positions..][..memory.positions];
                    inverse[i] = 1.0 / softmax_numerators(row, all.clone(), seen(position), scale);
                }
                let rows: [&[f32]; TILE] =
                    std::array::from_fn(|i| &weights[i * memory.positions..][all.clone()]);
                let values = &head_values[all.start * memory.width..all.end * memory.width];
                mix(simd, rows, values, &mut mixed);
                for ((mixed, &position), &inverse) in mixed
                    .chunks_exact(memory.width)
                    .zip(&positions)
                    .zip(&inverse)
                {
                    let start = (position - first) * out_width + head * value_dim;
                    let out = &mut self.out[start..][..value_dim];
                    for (out, &sum) in out.iter_mut().zip(mixed) {
                        *out = sum * inverse;
                    }
                }
            }
        }
    }
}

/// weights[i][s] = q_i·k_s for the positions of `range`, widened to whole
/// steps. `keys` is [d, positions], `weights` is [TILE, positions].
#[inline(always)]
fn score<S: Simd>(
    simd: S,
    query: [&[f32]; TILE],
    keys: &[f32],
    range: Range<usize>,
    weights: &mut [f32],
) {
    let positions = weights.len() / TILE;
    let step = WIDE * S::F32_LANES;
    for step in range.start / step..range.end.div_ceil(step) {
        let vector = step * WIDE;
        let mut sums = [[simd.splat_f32s(0.0); WIDE]; TILE];
        for (dimension, keys) in keys.chunks_exact(positions).enumerate() {
            let keys = &S::as_simd_f32s(keys).0[vector..vector + WIDE];
            for (sums, query) in sums.iter_mut().zip(&query) {
                let query = simd.splat_f32s(query[dimension]);
                for (sum, &key) in sums.iter_mut().zip(keys) {
                    *sum = simd.mul_add_e_f32s(query, key, *sum);
                }
            }
        }
        for (weights, sums) in weights.chunks_exact_mut(positions).zip(&sums) {
            S::as_mut_simd_f32s(weights).0[vector..vector + WIDE].copy_from_slice(sums);
        }
    }
}

/// mixed[i] = Σ_s weights[i][s]·v_s. `values` is [positions, width] for as many
/// positions as there are weights, `mixed` is [TILE, width].
#[inline(always)]
fn mix<S: Simd>(simd: S, weights: [&[f32]; TILE], values: &[f32], mixed: &mut [f32]) {
    let width = mixed.len() / TILE;
    for vector in (0..width / S::F32_LANES).step_by(WIDE) {
        let mut sums = [[simd.splat_f32s(0.0); WIDE]; TILE];
        for (position, values) in values.chunks_exact(width).enumerate() {
            let values = &S::as_simd_f32s(values).0[vector..vector + WIDE];
            for (sums, weights) in sums.iter_mut().zip(&weights) {
                let weight = simd.splat_f32s(weights[position]);
                for (sum, &value) in sums.iter_mut().zip(values) {
                    *sum = simd.mul_add_e_f32s(weight, value, *sum);
                }
            }
        }
        for (mixed, sums) in mixed.chunks_exact_mut(width).zip(&sums) {
            S::as_mut_simd_f32s(mixed).0[vector..vector + WIDE].copy_from_slice(sums);
        }
    }
}

/// Turns scores into exp(scale·(score − max)) over `seen`, zeroes the rest of
/// `all` and returns the sum.
#[inline(always)]
fn softmax_numerators(row: &mut [f32], all: Range<usize>, seen: Range<usize>, scale: f32) -> f32 {
    row[all.start..seen.start].fill(0.0);
    row[seen.end..all.end].fill(0.0);
    let row = &mut row[seen];
    let max = simd::max(row);
    for weight in row.iter_mut() {
        *weight = simd::exp((*weight - max) * scale);
    }
    simd::sum(row)
}
