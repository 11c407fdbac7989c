//! Scalar functions that vectorise, compiled for the widest vectors the
//! processor has.

use std::f32::consts::LOG2_E;

/// Runs `kernel` compiled for the best instruction set found at run time.
/// Everything it calls in its loops must be `#[inline(always)]`.
pub(super) fn dispatch<R>(kernel: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(kernel)
}

/// eˣ with a relative error below 2·10⁻⁷ for −87 ≤ x ≤ 88; clamped outside.
///
/// Writes x = n·ln 2 + r with |r| ≤ ln 2 / 2, evaluates a polynomial in r and
/// scales by 2ⁿ (Cody and Waite, 1980).
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    /// Adding 1.5·2²³ leaves the rounded integer in the low mantissa bits.
    const ROUND: f32 = 12_582_912.0;
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = x.clamp(-87.0, 88.0);
    let rounded = x.mul_add(LOG2_E, ROUND);
    let n = rounded - ROUND;
    let r = n.mul_add(-LN_2_LOW, n.mul_add(-LN_2_HIGH, x));
    let mut p = 1.987_569_1e-4_f32;
    for coefficient in [
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_6e-1,
        0.5,
    ] {
        p = p.mul_add(r, coefficient);
    }
    let p = p.mul_add(r * r, r) + 1.0;
    let exponent = rounded
        .to_bits()
        .wrapping_sub(ROUND.to_bits())
        .wrapping_add(127)
        << 23;
    p * f32::from_bits(exponent)
}

/// x·σ(x), the activation of every supported expert.
#[inline(always)]
pub(super) fn silu(x: f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// Lanes a reduction keeps apart so that it vectorises.
const LANES: usize = 16;

/// Folds `step` over two rows of one length, lane by lane, then the lanes with
/// `join` as a tree, which takes log₂ steps where a chain takes one each.
#[inline(always)]
fn reduce(
    a: &[f32],
    b: &[f32],
    start: f32,
    step: impl Fn(f32, f32, f32) -> f32,
    join: impl Fn(f32, f32) -> f32,
) -> f32 {
    let mut lanes = [start; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let (a_rest, b_rest) = (a_chunks.remainder(), b_chunks.remainder());
    for (a, b) in a_chunks.zip(b_chunks) {
        for lane in 0..LANES {
            lanes[lane] = step(lanes[lane], a[lane], b[lane]);
        }
    }
    for ((lane, &a), &b) in lanes.iter_mut().zip(a_rest).zip(b_rest) {
        *lane = step(*lane, a, b);
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] = join(lanes[lane], lanes[lane + width]);
        }
        width /= 2;
    }
    lanes[0]
}

#[inline(always)]
fn plus(a: f32, b: f32) -> f32 {
    a + b
}

/// The larger of two; unlike `f32::max`, one instruction.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a {
        b
    } else {
        a
    }
}

/// Sum of a row.
#[inline(always)]
pub(super) fn sum(row: &[f32]) -> f32 {
    reduce(row, row, 0.0, |sum, x, _| sum + x, plus)
}

/// a·b over two rows.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    reduce(a, b, 0.0, |sum, a, b| a.mul_add(b, sum), plus)
}

/// Largest value of a row, −∞ if it is empty. NaNs are passed over.
#[inline(always)]
pub(super) fn max(row: &[f32]) -> f32 {
    let step = |max, x, _| larger(max, x);
    reduce(row, row, f32::NEG_INFINITY, step, larger)
}

/// Largest absolute value of a row.
#[inline(always)]
pub(super) fn max_abs(row: &[f32]) -> f32 {
    reduce(row, row, 0.0, |max, x, _| larger(max, x.abs()), larger)
}

/// out = row · weight / √(mean(row²) + ε).
#[inline(always)]
pub(super) fn rms_norm(row: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) {
    let scale = 1.0 / (dot(row, row) / row.len() as f32 + eps).sqrt();
    for ((out, &value), &weight) in out.iter_mut().zip(row).zip(weight) {
        *out = value * scale * weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate_over_its_range() {
        let steps = 200_000;
        for i in 0..=steps {
            let x = -87.0 + 175.0 * i as f32 / steps as f32;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error < 2e-7, "exp({x}): relative error {error:e}");
        }
    }

    #[test]
    fn exp_clamps_and_silu_saturates() {
        assert!(exp(-1e30) > 0.0 && exp(-1e30) < 2e-38);
        assert!(exp(1e30).is_finite());
        assert!(silu(-50.0).abs() < 1e-19);
        assert_eq!(silu(100.0), 100.0);
        assert!((silu(1.0) - 0.731_058_6).abs() < 1e-6);
    }

    #[test]
    fn reductions_match_their_definition_at_every_length() {
        for n in 0..70 {
            let a: Vec<f32> = (0..n).map(|i| (i as f32 * 0.7).sin()).collect();
            let b: Vec<f32> = (0..n).map(|i| (i as f32 * 1.3).cos()).collect();
            let exact: f64 = a
                .iter()
                .zip(&b)
                .map(|(&a, &b)| f64::from(a) * f64::from(b))
                .sum();
            assert!((f64::from(dot(&a, &b)) - exact).abs() < 1e-5);
            assert!((sum(&a) - a.iter().sum::<f32>()).abs() < 1e-5);
            assert_eq!(max_abs(&a), a.iter().fold(0f32, |m, x| m.max(x.abs())));
            assert_eq!(max(&a), a.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
