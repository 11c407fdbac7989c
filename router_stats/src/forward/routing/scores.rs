//! From logits to scores, in place and in f32.

use super::super::simd;
use crate::family::Scoring;

/// Scores of one row, before bias and choice. A logit of −∞ scores 0.
pub(super) fn score(scoring: Scoring, logits: &mut [f32]) {
    match scoring {
        Scoring::Sigmoid => sigmoid(logits),
        Scoring::Softmax | Scoring::SparseMixer { .. } => softmax(logits),
    }
}

/// softmax in place, the maximum subtracted first; 0 for −∞.
pub(super) fn softmax(logits: &mut [f32]) {
    simd::dispatch(
        #[inline(always)]
        || {
            let max = simd::max(logits);
            for logit in logits.iter_mut() {
                let weight = simd::exp(*logit - max);
                *logit = if *logit == f32::NEG_INFINITY {
                    0.0
                } else {
                    weight
                };
            }
            let sum: f32 = logits.iter().sum();
            logits.iter_mut().for_each(|p| *p /= sum);
        },
    );
}

/// σ(z) = 1 / (1 + e⁻ᶻ) in place; 0 for −∞.
fn sigmoid(logits: &mut [f32]) {
    simd::dispatch(
        #[inline(always)]
        || {
            for logit in logits.iter_mut() {
                let score = 1.0 / (1.0 + simd::exp(-*logit));
                *logit = if *logit == f32::NEG_INFINITY {
                    0.0
                } else {
                    score
                };
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_accurate_and_saturate() {
        let logits: Vec<f32> = (-160..=160).map(|i| i as f32 / 8.0).collect();
        let total: f64 = logits.iter().map(|&z| f64::from(z).exp()).sum();
        let (mut soft, mut sigmoid) = (logits.clone(), logits.clone());
        score(Scoring::Softmax, &mut soft);
        score(Scoring::Sigmoid, &mut sigmoid);
        for ((&z, p), s) in logits.iter().zip(soft).zip(sigmoid) {
            let z = f64::from(z);
            let close = |found: f32, exact: f64| (f64::from(found) - exact).abs() < 5e-7 * exact;
            assert!(close(p, z.exp() / total), "softmax at {z}");
            assert!(close(s, 1.0 / (1.0 + (-z).exp())), "sigmoid at {z}");
        }
        let mut extreme = [f32::NEG_INFINITY, -200.0, 200.0];
        score(Scoring::Sigmoid, &mut extreme);
        assert_eq!((extreme[0], extreme[2]), (0.0, 1.0));
        assert!(extreme[1] >= 0.0 && extreme[1] < 1e-37);
    }
}
