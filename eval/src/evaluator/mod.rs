//! What is measured at every predicted token.
//!
//! An evaluator is one file that implements [`Evaluator`] and one line in
//! [`EVALUATORS`]. It owns the outcome of a token and the [`Metric`]s that
//! are reported of its mean; intervals belong to [`crate::compare`].

mod agreement;
mod divergence;
mod perplexity;

use crate::distribution::Prediction;
use crate::{Error, Result};

/// Every evaluator of this build.
pub const EVALUATORS: &[&dyn Evaluator] = &[
    &perplexity::Perplexity,
    &agreement::Top1,
    &agreement::Overlap,
    &divergence::Divergence,
];

/// Turns predictions into outcomes, one number per token.
pub trait Evaluator: Sync + std::fmt::Debug {
    /// Key of its sums in a report: `nll`.
    fn name(&self) -> &'static str;

    /// What the outcome is, and its source.
    fn about(&self) -> &'static str;

    /// Whether an outcome needs the reference. If not, the reference is
    /// evaluated too, as `variant` of its own prediction.
    fn against_reference(&self) -> bool;

    /// The outcome of one token. Finite.
    fn outcome(&self, prediction: &Prediction<'_>) -> f64;

    /// What is reported of the mean outcome.
    fn metrics(&self) -> &'static [Metric];
}

/// A number that is reported per model and domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// Key in a report: `perplexity_change`.
    pub name: &'static str,
    /// Heading of a table.
    pub title: &'static str,
    /// How it is written.
    pub unit: Unit,
    /// Whether more is better.
    pub higher_is_better: bool,
    /// How it follows from mean outcomes.
    pub statistic: Statistic,
}

/// How a number is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Nats per token.
    Nats,
    /// Tokens to choose from, on average: the unit of perplexity.
    Perplexity,
    /// A fraction, written as a percentage.
    Percent,
    /// Bits per byte.
    Bits,
}

/// How a metric follows from the mean outcomes x̄ of a model and ȳ of the
/// model it is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statistic {
    /// x̄
    Mean,
    /// x̄, between 0 and 1
    Proportion,
    /// exp x̄
    Exp,
    /// x̄ − ȳ
    Difference,
    /// exp(x̄ − ȳ) − 1
    Ratio,
}

impl Statistic {
    /// Whether ȳ matters.
    pub fn is_paired(self) -> bool {
        matches!(self, Self::Difference | Self::Ratio)
    }

    /// The statistic that compares two models by this one.
    pub fn paired(self) -> Self {
        match self {
            Self::Mean | Self::Proportion | Self::Difference => Self::Difference,
            Self::Exp | Self::Ratio => Self::Ratio,
        }
    }

    /// The linear part: x̄, or x̄ − ȳ. Domains are mixed and intervals built
    /// on this scale.
    pub fn contrast(self, left: f64, right: f64) -> f64 {
        if self.is_paired() {
            left - right
        } else {
            left
        }
    }

    /// The linear part that [`transform`](Self::transform) takes to `metric`.
    pub fn contrast_of(self, metric: f64) -> f64 {
        match self {
            Self::Mean | Self::Difference | Self::Proportion => metric,
            Self::Exp => metric.ln(),
            Self::Ratio => metric.ln_1p(),
        }
    }

    /// The increasing function that takes the linear part to the metric.
    pub fn transform(self, contrast: f64) -> f64 {
        match self {
            Self::Mean | Self::Difference => contrast,
            Self::Proportion => contrast.clamp(0.0, 1.0),
            Self::Exp => contrast.exp(),
            Self::Ratio => contrast.exp_m1(),
        }
    }
}

/// Every metric with the index of its evaluator in [`EVALUATORS`].
pub fn metrics() -> impl Iterator<Item = (usize, &'static Metric)> {
    EVALUATORS
        .iter()
        .enumerate()
        .flat_map(|(index, evaluator)| {
            evaluator
                .metrics()
                .iter()
                .map(move |metric| (index, metric))
        })
}

/// Finds a metric, and the index of its evaluator, by name.
///
/// # Errors
/// [`Error::UnknownMetric`] if no evaluator reports it.
pub fn metric(name: &str) -> Result<(usize, &'static Metric)> {
    metrics()
        .find(|(_, metric)| metric.name == name)
        .ok_or_else(|| Error::UnknownMetric {
            found: name.to_owned(),
            known: metrics()
                .map(|(_, metric)| metric.name)
                .collect::<Vec<_>>()
                .join(", "),
        })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::distribution::Distribution;

    #[test]
    fn names_are_unique() {
        let evaluators: BTreeSet<_> = EVALUATORS
            .iter()
            .map(|evaluator| evaluator.name())
            .collect();
        assert_eq!(evaluators.len(), EVALUATORS.len());
        let names: BTreeSet<_> = metrics().map(|(_, metric)| metric.name).collect();
        assert_eq!(names.len(), metrics().count());
        for (index, found) in metrics() {
            assert_eq!(metric(found.name).unwrap(), (index, found));
        }
        assert!(metric("accuracy")
            .unwrap_err()
            .to_string()
            .contains("perplexity_change"));
    }

    #[test]
    fn a_model_agrees_with_itself_and_outcomes_are_finite() {
        let mut row: Vec<f32> = (0..100).map(|v| (v as f32).sin() * 9.0).collect();
        let p = Distribution::new(&mut row, 7).unwrap();
        let prediction = Prediction {
            target: 7,
            reference: &p,
            variant: &p,
        };
        for evaluator in EVALUATORS {
            let outcome = evaluator.outcome(&prediction);
            assert!(outcome.is_finite());
            if evaluator.against_reference() {
                let perfect = f64::from(u8::from(evaluator.metrics()[0].higher_is_better));
                assert!(
                    (outcome - perfect).abs() < 1e-6,
                    "{}: {outcome}",
                    evaluator.name()
                );
            }
        }
    }

    #[test]
    fn transforms_increase_and_paired_ones_vanish_at_zero() {
        use Statistic::{Difference, Exp, Mean, Proportion, Ratio};
        for statistic in [Mean, Proportion, Exp, Difference, Ratio] {
            assert!(statistic.transform(0.3) < statistic.transform(0.4));
            let there = statistic.contrast_of(statistic.transform(0.3));
            assert!((there - 0.3).abs() < 1e-12);
            assert!(statistic.paired().is_paired());
            assert_eq!(
                statistic
                    .paired()
                    .transform(statistic.paired().contrast(1.7, 1.7)),
                0.0
            );
        }
        assert!((Ratio.transform(Ratio.contrast(2f64.ln(), 1f64.ln())) - 1.0).abs() < 1e-12);
    }
}
