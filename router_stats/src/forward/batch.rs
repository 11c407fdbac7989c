//! A batch of ragged sequences, flattened.

use std::ops::Range;

use candle_core::{Device, Tensor};

use crate::calibration::Sequences;
use crate::family::AttentionSpec;
use crate::Result;

/// Sequences that pass through a block together, one row per token.
///
/// Sequences are ragged: none is padded, so there is no padding to mask out of
/// attention, routing or statistics.
#[derive(Debug)]
pub struct Batch {
    /// First row of each sequence, and one past the last: length S + 1.
    pub starts: Vec<usize>,
    /// Domain of each row: length N.
    pub domains: Vec<u16>,
    /// Rotary cosines [N, head_dim / 2].
    pub(super) cos: Tensor,
    /// Rotary sines [N, head_dim / 2].
    pub(super) sin: Tensor,
}

impl Batch {
    /// The sequences of `range`, with the rotary angles of `spec`.
    ///
    /// # Errors
    /// Only if the device has no room for the angles.
    pub fn new(
        sequences: &Sequences,
        range: Range<usize>,
        spec: &AttentionSpec,
        device: &Device,
    ) -> Result<Self> {
        let first = sequences.starts[range.start];
        let starts: Vec<usize> = sequences.starts[range.start..=range.end]
            .iter()
            .map(|start| start - first)
            .collect();
        let mut domains = Vec::with_capacity(starts[starts.len() - 1]);
        for (index, rows) in range.zip(starts.windows(2)) {
            domains.resize(rows[1], sequences.domains[index]);
        }
        let (cos, sin) = rotary_angles(&starts, spec, device)?;
        Ok(Self {
            starts,
            domains,
            cos,
            sin,
        })
    }

    /// Number of rows, N.
    pub fn rows(&self) -> usize {
        self.domains.len()
    }

    /// The rows of each sequence.
    pub fn sequences(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.starts.windows(2).map(|pair| pair[0]..pair[1])
    }
}

/// Angles position · θ^(−2i/d), positions counted from the start of each
/// sequence (RoFormer, arXiv 2104.09864), computed in f64.
fn rotary_angles(
    starts: &[usize],
    spec: &AttentionSpec,
    device: &Device,
) -> Result<(Tensor, Tensor)> {
    let half = spec.rotary.dim / 2;
    let frequencies: Vec<f64> = (0..half)
        .map(|i| {
            spec.rotary
                .theta
                .powf(-2.0 * i as f64 / spec.rotary.dim as f64)
        })
        .collect();
    let longest = starts
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .max()
        .unwrap_or(0);
    let (mut cos, mut sin) = (Vec::new(), Vec::new());
    for position in 0..longest {
        for frequency in &frequencies {
            let (s, c) = (position as f64 * frequency).sin_cos();
            cos.push(c as f32);
            sin.push(s as f32);
        }
    }
    let rows = starts[starts.len() - 1];
    let gather = |table: &[f32]| -> Result<Tensor> {
        let mut angles = Vec::with_capacity(rows * half);
        for pair in starts.windows(2) {
            angles.extend_from_slice(&table[..(pair[1] - pair[0]) * half]);
        }
        Ok(Tensor::from_vec(angles, (rows, half), device)?)
    };
    Ok((gather(&cos)?, gather(&sin)?))
}
