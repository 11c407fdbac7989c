//! What becomes of weights when they are loaded.
//!
//! Owns which matrices are rounded, and where their blocks begin; what a block
//! does to its values is [`Quantization`]'s.

use half::bf16;

use super::quantization::{round_blocks, Quantization};
use crate::Result;

/// How weights are rounded when they are loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rounding {
    /// Every [projection](crate::family::Names::is_projection), in blocks that
    /// run over the ends of rows: a type as such.
    Blocks(Quantization),
    /// Every projection and the head, in blocks along their rows: what
    /// mistral.rs has in memory when it loads UQFF. Rows that the type's blocks
    /// do not divide take the [smaller ones](Quantization::row_blocks), and if
    /// those do not either, stay as they are.
    Rows {
        /// The type.
        quantization: Quantization,
        /// Channels that the residual stream gains, with zeros for weights. They
        /// make rows from it wider, which may take other blocks.
        channels: usize,
    },
    /// Everything, to bf16: what mistral.rs has in memory on a GPU.
    Bf16,
}

/// What a weight is to [`Rounding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A matrix of attention, an MLP or an expert.
    Projection,
    /// The head.
    Head,
    /// Anything else.
    Other,
}

impl Rounding {
    /// Rounds a weight whose rows are `width` long. `hidden` is the width of the
    /// residual stream.
    ///
    /// # Errors
    /// Index and value of the first result that is not finite.
    pub(super) fn round(
        self,
        values: &mut [f32],
        width: usize,
        hidden: usize,
        kind: Kind,
    ) -> Result<(), (usize, f32)> {
        match (self, kind) {
            (Self::Blocks(quantization), Kind::Projection) => quantization.round(values),
            (
                Self::Rows {
                    quantization,
                    channels,
                },
                Kind::Projection | Kind::Head,
            ) => {
                let widened = if width == hidden {
                    width + channels
                } else {
                    width
                };
                match quantization.row_blocks(widened) {
                    // Channels are whole blocks of zeros at the end.
                    Some(blocks) if width.is_multiple_of(blocks.block_size()) => {
                        round_blocks(blocks, values)
                    }
                    _ => Ok(()),
                }
            }
            (Self::Bf16, _) => {
                for value in values {
                    *value = bf16::from_f32(*value).to_f32();
                }
                Ok(())
            }
            (Self::Blocks(_) | Self::Rows { .. }, _) => Ok(()),
        }
    }

    /// The type of its blocks.
    pub(super) fn quantization(self) -> Option<Quantization> {
        match self {
            Self::Blocks(quantization) | Self::Rows { quantization, .. } => Some(quantization),
            Self::Bf16 => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounded(rounding: Rounding, width: usize, kind: Kind) -> Vec<f32> {
        let mut values: Vec<f32> = (0..2 * width).map(|i| (i as f32 * 0.7).sin()).collect();
        rounding.round(&mut values, width, 256, kind).unwrap();
        values
    }

    #[test]
    fn rows_take_the_blocks_that_divide_them() {
        let rows = |channels| Rounding::Rows {
            quantization: Quantization::Q4K,
            channels,
        };
        let as_they_are = rounded(rows(0), 256, Kind::Other);
        let wide = rounded(rows(0), 256, Kind::Projection);
        assert_eq!(
            wide,
            rounded(Rounding::Blocks(Quantization::Q4K), 256, Kind::Projection)
        );
        assert_ne!(wide, as_they_are);
        assert_eq!(wide, rounded(rows(0), 256, Kind::Head));
        // 288 is no multiple of 256, but of 32: another type.
        assert_ne!(wide, rounded(rows(32), 256, Kind::Projection));
        let narrow = rounded(rows(0), 40, Kind::Projection);
        assert_eq!(narrow, rounded(rows(0), 40, Kind::Other));
    }

    #[test]
    fn bf16_is_for_everything() {
        for kind in [Kind::Projection, Kind::Head, Kind::Other] {
            let values = rounded(Rounding::Bf16, 40, kind);
            assert!(values.iter().all(|x| bf16::from_f32(*x).to_f32() == *x));
        }
    }
}
