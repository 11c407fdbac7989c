//! Next-token distributions: softmax of a row of logits, computed once and
//! shared by all evaluators.

use std::f32::consts::LOG2_E;

/// Logits whose f32 sums are added up before they enter an f64.
const BLOCK: usize = 512;
/// Sums and maxima a loop keeps apart so that it vectorises.
const LANES: usize = 16;

/// What a model predicts at one position.
#[derive(Debug)]
pub struct Distribution<'a> {
    /// exp(z_v − max z), [V].
    weights: &'a [f32],
    /// Σ_v weights.
    sum: f64,
    top: usize,
    nll: f64,
}

/// What reference and variant predict at one position, and what came.
#[derive(Debug, Clone, Copy)]
pub struct Prediction<'a> {
    /// The token that came.
    pub target: usize,
    /// The original model's distribution, p.
    pub reference: &'a Distribution<'a>,
    /// The compared model's distribution, q.
    pub variant: &'a Distribution<'a>,
}

impl<'a> Distribution<'a> {
    /// Softmax of `logits` `[V]`, which it overwrites: exponentials in f32,
    /// sums in f64. `None` if a logit is NaN or +∞, all are −∞, `target` has
    /// probability zero, or it is not below V.
    pub fn new(logits: &'a mut [f32], target: usize) -> Option<Self> {
        let target_logit = f64::from(*logits.get(target)?);
        let (top, max) = largest(logits);
        let sum = exponentiate(logits, max);
        let nll = f64::from(max) - target_logit + sum.ln();
        nll.is_finite().then_some(Self {
            weights: logits,
            sum,
            top,
            nll,
        })
    }

    /// −ln of the target's probability, in nats.
    pub fn nll(&self) -> f64 {
        self.nll
    }

    /// The most probable token; the lowest of several.
    pub fn top(&self) -> usize {
        self.top
    }

    /// Probability of `token`, which must be below V.
    pub fn probability(&self, token: usize) -> f64 {
        f64::from(self.weights[token]) / self.sum
    }

    /// Σ_v min(p_v, q_v), one minus the total variation distance.
    pub fn overlap(&self, other: &Self) -> f64 {
        // One weight is rescaled to the other's sum: normalising both would
        // produce denormals in the tails.
        let ratio = (self.sum / other.sum) as f32;
        let blocks = self.weights.chunks(BLOCK).zip(other.weights.chunks(BLOCK));
        let shared: f64 = blocks
            .map(|(p, q)| {
                let mut lanes = [0f32; LANES];
                let (p, p_rest) = p.as_chunks::<LANES>();
                let (q, q_rest) = q.as_chunks::<LANES>();
                for (p, q) in p.iter().zip(q) {
                    for lane in 0..LANES {
                        lanes[lane] += smaller(p[lane], q[lane] * ratio);
                    }
                }
                for (lane, (&p, &q)) in lanes.iter_mut().zip(p_rest.iter().zip(q_rest)) {
                    *lane += smaller(p, q * ratio);
                }
                f64::from(lanes.iter().sum::<f32>())
            })
            .sum();
        (shared / self.sum).min(1.0)
    }
}

/// Index of the largest logit, the first of equal ones. `None` if one is NaN
/// or +∞, or all are −∞.
pub(crate) fn top(logits: &[f32]) -> Option<usize> {
    let (top, max) = largest(logits);
    let finite = max.is_finite() && !logits.iter().any(|z| z.is_nan());
    finite.then_some(top)
}

/// Without the NaN rules of `f32::min`, so that it is one instruction.
#[inline(always)]
fn smaller(a: f32, b: f32) -> f32 {
    if b < a {
        b
    } else {
        a
    }
}

/// Index and value of the first largest logit. NaNs are passed over.
fn largest(logits: &[f32]) -> (usize, f32) {
    let (mut start, mut max) = (0, f32::NEG_INFINITY);
    for (index, block) in logits.chunks(BLOCK).enumerate() {
        let mut lanes = [f32::NEG_INFINITY; LANES];
        let (rows, rest) = block.as_chunks::<LANES>();
        for row in rows {
            for lane in 0..LANES {
                lanes[lane] = if row[lane] > lanes[lane] {
                    row[lane]
                } else {
                    lanes[lane]
                };
            }
        }
        let block_max = lanes
            .iter()
            .chain(rest)
            .fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
        if block_max > max {
            (start, max) = (index * BLOCK, block_max);
        }
    }
    let within = logits[start..].iter().position(|&z| z == max);
    (start + within.unwrap_or(0), max)
}

/// Replaces every z by exp(z − max) and returns their sum.
fn exponentiate(logits: &mut [f32], max: f32) -> f64 {
    let mut sum = 0f64;
    for block in logits.chunks_mut(BLOCK) {
        let mut lanes = [0f32; LANES];
        let (rows, rest) = block.as_chunks_mut::<LANES>();
        for row in rows {
            for lane in 0..LANES {
                row[lane] = exp(row[lane] - max);
                lanes[lane] += row[lane];
            }
        }
        for (lane, z) in lanes.iter_mut().zip(rest) {
            *z = exp(*z - max);
            *lane += *z;
        }
        sum += f64::from(lanes.iter().sum::<f32>());
    }
    sum
}

