//! Weights as GGML block types hold them.
//!
//! Owns which types there are, what a weight costs in them, and rounding f32
//! values through them; the arithmetic is candle's. Which matrices are rounded
//! is said by [`Rounding`](super::Rounding),
//! how a checkpoint is stored by [`Checkpoint`](crate::checkpoint::Checkpoint).
//!
//! A block is 32 or 256 consecutive values of a row-major matrix that share
//! scales. Where rows are whole blocks, as in published models, these are the
//! very blocks that mistral.rs makes in situ: it calls the same functions of
//! candle, without importance weights. It differs from what is done here in
//! other ways:
//!
//! * where rows are not whole blocks, blocks here run over the ends of rows;
//!   mistral.rs takes a type with smaller blocks or leaves the matrix alone;
//! * it also quantises the head, of a tied one a copy, and Mixtral's router;
//! * it passes over experts that are stacked in one tensor (0.8.1), so that of
//!   a checkpoint in that layout only attention and dense MLPs are quantised;
//! * its CPU kernels round activations to 8 bits, which here stay f32.

use std::fmt;
use std::str::FromStr;

use candle_core::quantized::k_quants::{
    BlockQ2K, BlockQ3K, BlockQ4K, BlockQ4_0, BlockQ4_1, BlockQ5K, BlockQ5_0, BlockQ5_1, BlockQ6K,
    BlockQ8_0,
};
use candle_core::quantized::{GgmlDType, GgmlType};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Values that one task rounds: whole blocks of every type.
const TASK: usize = 1 << 13;

/// A GGML type of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Quantization {
    /// 8 bits and a scale for 32 values.
    Q8_0,
    /// 6 bits in blocks of 256, scales of 16 values in 8 bits.
    Q6K,
    /// 5 bits in blocks of 256, scales and minima of 32 values in 6 bits.
    Q5K,
    /// 5 bits and a scale for 32 values.
    Q5_0,
    /// 4 bits in blocks of 256, scales and minima of 32 values in 6 bits.
    Q4K,
    /// 4 bits and a scale for 32 values.
    Q4_0,
    /// 3 bits in blocks of 256, scales of 16 values in 6 bits.
    Q3K,
    /// 2 bits in blocks of 256, scales and minima of 16 values in 4 bits.
    Q2K,
}

impl Quantization {
    /// Every type, those with more bits first.
    pub const ALL: [Self; 8] = [
        Self::Q8_0,
        Self::Q6K,
        Self::Q5K,
        Self::Q5_0,
        Self::Q4K,
        Self::Q4_0,
        Self::Q3K,
        Self::Q2K,
    ];

    /// As mistral.rs spells it: `q8_0`, `q4k`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Q8_0 => "q8_0",
            Self::Q6K => "q6k",
            Self::Q5K => "q5k",
            Self::Q5_0 => "q5_0",
            Self::Q4K => "q4k",
            Self::Q4_0 => "q4_0",
            Self::Q3K => "q3k",
            Self::Q2K => "q2k",
        }
    }

    /// Values that share scales: 32 or 256.
    pub fn block(self) -> usize {
        self.dtype().block_size()
    }

    /// Bits of one weight, its part of the scales included.
    pub fn bits(self) -> f64 {
        8.0 * self.dtype().type_size() as f64 / self.block() as f64
    }

    /// Bytes of so many weights, a last block that is not full counted whole.
    pub fn bytes(self, weights: u64) -> u64 {
        weights.div_ceil(self.block() as u64) * self.dtype().type_size() as u64
    }

    /// Replaces values by what is read back from blocks of this type that hold
    /// them. Blocks are independent of each other, so that the result depends
    /// neither on threads nor on what else is rounded.
    ///
    /// # Errors
    /// Index and value of the first result that is not finite: scales are f16,
    /// or multiples of one.
    ///
    /// # Panics
    /// If the values are not whole [`block`](Self::block)s.
    pub fn round(self, values: &mut [f32]) -> Result<(), (usize, f32)> {
        round_blocks(self.dtype(), values)
    }

    /// Blocks along rows of so many values, as mistral.rs chooses them: this
    /// type's, or a type of 32 values in its place, or none.
    pub fn row_blocks(self, width: usize) -> Option<GgmlDType> {
        let instead = match self {
            Self::Q6K => GgmlDType::Q5_1,
            Self::Q5K => GgmlDType::Q5_0,
            Self::Q4K => GgmlDType::Q4_1,
            Self::Q3K | Self::Q2K => GgmlDType::Q4_0,
            Self::Q8_0 | Self::Q5_0 | Self::Q4_0 => self.dtype(),
        };
        let mut blocks = [self.dtype(), instead].into_iter();
        blocks.find(|it| width.is_multiple_of(it.block_size()))
    }

    fn dtype(self) -> GgmlDType {
        match self {
            Self::Q8_0 => GgmlDType::Q8_0,
            Self::Q6K => GgmlDType::Q6K,
            Self::Q5K => GgmlDType::Q5K,
            Self::Q5_0 => GgmlDType::Q5_0,
            Self::Q4K => GgmlDType::Q4K,
            Self::Q4_0 => GgmlDType::Q4_0,
            Self::Q3K => GgmlDType::Q3K,
            Self::Q2K => GgmlDType::Q2K,
        }
    }
}

impl fmt::Display for Quantization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Quantization {
    type Err = Error;

    /// Reads a [`name`](Self::name), in any case.
    fn from_str(text: &str) -> Result<Self> {
        let known = Self::ALL
            .into_iter()
            .find(|quantization| quantization.name().eq_ignore_ascii_case(text));
        known.ok_or_else(|| Error::Structure {
            what: "quantisation".to_owned(),
            expected: format!("one of {}", Self::ALL.map(Self::name).join(", ")),
            found: format!("`{text}`"),
        })
    }
}

/// [`Quantization::round`] through any type of blocks that weights are stored
/// as; other types leave values as they are.
pub(super) fn round_blocks(blocks: GgmlDType, values: &mut [f32]) -> Result<(), (usize, f32)> {
    match blocks {
        GgmlDType::Q8_0 => round::<BlockQ8_0>(values),
        GgmlDType::Q6K => round::<BlockQ6K>(values),
        GgmlDType::Q5K => round::<BlockQ5K>(values),
        GgmlDType::Q5_1 => round::<BlockQ5_1>(values),
        GgmlDType::Q5_0 => round::<BlockQ5_0>(values),
        GgmlDType::Q4K => round::<BlockQ4K>(values),
        GgmlDType::Q4_1 => round::<BlockQ4_1>(values),
        GgmlDType::Q4_0 => round::<BlockQ4_0>(values),
        GgmlDType::Q3K => round::<BlockQ3K>(values),
        GgmlDType::Q2K => round::<BlockQ2K>(values),
        GgmlDType::F32 | GgmlDType::F16 | GgmlDType::BF16 | GgmlDType::Q8_1 | GgmlDType::Q8K => {}
    }
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(index) => Err((index, values[index])),
    }
}

fn round<T: GgmlType>(values: &mut [f32]) {
    assert_eq!(values.len() % T::BLCK_SIZE, 0, "whole blocks");
    values.par_chunks_mut(TASK).for_each(|values| {
        let mut blocks = vec![T::zeros(); values.len() / T::BLCK_SIZE];
        T::from_float(values, &mut blocks);
        T::to_float(&blocks, values);
    });
}

#[cfg(test)]
mod tests;
