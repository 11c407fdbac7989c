//! How often, and how far, a variant predicts what the reference predicts.
//!
//! Top-1 agreement counts equal most probable tokens, ties going to the lower
//! token. Overlap is Σ_v min(p_v, q_v), the chance that speculative sampling
//! accepts the variant's token (Leviathan, Kalman and Matias, "Fast Inference
//! from Transformers via Speculative Decoding", arXiv 2211.17192); EvoESAP
//! searches pruning allocations by it.

use super::{Evaluator, Metric, Statistic, Unit};
use crate::distribution::Prediction;

/// Whether both models' most probable tokens are equal.
#[derive(Debug)]
pub(super) struct Top1;

/// Probability that both distributions share.
#[derive(Debug)]
pub(super) struct Overlap;

impl Evaluator for Top1 {
    fn name(&self) -> &'static str {
        "top1"
    }

    fn about(&self) -> &'static str {
        "1 if the most probable token is the reference's, else 0"
    }

    fn against_reference(&self) -> bool {
        true
    }

    fn outcome(&self, prediction: &Prediction<'_>) -> f64 {
        f64::from(u8::from(
            prediction.reference.top() == prediction.variant.top(),
        ))
    }

    fn metrics(&self) -> &'static [Metric] {
        const METRICS: &[Metric] = &[Metric {
            name: "top1_agreement",
            title: "top-1 agreement with the reference",
            unit: Unit::Percent,
            higher_is_better: true,
            statistic: Statistic::Proportion,
        }];
        METRICS
    }
}

impl Evaluator for Overlap {
    fn name(&self) -> &'static str {
        "overlap"
    }

    fn about(&self) -> &'static str {
        "Σ min(p, q) over the vocabulary (Leviathan et al. 2022; EvoESAP)"
    }

    fn against_reference(&self) -> bool {
        true
    }

    fn outcome(&self, prediction: &Prediction<'_>) -> f64 {
        prediction.reference.overlap(prediction.variant)
    }

    fn metrics(&self) -> &'static [Metric] {
        const METRICS: &[Metric] = &[Metric {
            name: "overlap",
            title: "overlap with the reference",
            unit: Unit::Percent,
            higher_is_better: true,
            statistic: Statistic::Proportion,
        }];
        METRICS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distribution::Distribution;

    #[test]
    fn outcomes_of_a_known_pair() {
        // p = (1/2, 1/4, 1/4), q = (1/4, 1/2, 1/4)
        let (mut a, mut b) = ([2f32.ln(), 0.0, 0.0], [0.0, 2f32.ln(), 0.0]);
        let p = Distribution::new(&mut a, 0).unwrap();
        let q = Distribution::new(&mut b, 0).unwrap();
        let prediction = Prediction {
            target: 0,
            reference: &p,
            variant: &q,
        };
        assert_eq!(Top1.outcome(&prediction), 0.0);
        assert!((Overlap.outcome(&prediction) - 0.75).abs() < 1e-6);
    }

    #[test]
    fn equal_tops_agree_however_different_the_rest() {
        let (mut a, mut b) = ([9.0, 0.0, 1.0], [1.0, 0.9, 0.0]);
        let p = Distribution::new(&mut a, 0).unwrap();
        let q = Distribution::new(&mut b, 0).unwrap();
        let prediction = Prediction {
            target: 0,
            reference: &p,
            variant: &q,
        };
        assert_eq!(Top1.outcome(&prediction), 1.0);
        assert!(Overlap.outcome(&prediction) < 0.5);
    }
}
