//! The rotary frequencies of a sequence.

use std::f64::consts::TAU;

use crate::family::{LongRope, RotarySpec, Scaling, Yarn};

/// How fast each pair of dimensions turns, in f64.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Frequencies {
    /// Radians per position [dim / 2].
    pub radians: Vec<f64>,
    /// What cosines and sines are multiplied by.
    pub magnitude: f64,
}

impl Frequencies {
    /// Those of a sequence of `length` tokens: θ^(−2i/dim) (RoFormer, arXiv
    /// 2104.09864), changed as [`Scaling`] says. All sequences that are
    /// [`extended`] have the same ones, and so have all that are not.
    pub(super) fn new(rotary: &RotarySpec, length: usize) -> Self {
        let radians = (0..rotary.dim / 2)
            .map(|i| rotary.theta.powf(-2.0 * i as f64 / rotary.dim as f64))
            .collect();
        match &rotary.scaling {
            Scaling::None => Self {
                radians,
                magnitude: 1.0,
            },
            Scaling::Yarn(yarn) => Self {
                radians: blend(radians, rotary, yarn),
                magnitude: yarn.magnitude,
            },
            Scaling::Long(long) => {
                let (divisors, magnitude) = if extended(rotary, length) {
                    (&long.long, long.long_magnitude)
                } else {
                    (&long.short, long.short_magnitude)
                };
                Self {
                    radians: radians.iter().zip(divisors).map(|(r, d)| r / d).collect(),
                    magnitude,
                }
            }
        }
    }
}

/// Whether a sequence of `length` tokens has other frequencies than short ones.
pub(super) fn extended(rotary: &RotarySpec, length: usize) -> bool {
    matches!(&rotary.scaling, Scaling::Long(LongRope { original, .. }) if length > *original)
}

/// YaRN (arXiv 2309.00071, section 3.2): pairs before the range of
/// [`correction_range`] stay, those after it are divided by the factor, and
/// inside it the one gives way to the other linearly.
fn blend(mut radians: Vec<f64>, rotary: &RotarySpec, yarn: &Yarn) -> Vec<f64> {
    let (begin, end) = correction_range(rotary, yarn);
    for (i, radians) in radians.iter_mut().enumerate() {
        let divided = ((i as f64 - begin) / (end - begin)).clamp(0.0, 1.0);
        *radians *= 1.0 - divided + divided / yarn.factor;
    }
    radians
}

/// The pairs that make `beta_fast` and `beta_slow` turns within the original
/// context, rounded outwards and cut to the dimensions there are; never equal.
fn correction_range(rotary: &RotarySpec, yarn: &Yarn) -> (f64, f64) {
    let dim = rotary.dim as f64;
    let pair =
        |turns: f64| dim * (yarn.original as f64 / (turns * TAU)).ln() / (2.0 * rotary.theta.ln());
    let begin = pair(yarn.beta_fast).floor().max(0.0);
    let end = pair(yarn.beta_slow).ceil().min(dim - 1.0);
    // A range of no width is a step; the width is the reference's.
    (begin, if begin == end { end + 1e-3 } else { end })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scaled(dim: usize, theta: f64, scaling: Scaling) -> RotarySpec {
        RotarySpec {
            scaling,
            ..RotarySpec::plain(dim, theta)
        }
    }

    /// `expected` is of f32 arithmetic.
    fn assert_close(radians: &[f64], expected: &[f64]) {
        assert_eq!(radians.len(), expected.len());
        for (found, expected) in radians.iter().zip(expected) {
            assert!((found / expected - 1.0).abs() < 1e-6, "{radians:?}");
        }
    }

    #[test]
    fn unscaled_frequencies_fall_geometrically() {
        let frequencies = Frequencies::new(&RotarySpec::plain(6, 1000.0), 7);
        assert_close(&frequencies.radians, &[1.0, 0.1, 0.01]);
        assert_eq!(frequencies.magnitude, 1.0);
    }

    #[test]
    fn yarn_is_that_of_transformers() {
        // `_compute_yarn_parameters` of transformers 5.23 with head_dim,
        // rope_theta, factor, original_max_position_embeddings, beta_fast,
        // beta_slow as listed.
        for (dim, theta, factor, original, beta_fast, beta_slow, expected) in [
            // A range in the middle, as of DeepSeek-V3.
            (
                16,
                1e4,
                40.0,
                4096,
                32.0,
                1.0,
                &[
                    1.0,
                    3.16227764e-1,
                    1.00000001e-1,
                    2.39147246e-2,
                    5.12499968e-3,
                    8.49862176e-4,
                    2.49999994e-5,
                    7.90569447e-6,
                ][..],
            ),
            (
                12,
                5e4,
                8.0,
                512,
                16.0,
                2.0,
                &[
                    1.0,
                    1.16701379e-1,
                    1.13100708e-2,
                    5.59017004e-4,
                    9.21007668e-5,
                    1.51740587e-5,
                ],
            ),
            // Begin and end are both cut to 0.
            (
                8,
                1e4,
                4.0,
                6,
                32.0,
                1.0,
                &[1.0, 2.50000004e-2, 2.49999994e-3, 2.50000012e-4],
            ),
            // The begin lies after the end, which is cut.
            (
                8,
                2.0,
                4.0,
                4096,
                32.0,
                1.0,
                &[0.25, 2.10224107e-1, 1.76776692e-1, 1.48650885e-1],
            ),
            (
                8,
                20.0,
                4.0,
                1024,
                32.0,
                1.0,
                &[1.0, 4.72870797e-1, 2.23606795e-1, 8.98765549e-2],
            ),
        ] {
            let yarn = Yarn {
                factor,
                original,
                beta_fast,
                beta_slow,
                magnitude: 1.25,
            };
            let rotary = scaled(dim, theta, Scaling::Yarn(yarn));
            for length in [1, original + 1] {
                let frequencies = Frequencies::new(&rotary, length);
                assert_close(&frequencies.radians, expected);
                assert_eq!(frequencies.magnitude, 1.25);
            }
        }
    }

    #[test]
    fn longrope_is_that_of_transformers() {
        // `_compute_longrope_parameters` of transformers 5.23 with head_dim 8,
        // rope_theta 10000 and these factors, at seq_len 16 and 17.
        let long = LongRope {
            original: 16,
            short: vec![1.0, 1.25, 1.5, 2.0],
            long: vec![1.5, 4.0, 16.0, 40.0],
            short_magnitude: 1.25,
            long_magnitude: 1.5,
        };
        let rotary = scaled(8, 1e4, Scaling::Long(long));
        let short = Frequencies::new(&rotary, 16);
        assert_close(&short.radians, &[1.0, 0.08, 6.66666683e-3, 5.00000024e-4]);
        assert_eq!(short.magnitude, 1.25);
        let long = Frequencies::new(&rotary, 17);
        let expected = [6.66666687e-1, 2.50000004e-2, 6.24999986e-4, 2.49999994e-5];
        assert_close(&long.radians, &expected);
        assert_eq!(long.magnitude, 1.5);
    }
}
