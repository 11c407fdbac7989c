//! How the numbers of a tensor are stored.

use std::fmt;

use candle_core::quantized::GgmlDType;
use safetensors::Dtype;

/// Element type of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// Every element by itself.
    Plain(Dtype),
    /// Blocks of elements with scales of their own, as GGML has them: one of
    /// the quantised types.
    Blocks(GgmlDType),
}

impl Element {
    /// Bytes of so many consecutive elements; `None` if they end inside a byte
    /// or a block, or are more than can be addressed.
    pub fn bytes(self, elements: usize) -> Option<usize> {
        match self {
            Self::Plain(dtype) => {
                let bits = elements.checked_mul(dtype.bitsize())?;
                bits.is_multiple_of(8).then_some(bits / 8)
            }
            Self::Blocks(blocks) => {
                let whole = elements.is_multiple_of(blocks.block_size());
                (elements / blocks.block_size())
                    .checked_mul(blocks.type_size())
                    .filter(|_| whole)
            }
        }
    }

    /// Elements of so many bytes.
    pub(super) fn elements(self, bytes: usize) -> usize {
        match self {
            Self::Plain(dtype) => (bytes as u128 * 8 / dtype.bitsize() as u128) as usize,
            Self::Blocks(blocks) => bytes / blocks.type_size() * blocks.block_size(),
        }
    }

    /// The type of single elements.
    pub fn plain(self) -> Option<Dtype> {
        match self {
            Self::Plain(dtype) => Some(dtype),
            Self::Blocks(_) => None,
        }
    }
}

impl From<Dtype> for Element {
    fn from(dtype: Dtype) -> Self {
        Self::Plain(dtype)
    }
}

impl From<GgmlDType> for Element {
    fn from(dtype: GgmlDType) -> Self {
        match dtype {
            GgmlDType::F32 => Self::Plain(Dtype::F32),
            GgmlDType::F16 => Self::Plain(Dtype::F16),
            GgmlDType::BF16 => Self::Plain(Dtype::BF16),
            blocks => Self::Blocks(blocks),
        }
    }
}

/// As safetensors and llama.cpp spell them: `BF16`, `Q4_K`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(dtype) => dtype.fmt(f),
            Self::Blocks(blocks) => f.write_str(match blocks {
                GgmlDType::F32 => "F32",
                GgmlDType::F16 => "F16",
                GgmlDType::BF16 => "BF16",
                GgmlDType::Q4_0 => "Q4_0",
                GgmlDType::Q4_1 => "Q4_1",
                GgmlDType::Q5_0 => "Q5_0",
                GgmlDType::Q5_1 => "Q5_1",
                GgmlDType::Q8_0 => "Q8_0",
                GgmlDType::Q8_1 => "Q8_1",
                GgmlDType::Q2K => "Q2_K",
                GgmlDType::Q3K => "Q3_K",
                GgmlDType::Q4K => "Q4_K",
                GgmlDType::Q5K => "Q5_K",
                GgmlDType::Q6K => "Q6_K",
                GgmlDType::Q8K => "Q8_K",
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_bytes_and_blocks_have_a_size() {
        assert_eq!(Element::from(Dtype::BF16).bytes(3), Some(6));
        assert_eq!(Element::from(Dtype::F4).bytes(3), None);
        assert_eq!(Element::from(Dtype::F64).bytes(usize::MAX), None);
        let q4k = Element::from(GgmlDType::Q4K);
        assert_eq!(q4k.bytes(512), Some(288));
        assert_eq!(q4k.bytes(500), None);
        assert_eq!(q4k.elements(288), 512);
        assert_eq!(Element::from(Dtype::F16).elements(6), 3);
    }

    #[test]
    fn floats_of_ggml_are_plain() {
        let bf16 = Element::from(GgmlDType::BF16);
        assert_eq!(bf16, Element::Plain(Dtype::BF16));
        assert_eq!(bf16.to_string(), "BF16");
        assert_eq!(Element::from(GgmlDType::Q6K).to_string(), "Q6_K");
        assert_eq!(Element::from(GgmlDType::Q6K).plain(), None);
    }
}
