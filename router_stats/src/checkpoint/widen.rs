//! bf16, f16 and f32 bytes → finite `f32` values.
//!
//! One branch-free pass converts and collects whether any exponent is all ones
//! (NaN or infinity), so that the compiler vectorises it; only a slice that
//! fails is searched for the element. Bytes need no alignment.

use rayon::prelude::*;
use safetensors::Dtype;

/// Elements per parallel task.
const TASK: usize = 1 << 16;

/// Elements from which a slice is converted in parallel.
const PARALLEL: usize = 1 << 18;

/// A dtype that weights are computed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Float {
    Bf16,
    F16,
    F32,
}

impl Float {
    /// The dtype, unless it is none that the forward pass reads.
    pub(super) fn new(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::BF16 => Some(Self::Bf16),
            Dtype::F16 => Some(Self::F16),
            Dtype::F32 => Some(Self::F32),
            _ => None,
        }
    }

    /// Bytes of an element.
    pub(super) fn size(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
        }
    }

    /// Converts little-endian `data` into `out`, which has one element for
    /// each; on failure, the index and value of the first that is not finite.
    pub(super) fn widen(self, data: &[u8], out: &mut [f32]) -> Result<(), (usize, f32)> {
        debug_assert_eq!(data.len(), out.len() * self.size());
        let convert = match self {
            Self::Bf16 => bf16,
            Self::F16 => f16,
            Self::F32 => f32,
        };
        let finite = if out.len() < PARALLEL {
            convert(data, out)
        } else {
            out.par_chunks_mut(TASK)
                .zip(data.par_chunks(TASK * self.size()))
                .map(|(out, data)| convert(data, out))
                .reduce(|| true, |left, right| left && right)
        };
        match out.iter().position(|value| !finite && !value.is_finite()) {
            None => Ok(()),
            Some(index) => Err((index, out[index])),
        }
    }
}

const EXPONENT: u32 = 0x7f80_0000;

fn bf16(data: &[u8], out: &mut [f32]) -> bool {
    let mut infinite = false;
    for (out, bytes) in out.iter_mut().zip(data.as_chunks::<2>().0) {
        let bits = u32::from(u16::from_le_bytes(*bytes)) << 16;
        infinite |= bits & EXPONENT == EXPONENT;
        *out = f32::from_bits(bits);
    }
    !infinite
}

fn f16(data: &[u8], out: &mut [f32]) -> bool {
    /// 2⁻¹⁴, the smallest normal f16, whose exponent subnormals share.
    const SUBNORMAL: u32 = 113 << 23;
    let mut infinite = false;
    for (out, bytes) in out.iter_mut().zip(data.as_chunks::<2>().0) {
        let half = u32::from(u16::from_le_bytes(*bytes));
        let magnitude = (half & 0x7fff) << 13;
        // Exponents are biased by 15 in f16 and by 127 in f32.
        let normal = magnitude + ((127 - 15) << 23);
        // A subnormal is its mantissa over 2⁻¹⁴ without the implicit one.
        let subnormal = f32::from_bits(SUBNORMAL | magnitude) - f32::from_bits(SUBNORMAL);
        let exponent = half & 0x7c00;
        infinite |= exponent == 0x7c00;
        let finite = if exponent == 0 {
            subnormal.to_bits()
        } else {
            normal
        };
        // Infinity and NaN keep their mantissa under an exponent of all ones.
        let bits = if exponent == 0x7c00 {
            magnitude | EXPONENT
        } else {
            finite
        };
        *out = f32::from_bits(bits | (half & 0x8000) << 16);
    }
    !infinite
}

fn f32(data: &[u8], out: &mut [f32]) -> bool {
    let mut infinite = false;
    for (out, bytes) in out.iter_mut().zip(data.as_chunks::<4>().0) {
        let bits = u32::from_le_bytes(*bytes);
        infinite |= bits & EXPONENT == EXPONENT;
        *out = f32::from_bits(bits);
    }
    !infinite
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every 16-bit pattern, at an odd address.
    fn all_patterns() -> Vec<u8> {
        std::iter::once(0)
            .chain((0..=u16::MAX).flat_map(u16::to_le_bytes))
            .collect()
    }

    #[test]
    fn every_finite_half_converts_exactly() {
        let data = all_patterns();
        for (float, reference) in [
            (
                Float::Bf16,
                (|bits| half::bf16::from_bits(bits).to_f32()) as fn(u16) -> f32,
            ),
            (Float::F16, |bits| half::f16::from_bits(bits).to_f32()),
        ] {
            let mut out = vec![0.0; 1 << 16];
            let (index, value) = float.widen(&data[1..], &mut out).unwrap_err();
            assert!(!value.is_finite());
            assert_eq!(
                index,
                (0..=u16::MAX)
                    .position(|b| !reference(b).is_finite())
                    .unwrap()
            );
            for bits in 0..=u16::MAX {
                let (found, expected) = (out[usize::from(bits)], reference(bits));
                assert!(
                    found.to_bits() == expected.to_bits() || found.is_nan() && expected.is_nan()
                );
            }
        }
    }

    #[test]
    fn f32_is_copied() {
        let values = [1.5f32, -0.0, f32::MIN_POSITIVE / 4.0, f32::MAX];
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        let mut out = [0.0; 4];
        Float::F32.widen(&data, &mut out).unwrap();
        assert_eq!(out.map(f32::to_bits), values.map(f32::to_bits));
    }

    #[test]
    fn the_first_bad_element_is_found_in_parallel_too() {
        for float in [Float::Bf16, Float::F16, Float::F32] {
            for length in [PARALLEL - 1, PARALLEL + 7] {
                let mut data = vec![0; length * float.size()];
                let mut out = vec![1.0; length];
                float.widen(&data, &mut out).unwrap();
                assert!(out.iter().all(|&v| v == 0.0));
                let last = length - 1;
                for index in [last, last - 1] {
                    // Negative infinity or NaN: sign and exponent bits set.
                    let end = (index + 1) * float.size();
                    data[end - 2..end].fill(0xff);
                    let (found, value) = float.widen(&data, &mut out).unwrap_err();
                    assert_eq!(found, index);
                    assert!(value.is_nan());
                }
            }
        }
    }
}
