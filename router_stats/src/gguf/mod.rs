//! GGUF, the file format of llama.cpp: metadata, tensors, and nothing else.
//!
//! Owns parsing and writing. What names and keys mean to a model is said by
//! [`family::gguf`](crate::family::gguf); nothing here knows a model.
//!
//! A file is magic, version, counts; metadata; what there is of tensors; then,
//! from a multiple of the alignment on, their data, each padded to it
//! (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>). Nothing in a
//! header is trusted: every way it can lie is a named [`Malformed`].

mod element;
mod encode;
mod malformed;
mod metadata;
mod parse;
#[cfg(test)]
mod tests;
mod tokenizer;
mod value;

use candle_core::quantized::GgmlDType;

pub use element::{bytes, code, element};
pub use malformed::Malformed;
pub use metadata::{Metadata, Unusable};
pub use tokenizer::{tokenizer, tokenizer_json, tokenizer_metadata, Sources, Untranslated};
pub use value::{Array, Value};

/// The first bytes of every file.
pub const MAGIC: [u8; 4] = *b"GGUF";

/// The version that is written; version 2 has the same layout.
const VERSION: u32 = 3;

/// Key of the alignment.
pub(crate) const ALIGNMENT: &str = "general.alignment";

/// Alignment in bytes where the metadata has none.
pub const DEFAULT_ALIGNMENT: usize = 32;

/// What a file says before its data.
#[derive(Debug, Clone, PartialEq)]
pub struct Header {
    /// Keys and values, in the order of the file.
    pub metadata: Metadata,
    /// Tensors, in the order of their data.
    pub tensors: Vec<Info>,
    /// What every tensor's offset is a multiple of, in bytes.
    pub alignment: usize,
    /// Where the data begins, in bytes from the start of the file.
    pub data: usize,
}

/// What a file says of one tensor.
#[derive(Debug, Clone, PartialEq)]
pub struct Info {
    /// Name: `blk.0.attn_q.weight`.
    pub name: String,
    /// How its numbers are stored.
    pub element: GgmlDType,
    /// Row-major shape, as in PyTorch: the reverse of llama.cpp's `ne`.
    pub shape: Vec<usize>,
    /// Where its bytes begin, from the beginning of the data.
    pub offset: u64,
}

impl Info {
    /// A tensor whose place [`place`] finds.
    pub fn new(name: impl Into<String>, element: GgmlDType, shape: Vec<usize>) -> Self {
        Self {
            name: name.into(),
            element,
            shape,
            offset: 0,
        }
    }

    /// Bytes of its data; `None` on overflow, or if its rows are not whole
    /// blocks.
    pub fn bytes(&self) -> Option<usize> {
        bytes(self.element, &self.shape)
    }
}

/// Puts tensors one after the other, each at the next multiple of `alignment`,
/// and returns the bytes of all data, padding included; `None` on overflow, or
/// if rows are not whole blocks.
pub fn place(tensors: &mut [Info], alignment: usize) -> Option<u64> {
    let alignment = alignment as u64;
    let mut end = 0u64;
    for tensor in tensors {
        tensor.offset = end;
        end = end
            .checked_add(tensor.bytes()? as u64)?
            .checked_next_multiple_of(alignment)?;
    }
    Some(end)
}
