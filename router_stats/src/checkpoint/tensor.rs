//! A stored tensor and runs of its rows, without copies.

use std::ops::Range;
use std::path::Path;

use safetensors::Dtype;

use super::blocks;
use super::element::Element;
use super::order::Order;
use super::shard::Shard;
use super::widen::Float;
use crate::{Error, Result};

/// A tensor of a checkpoint: row-major, little-endian, of any alignment.
#[derive(Debug, Clone, Copy)]
pub struct TensorView<'a> {
    /// Name.
    pub name: &'a str,
    /// Element type.
    pub element: Element,
    /// Extent of each dimension.
    pub shape: &'a [usize],
    /// Where the elements lie in the shard.
    offset: usize,
    bytes: usize,
    order: Option<Order>,
    shard: &'a Shard,
}

/// Consecutive rows of a tensor: a range of its first dimension.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a> {
    tensor: TensorView<'a>,
    /// Where the rows lie in the tensor.
    skipped: usize,
    bytes: usize,
}

impl<'a> TensorView<'a> {
    pub(super) fn new(shard: &'a Shard, index: usize) -> Self {
        let stored = &shard.tensors()[index];
        Self {
            name: &stored.name,
            element: stored.element,
            shape: &stored.shape,
            offset: stored.range.start,
            bytes: stored.range.len(),
            order: stored.order,
            shard,
        }
    }

    /// Shard that holds the tensor.
    pub fn file(&self) -> &'a Path {
        self.shard.path()
    }

    /// Bytes of all elements as they are stored, which are not looked at.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The elements as they are stored.
    ///
    /// # Errors
    /// [`Error::NotHere`] if the shard is a stand-in for one elsewhere.
    pub fn data(&self) -> Result<&'a [u8]> {
        let place = self.place();
        if !self.shard.holds(&place) {
            return Err(Error::NotHere {
                path: self.file().to_path_buf(),
                tensor: self.name.to_owned(),
            });
        }
        Ok(&self.shard.map().bytes()[place])
    }

    /// Where the elements lie in the shard.
    pub(super) fn place(&self) -> Range<usize> {
        self.offset..self.offset + self.bytes
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

    /// Fails unless the elements are numbers that the forward pass reads.
    ///
    /// # Errors
    /// [`Error::Dtype`] unless bf16, f16, f32 or blocks.
    pub(super) fn check_numbers(&self) -> Result<()> {
        match self.element {
            Element::Blocks(_) => Ok(()),
            Element::Plain(_) => self.float().map(|_| ()),
        }
    }

    /// What single elements are read as.
    ///
    /// # Errors
    /// [`Error::Dtype`] unless bf16, f16 or f32.
    pub(super) fn float(&self) -> Result<Float> {
        self.element.plain().and_then(Float::new).ok_or_else(|| {
            self.dtype_error(match self.shape.len() {
                2 => "BF16, F16 or F32, or F8_E4M3 with block scales",
                _ => "BF16, F16 or F32",
            })
        })
    }

    /// The type of single elements.
    ///
    /// # Errors
    /// [`Error::Dtype`] if they are stored in blocks.
    pub fn plain(&self) -> Result<Dtype> {
        self.element
            .plain()
            .ok_or_else(|| self.dtype_error("BF16, F16 or F32, or F8_E4M3 with block scales"))
    }

    pub(super) fn dtype_error(&self, expected: &'static str) -> Error {
        Error::Dtype {
            path: self.file().to_path_buf(),
            tensor: self.name.to_owned(),
            expected,
            found: self.element.to_string(),
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

    /// The row of [`data`](Self::data) that is row `row` of the tensor: another
    /// one if a file has the rows of heads in another order.
    pub fn stored_row(&self, row: usize) -> usize {
        self.order.map_or(row, |order| order.stored(row))
    }

    /// Whether some row of [`data`](Self::data) is another one of the tensor.
    pub fn is_reordered(&self) -> bool {
        self.order.is_some()
    }

    /// Rows `range` of the first dimension, as they lie in the file.
    ///
    /// # Panics
    /// As slicing does, if `range` exceeds the first dimension.
    pub fn rows(&self, range: Range<usize>) -> Rows<'a> {
        let rows = self.shape.first().copied().unwrap_or(0);
        assert!(
            range.start <= range.end && range.end <= rows,
            "rows {range:?} of {rows}"
        );
        let row = self.bytes / rows.max(1);
        Rows {
            tensor: *self,
            skipped: range.start * row,
            bytes: range.len() * row,
        }
    }

    /// Converts all elements to f32 and checks that they are finite; rows are in
    /// the order of the model. A weight
    /// that may have scales is read by [`Weight::read_f32`](super::Weight::read_f32).
    ///
    /// # Errors
    /// [`Error::Dtype`] unless bf16, f16, f32 or blocks; [`Error::NonFinite`],
    /// which names the element as it is stored;
    /// [`Error::Shape`] if `out` has another number of elements.
    pub fn read_f32(&self, out: &mut [f32]) -> Result<()> {
        self.all().read_f32(out)?;
        if let (Some(order), Some(&rows)) = (self.order, self.shape.first()) {
            order.restore(out, rows);
        }
        Ok(())
    }

    /// All elements as one run.
    pub(super) fn all(&self) -> Rows<'a> {
        Rows {
            tensor: *self,
            skipped: 0,
            bytes: self.bytes,
        }
    }

    /// Lets the system take back the pages that hold the tensor, so that they
    /// no longer count as resident memory; reading it again is still possible.
    pub fn release(&self) {
        self.shard
            .map()
            .release(self.offset..self.offset + self.bytes);
    }
}

impl<'a> Rows<'a> {
    /// Bytes of the rows' elements, which are not looked at.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The rows' elements as they are stored.
    ///
    /// # Errors
    /// As [`TensorView::data`].
    pub fn data(&self) -> Result<&'a [u8]> {
        Ok(&self.tensor.data()?[self.skipped..self.skipped + self.bytes])
    }

    /// One of so many equal parts of these rows.
    pub(super) fn part(self, index: usize, parts: usize) -> Self {
        let bytes = self.bytes / parts.max(1);
        Self {
            skipped: self.skipped + index * bytes,
            bytes,
            ..self
        }
    }

    /// Converts the rows to f32 and checks that they are finite.
    ///
    /// # Errors
    /// As [`TensorView::read_f32`].
    pub fn read_f32(&self, out: &mut [f32]) -> Result<()> {
        let element = self.tensor.element;
        if out.len() != element.elements(self.bytes) {
            return Err(self.tensor.shape_error(&[out.len()]));
        }
        let bad = match element {
            Element::Blocks(blocks) => blocks::read(blocks, self.data()?, out)?,
            Element::Plain(_) => self.tensor.float()?.widen(self.data()?, out).err(),
        };
        match bad {
            None => Ok(()),
            Some((index, value)) => {
                let first = element.elements(self.skipped);
                Err(self.tensor.not_finite(first + index, value))
            }
        }
    }

    /// As [`TensorView::release`], for these rows.
    pub fn release(&self) {
        let start = self.tensor.offset + self.skipped;
        self.tensor.shard.map().release(start..start + self.bytes);
    }
}
