//! Kullback–Leibler divergence KL(p‖q) = Σ_v p_v·ln(p_v / q_v) of a variant's
//! distribution q from the reference's p, in nats.
//!
//! It is what the variant loses per token on text that the reference itself
//! would write, and unlike a change of perplexity it is zero only for equal
//! distributions.
//!
//! Source: Kullback and Leibler, "On Information and Sufficiency", Annals of
//! Mathematical Statistics 22, 1951.

use super::{Evaluator, Metric, Statistic, Unit};
use crate::distribution::Prediction;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Divergence;

impl Evaluator for Divergence {
    fn name(&self) -> &'static str {
        "kl"
    }

    fn about(&self) -> &'static str {
        "KL(p‖q) = Σ p·ln(p/q) of the reference to the variant, in nats (Kullback and Leibler 1951)"
    }

    fn against_reference(&self) -> bool {
        true
    }

    fn outcome(&self, prediction: &Prediction<'_>) -> f64 {
        prediction.reference.divergence(prediction.variant)
    }

    fn metrics(&self) -> &'static [Metric] {
        const METRICS: &[Metric] = &[Metric {
            name: "kl",
            title: "KL divergence from the reference, nats per token",
            unit: Unit::Nats,
            higher_is_better: false,
            statistic: Statistic::Mean,
        }];
        METRICS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distribution::Distribution;

    #[test]
    fn the_outcome_is_of_the_reference_to_the_variant() {
        // p = (1/2, 1/4, 1/4), q = (1/4, 1/4, 1/2)
        let (mut a, mut b) = ([2f32.ln(), 0.0, 0.0], [0.0, 0.0, 2f32.ln()]);
        let p = Distribution::new(&mut a, 0).unwrap();
        let q = Distribution::new(&mut b, 0).unwrap();
        let outcome = |reference, variant| {
            Divergence.outcome(&Prediction {
                target: 1,
                reference,
                variant,
            })
        };
        // ½·ln 2 + ¼·ln ½
        assert!((outcome(&p, &q) - 0.25 * 2f64.ln()).abs() < 1e-7);
        assert_eq!(outcome(&q, &q), 0.0);

        // p = (1/2, 1/2), q = (3/4, 1/4): the directions differ.
        let (mut a, mut b) = ([0.0, 0.0], [3f32.ln(), 0.0]);
        let p = Distribution::new(&mut a, 0).unwrap();
        let q = Distribution::new(&mut b, 0).unwrap();
        assert!((outcome(&p, &q) - 0.5 * (4f64 / 3.0).ln()).abs() < 1e-7);
        assert!((outcome(&q, &p) - (0.75 * 1.5f64.ln() - 0.25 * 2f64.ln())).abs() < 1e-7);
    }
}
