//! A weight as numbers: floats as they are stored, fp8 codes times the scales
//! of their blocks.
//!
//! Owns the pairing of a weight with its scales and their arithmetic. Which
//! block size a checkpoint has, [`super::quantization`] reads; single codes are
//! converted by [`super::widen`].

use rayon::prelude::*;
use safetensors::Dtype;

use super::quantization::{self, Block};
use super::widen::{self, PARALLEL, TASK};
use super::{Checkpoint, Element, TensorView};
use crate::family::SCALE_SUFFIX;
use crate::{Error, Result};

/// A stored weight with its block scales, if it has any.
///
/// An fp8 matrix [out, in] in blocks of b₀ rows and b₁ columns has scales s
/// [⌈out/b₀⌉, ⌈in/b₁⌉] of dtype f32, bf16 or f16, and its element is
/// w(i, j) = code(i, j) · s(⌊i/b₀⌋, ⌊j/b₁⌋).
#[derive(Debug, Clone, Copy)]
pub struct Weight<'a> {
    tensor: TensorView<'a>,
    scales: Option<Scales<'a>>,
}

#[derive(Debug, Clone, Copy)]
struct Scales<'a> {
    tensor: TensorView<'a>,
    block: Block,
}

impl<'a> Weight<'a> {
    /// Finds the weight called `name`, and the scales of an fp8 matrix, and
    /// checks their shapes.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Shape`], [`Error::Dtype`] if the
    /// elements cannot be read or have scales that they must not have, and
    /// [`Error::Quantization`] if the block size is unknown.
    pub(super) fn open(checkpoint: &'a Checkpoint, name: &str, shape: &[usize]) -> Result<Self> {
        let tensor = checkpoint.tensor_of_shape(name, shape)?;
        let scales = format!("{name}{SCALE_SUFFIX}");
        let &[rows, columns] = shape else {
            tensor.check_numbers()?;
            return Ok(Self::unscaled(tensor));
        };
        if tensor.element != Element::Plain(Dtype::F8_E4M3) {
            tensor.check_numbers()?;
            if checkpoint.contains(&scales) {
                return Err(tensor.dtype_error("F8_E4M3, as there are block scales"));
            }
            return Ok(Self::unscaled(tensor));
        }
        let block = checkpoint
            .block
            .ok_or_else(|| quantization::no_block(checkpoint.config()))?;
        let shape = [rows.div_ceil(block[0]), columns.div_ceil(block[1])];
        let scales = checkpoint.tensor_of_shape(&scales, &shape)?;
        if scales.float().is_err() {
            return Err(scales.dtype_error("F32, BF16 or F16"));
        }
        Ok(Self {
            tensor,
            scales: Some(Scales {
                tensor: scales,
                block,
            }),
        })
    }

    /// A tensor that is read as it is stored.
    pub(super) fn unscaled(tensor: TensorView<'a>) -> Self {
        Self {
            tensor,
            scales: None,
        }
    }

    /// The elements as they are stored, without scales.
    pub fn tensor(&self) -> TensorView<'a> {
        self.tensor
    }

    /// All elements, row-major, as f32. An fp8 product is rounded once.
    ///
    /// # Errors
    /// [`Error::NonFinite`], also for an fp8 product beyond f32;
    /// [`Error::Scale`] if a scale is not positive and finite; [`Error::Shape`]
    /// if `out` has another number of elements.
    pub fn read_f32(&self, out: &mut [f32]) -> Result<()> {
        let Some(scales) = &self.scales else {
            return self.tensor.read_f32(out);
        };
        if out.len() != self.tensor.elements() {
            return Err(self.tensor.shape_error(&[out.len()]));
        }
        let (columns, data) = (self.tensor.shape[1], self.tensor.data()?);
        if out.is_empty() {
            return Ok(());
        }
        let values = scales.read()?;
        // One row, by the scales of its line of blocks.
        let row = |index: usize, data: &[u8], out: &mut [f32]| {
            let across = scales.tensor.shape[1];
            let first = index / scales.block[0] * across;
            let line = &values[first..first + across];
            widen::e4m3(data, line, scales.block[1], out)
        };
        let finite = if out.len() < PARALLEL {
            let rows = data.chunks(columns).zip(out.chunks_mut(columns));
            rows.enumerate()
                .map(|(index, (data, out))| row(index, data, out))
                .fold(true, |left, right| left & right)
        } else {
            let rows = data.par_chunks(columns);
            rows.zip(out.par_chunks_mut(columns))
                .enumerate()
                .with_min_len((TASK / columns).max(1))
                .map(|(index, (data, out))| row(index, data, out))
                .reduce(|| true, |left, right| left & right)
        };
        if finite {
            return Ok(());
        }
        match out.iter().position(|value| !value.is_finite()) {
            None => Ok(()),
            Some(index) => Err(self.tensor.not_finite(index, out[index])),
        }
    }

    /// Lets the system take back the pages that hold the weight and its
    /// scales, as [`TensorView::release`] does.
    pub fn release(&self) {
        self.tensor.release();
        if let Some(scales) = &self.scales {
            scales.tensor.release();
        }
    }
}

impl Scales<'_> {
    /// All scales, row-major.
    fn read(&self) -> Result<Vec<f32>> {
        let mut values = vec![0.0; self.tensor.elements()];
        let usable = |value: f32| value.is_finite() && value > 0.0;
        let bad = match self.tensor.read_f32(&mut values) {
            Ok(()) => values
                .iter()
                .position(|&value| !usable(value))
                .map(|index| (index, values[index])),
            Err(Error::NonFinite { index, value, .. }) => Some((index, value)),
            Err(other) => return Err(other),
        };
        match bad {
            None => Ok(values),
            Some((index, value)) => Err(Error::Scale {
                path: self.tensor.file().to_path_buf(),
                tensor: self.tensor.name.to_owned(),
                index,
                value,
            }),
        }
    }
}

#[cfg(test)]
mod tests;
