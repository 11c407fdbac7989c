//! A stored tensor and runs of its rows, without copies.

use std::ops::Range;
use std::path::Path;

use safetensors::Dtype;

use super::shard::Shard;
use super::widen::Float;
use crate::{Error, Result};

/// A tensor of a checkpoint: row-major, little-endian, of any alignment.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    /// Name.
    pub name: &'a str,
    /// Element type.
    pub dtype: Dtype,
    /// Extent of each dimension.
    pub shape: &'a [usize],
    /// Bytes of all elements.
    pub data: &'a [u8],
    /// Offset of `data` in the shard.
    offset: usize,
    shard: &'a Shard,
}

/// Consecutive rows of a tensor: a range of its first dimension.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    /// Bytes of the rows' elements.
    pub data: &'a [u8],
    tensor: TensorView<'a>,
    /// Offset of `data` in the tensor.
    skipped: usize,
}

impl<'a> TensorView<'a> {
    pub(super) fn new(shard: &'a Shard, index: usize) -> Self {
        let (name, info) = &shard.tensors()[index];
        let (offset, end) = info.data_offsets;
        let data = &shard.map().bytes()[offset..end];
        Self {
            name,
            dtype: info.dtype,
            shape: &info.shape,
            data,
            offset,
            shard,
        }
    }

    /// Shard that holds the tensor.
    pub fn file(&self) -> &'a Path {
        self.shard.path()
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The tensor itself, if it has this shape.
    ///
    /// # Errors
    /// [`Error::Shape`]
    pub fn expect_shape(self, shape: &[usize]) -> Result<Self> {
        if self.shape == shape {
            return Ok(self);
        }
        Err(self.shape_error(shape))
    }

    pub(super) fn shape_error(&self, expected: &[usize]) -> Error {
        Error::Shape {
            path: self.file().to_path_buf(),
            tensor: self.name.to_owned(),
            expected: expected.to_vec(),
            found: self.shape.to_vec(),
        }
    }

    /// What the forward pass reads the elements as.
    ///
    /// # Errors
    /// [`Error::Dtype`] unless bf16, f16 or f32.
    pub(super) fn float(&self) -> Result<Float> {
        Float::new(self.dtype).ok_or_else(|| {
            self.dtype_error(match self.shape.len() {
                2 => "BF16, F16 or F32, or F8_E4M3 with block scales",
                _ => "BF16, F16 or F32",
            })
        })
    }

    pub(super) fn dtype_error(&self, expected: &'static str) -> Error {
        Error::Dtype {
            path: self.file().to_path_buf(),
            tensor: self.name.to_owned(),
            expected,
            found: self.dtype.to_string(),
        }
    }

    /// The element at flat `index` is `value`, which is not finite.
    pub(super) fn not_finite(&self, index: usize, value: f32) -> Error {
        Error::NonFinite {
            path: self.file().to_path_buf(),
            tensor: self.name.to_owned(),
            index,
            value,
        }
    }

    /// Rows `range` of the first dimension.
    ///
    /// # Panics
    /// As slicing does, if `range` exceeds the first dimension.
    pub fn rows(&self, range: Range<usize>) -> Rows<'a> {
        let rows = self.shape.first().copied().unwrap_or(0);
        assert!(
            range.start <= range.end && range.end <= rows,
            "rows {range:?} of {rows}"
        );
        let row = self.data.len() / rows.max(1);
        let (start, end) = (range.start * row, range.end * row);
        Rows {
            data: &self.data[start..end],
            tensor: *self,
            skipped: start,
        }
    }

    /// Converts all elements to f32 and checks that they are finite. A weight
    /// that may have scales is read by [`Weight::read_f32`](super::Weight::read_f32).
    ///
    /// # Errors
    /// [`Error::Dtype`] unless bf16, f16 or f32; [`Error::NonFinite`];
    /// [`Error::Shape`] if `out` has another number of elements.
    pub fn read_f32(&self, out: &mut [f32]) -> Result<()> {
        self.all().read_f32(out)
    }

    /// All elements as one run.
    pub(super) fn all(&self) -> Rows<'a> {
        Rows {
            data: self.data,
            tensor: *self,
            skipped: 0,
        }
    }

    /// Lets the system take back the pages that hold the tensor, so that they
    /// no longer count as resident memory; reading it again is still possible.
    pub fn release(&self) {
        self.shard
            .map()
            .release(self.offset..self.offset + self.data.len());
    }
}

impl Rows<'_> {
    /// Elements `range` of these rows; their dtype takes whole bytes.
    pub(super) fn elements(self, range: Range<usize>) -> Self {
        let size = self.tensor.dtype.bitsize() / 8;
        let (start, end) = (range.start * size, range.end * size);
        Self {
            data: &self.data[start..end],
            skipped: self.skipped + start,
            ..self
        }
    }

    /// Converts the rows to f32 and checks that they are finite.
    ///
    /// # Errors
    /// As [`TensorView::read_f32`].
    pub fn read_f32(&self, out: &mut [f32]) -> Result<()> {
        let float = self.tensor.float()?;
        let found = self.data.len() / float.size();
        if out.len() != found {
            return Err(self.tensor.shape_error(&[out.len()]));
        }
        float.widen(self.data, out).map_err(|(index, value)| {
            self.tensor
                .not_finite(self.skipped / float.size() + index, value)
        })
    }

    /// As [`TensorView::release`], for these rows.
    pub fn release(&self) {
        let start = self.tensor.offset + self.skipped;
        self.tensor
            .shard
            .map()
            .release(start..start + self.data.len());
    }
}
