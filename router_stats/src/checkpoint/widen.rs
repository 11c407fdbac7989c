//! bf16, f16, f32 and scaled fp8 bytes → finite `f32` values.
//!
//! One branch-free pass converts and collects whether any exponent is all ones
//! (NaN or infinity), so that the compiler vectorises it; only a slice that
//! fails is searched for the element. Bytes need no alignment.

use rayon::prelude::*;
use safetensors::Dtype;

/// Elements per parallel task.
pub(super) const TASK: usize = 1 << 16;

/// Elements from which a slice is converted in parallel.
pub(super) const PARALLEL: usize = 1 << 18;

/// A dtype whose elements are numbers without anything beside them.
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

/// Converts one row of fp8 codes, whose consecutive runs of `block` have the
/// scales `scales`, and multiplies: out_j = code_j · s_⌊j/block⌋. Returns
/// whether all products are finite.
///
/// Codes are E4M3 (OCP 8-bit floating point, 2023): sign, four bits of exponent
/// biased by 7, three of mantissa; all ones but the sign is NaN, nothing is
/// infinite.
pub(super) fn e4m3(data: &[u8], scales: &[f32], block: usize, out: &mut [f32]) -> bool {
    pulp::Arch::new().dispatch(
        #[inline(always)]
        || {
            let mut infinite = false;
            for ((out, data), &scale) in out.chunks_mut(block).zip(data.chunks(block)).zip(scales) {
                for (out, &code) in out.iter_mut().zip(data) {
                    let value = e4m3_value(code) * scale;
                    infinite |= value.to_bits() & EXPONENT == EXPONENT;
                    *out = value;
                }
            }
            !infinite
        },
    )
}

/// The value of one E4M3 code, without branches.
#[inline(always)]
fn e4m3_value(code: u8) -> f32 {
    /// 2⁻⁶, the smallest normal number, whose exponent subnormals share.
    const SUBNORMAL: u32 = 121 << 23;
    let code = u32::from(code);
    let magnitude = (code & 0x7f) << 20;
    // Exponents are biased by 7 in E4M3 and by 127 in f32.
    let normal = magnitude + ((127 - 7) << 23);
    // A subnormal is its mantissa over 2⁻⁶ without the implicit one.
    let subnormal = f32::from_bits(SUBNORMAL | magnitude) - f32::from_bits(SUBNORMAL);
    let finite = if code & 0x78 == 0 {
        subnormal.to_bits()
    } else {
        normal
    };
    let bits = if code & 0x7f == 0x7f {
        f32::NAN.to_bits()
    } else {
        finite
    };
    f32::from_bits(bits | (code & 0x80) << 24)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fp8_code_converts_exactly() {
        for code in 0..=u8::MAX {
            let (exponent, mantissa) = (i32::from(code >> 3 & 15), f64::from(code & 7));
            let magnitude = match exponent {
                0 => mantissa / 8.0 * 2f64.powi(-6),
                _ => (1.0 + mantissa / 8.0) * 2f64.powi(exponent - 7),
            };
            let found = e4m3_value(code);
            if code & 0x7f == 0x7f {
                assert!(found.is_nan());
            } else {
                assert_eq!(f64::from(found.abs()), magnitude);
                assert_eq!(found.is_sign_negative(), code >= 0x80);
            }
        }
        assert_eq!(e4m3_value(0x7e), 448.0);
    }

    #[test]
    fn runs_of_codes_have_their_scales() {
        // 1, 2, −2, 448, 2⁻⁹
        let codes = [0x38, 0x40, 0xc0, 0x7e, 0x01];
        let mut out = [0.0; 5];
        assert!(e4m3(&codes, &[0.5, 3.0, 2.0], 2, &mut out));
        assert_eq!(out, [0.5, 1.0, -6.0, 1344.0, 2f32.powi(-8)]);
        assert!(!e4m3(&[0xff], &[1.0], 1, &mut out));
        assert!(!e4m3(&[0x7e], &[f32::MAX], 1, &mut out));
    }

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