/// eˣ for x ≤ 0 with a relative error below 3·10⁻⁷; zero below −87, where f32
/// runs out of normal numbers; NaN stays NaN.
///
/// Writes x = n·ln 2 + r with |r| ≤ ln 2 / 2, takes the Taylor polynomial of
/// degree 6 in r and scales by 2ⁿ (Cody and Waite, 1980). Separate products
/// and sums: a fused one would be a function call on baseline x86-64.
#[inline(always)]
fn exp(x: f32) -> f32 {
    const LOWEST: f32 = -87.0;
    /// Adding 1.5·2²³ leaves the rounded integer in the low mantissa bits.
    const ROUND: f32 = 12_582_912.0;
    /// ln 2 in two parts, the first exact in few bits.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let bounded = if x < LOWEST { LOWEST } else { x };
    let rounded = bounded * LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = bounded - n * LN_2_HIGH - n * LN_2_LOW;
    let mut p = 1.0 / 720.0;
    for coefficient in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p * r + coefficient;
    }
    let scale = f32::from_bits(rounded.to_bits().wrapping_add(127) << 23);
    if x < LOWEST {
        0.0
    } else {
        p * scale
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn softmax(logits: &[f32]) -> Vec<f64> {
        let max = logits
            .iter()
            .fold(f64::NEG_INFINITY, |m, &z| m.max(f64::from(z)));
        let weights: Vec<f64> = logits.iter().map(|&z| (f64::from(z) - max).exp()).collect();
        let sum: f64 = weights.iter().sum();
        weights.into_iter().map(|w| w / sum).collect()
    }

    /// Deterministic logits, roughly like a model's: most low, few high.
    fn logits(n: usize, phase: f32) -> Vec<f32> {
        (0..n)
            .map(|i| 12.0 * (i as f32 * 0.37 + phase).sin().powi(5) - 3.0 * (i as f32 * 1.7).cos())
            .collect()
    }

    #[test]
    fn exp_is_accurate_over_its_range() {
        for i in 0..=400_000 {
            let x = -87.0 * i as f32 / 400_000.0;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error < 3e-7, "exp({x}): relative error {error:e}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(-88.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn a_distribution_matches_f64_softmax_at_every_length() {
        for n in (1..70).chain([511, 512, 513, 1000, 50_257, 151_936]) {
            let z = logits(n, 0.0);
            let exact = softmax(&z);
            let target = n / 3;
            let mut row = z.clone();
            let p = Distribution::new(&mut row, target).unwrap();
            assert!(
                (p.nll() + exact[target].ln()).abs() < 1e-6,
                "nll at V = {n}"
            );
            let top = (0..n).rev().max_by(|&a, &b| z[a].total_cmp(&z[b])).unwrap();
            assert_eq!(p.top(), top, "top at V = {n}");
            for v in [0, n / 2, n - 1] {
                assert!(
                    (p.probability(v) - exact[v]).abs() <= 2e-6 * exact[v],
                    "p({v}) at V = {n}"
                );
            }
        }
    }

    #[test]
    fn overlap_matches_its_definition() {
        for n in [1, 15, 16, 17, 600, 151_936] {
            let (a, b) = (logits(n, 0.0), logits(n, 0.05));
            let exact: f64 = softmax(&a)
                .iter()
                .zip(softmax(&b))
                .map(|(p, q)| p.min(q))
                .sum();
            let (mut a, mut b) = (a, b);
            let (p, q) = (
                Distribution::new(&mut a, 0).unwrap(),
                Distribution::new(&mut b, 0).unwrap(),
            );
            assert!((p.overlap(&q) - exact).abs() < 1e-6);
            assert!((p.overlap(&q) - q.overlap(&p)).abs() < 1e-6);
            assert!((p.overlap(&p) - 1.0).abs() < 1e-6);
        }
    }

    #[test]
    fn unusable_logits_are_refused_and_masked_ones_are_not() {
        for bad in [f32::NAN, f32::INFINITY] {
            for position in [0, 3, 19] {
                let mut row = logits(20, 0.0);
                row[position] = bad;
                assert!(Distribution::new(&mut row, 1).is_none());
            }
        }
        assert!(Distribution::new(&mut [f32::NEG_INFINITY; 4], 0).is_none());
        assert!(Distribution::new(&mut [0.0; 4], 4).is_none());
        let mut row = [0.0, f32::NEG_INFINITY, 0.0];
        assert!(
            Distribution::new(&mut row.clone(), 1).is_none(),
            "the target is impossible"
        );
        let p = Distribution::new(&mut row, 2).unwrap();
        assert!((p.nll() - 2f64.ln()).abs() < 1e-7);
        assert_eq!(p.probability(1), 0.0);
    }

    #[test]
    fn ties_go_to_the_lowest_token() {
        let mut row = vec![0.0; 2000];
        for v in [700, 701, 1500] {
            row[v] = 5.0;
        }
        assert_eq!(Distribution::new(&mut row, 0).unwrap().top(), 700);
    }

    proptest! {
        #[test]
        fn nll_is_invariant_to_a_shift(z in prop::collection::vec(-20f32..20.0, 1..300), shift in -100f32..100.0) {
            let target = z.len() / 2;
            let mut moved: Vec<f32> = z.iter().map(|z| z + shift).collect();
            let mut z = z;
            let a = Distribution::new(&mut z, target).unwrap().nll();
            let b = Distribution::new(&mut moved, target).unwrap().nll();
            prop_assert!(a >= -1e-6);
            prop_assert!((a - b).abs() < 1e-4);
        }
    }
}
