//! Negative log-likelihood −ln q(target) and perplexity, its exponential.
//!
//! Source: Jelinek, Mercer, Bahl and Baker, "Perplexity — a measure of the
//! difficulty of speech recognition tasks", JASA 62, 1977.

use super::{Evaluator, Metric, Statistic, Unit};
use crate::distribution::Prediction;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Perplexity;

const METRICS: &[Metric] = &[
    Metric {
        name: "nll",
        title: "negative log-likelihood",
        unit: Unit::Nats,
        higher_is_better: false,
        statistic: Statistic::Mean,
    },
    Metric {
        name: "perplexity",
        title: "perplexity",
        unit: Unit::Perplexity,
        higher_is_better: false,
        statistic: Statistic::Exp,
    },
    Metric {
        name: "nll_change",
        title: "change of negative log-likelihood",
        unit: Unit::Nats,
        higher_is_better: false,
        statistic: Statistic::Difference,
    },
    Metric {
        name: "perplexity_change",
        title: "change of perplexity",
        unit: Unit::Percent,
        higher_is_better: false,
        statistic: Statistic::Ratio,
    },
];

impl Evaluator for Perplexity {
    fn name(&self) -> &'static str {
        "nll"
    }

    fn about(&self) -> &'static str {
        "−ln of the probability given to the token that came, in nats (Jelinek et al. 1977)"
    }

    fn against_reference(&self) -> bool {
        false
    }

    fn outcome(&self, prediction: &Prediction<'_>) -> f64 {
        prediction.variant.nll()
    }

    fn metrics(&self) -> &'static [Metric] {
        METRICS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distribution::Distribution;

    #[test]
    fn a_uniform_model_has_the_perplexity_of_its_vocabulary() {
        let (mut sure, mut uniform) = ([40.0, 0.0, 0.0, 0.0, 0.0], [1.5; 5]);
        let p = Distribution::new(&mut sure, 0).unwrap();
        let q = Distribution::new(&mut uniform, 0).unwrap();
        let prediction = Prediction {
            target: 0,
            reference: &p,
            variant: &q,
        };
        let nll = Perplexity.outcome(&prediction);
        assert!((Statistic::Exp.transform(nll) - 5.0).abs() < 1e-6);
    }
}
