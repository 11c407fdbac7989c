//! Next-token distributions: softmax of a row of logits, computed once and
//! shared by all evaluators.

use std::f32::consts::LOG2_E;

/// Logits whose f32 sums are added up before they enter an f64.
const BLOCK: usize = 512;
/// Sums and maxima a loop keeps apart so that it vectorises.
const LANES: usize = 16;
/// e^−87, the smallest weight that is not zero.
const SMALLEST: f32 = 1.645_811e-38;

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

    /// KL(self‖other) = Σ_v p_v·ln(p_v / q_v), in nats; never negative.
    ///
    /// Summed as Σ_v q_v − p_v − p_v·ln(q_v / p_v) (the I-divergence of
    /// Csiszár, Annals of Probability 3, 1975): no term is negative, so that
    /// none cancels another, and what p and q miss of a sum of one enters
    /// squared. A q_v that has underflowed counts as e^−87 of the largest:
    /// the result is finite and at most the true one.
    pub fn divergence(&self, other: &Self) -> f64 {
        let terms = self.weights.iter().zip(other.weights).map(|(&p, &q)| {
            if p == 0.0 {
                return f64::from(q) / other.sum;
            }
            let p = f64::from(p) / self.sum;
            let q = f64::from(q.max(SMALLEST)) / other.sum;
            q - p - p * (q / p).ln()
        });
        terms.sum::<f64>().max(0.0)
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
mod tests;
