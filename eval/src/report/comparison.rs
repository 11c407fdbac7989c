//! Which differences between models chance explains, and which it does not.
//!
//! A family is what one column of a table compares: every variant with the
//! reference, or every variant with the best of them, on one text. Within it
//! p-values are corrected by Holm's procedure. The statistics belong to
//! [`crate::compare`].

use std::cmp::Ordering;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Model, Report};
use crate::compare::{holm, sign_test, Bootstrap};
use crate::evaluator::Statistic;

/// Evaluator whose outcomes are compared.
const EVALUATOR: &str = "nll";
/// Metric by which the best variant is found.
const RANKED_BY: &str = "perplexity";
/// How far the least adjusted p-value must be able to fall below the level.
const RESOLUTION: f64 = 2.0;

/// Two models' likelihoods of one text: is one better?
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Comparison {
    /// Name of the model, a variant.
    pub model: String,
    /// Name of what it is compared with: the reference, or the variant of the
    /// lowest perplexity.
    pub against: String,
    /// Name of the domain; absent for all mixed by weight.
    pub domain: Option<String>,
    /// Of a difference of perplexity, by paired bootstrap
    /// ([`Bootstrap::p_value`]) with the report's resamples, or as many more
    /// as a family of this size needs; absent where there is no interval.
    pub bootstrap: Option<PValue>,
    /// Clusters that the model predicts worse.
    pub worse: u64,
    /// Clusters that it predicts better.
    pub better: u64,
    /// Of the sign test over these.
    pub sign: PValue,
}

/// A two-sided p-value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PValue {
    /// Of this comparison alone.
    pub p: f64,
    /// Corrected by [`holm`] for its family: equal `against` and `domain`.
    pub adjusted: f64,
}

impl Report {
    /// The variant of the lowest perplexity over all domains.
    pub fn best(&self) -> Option<&Model> {
        let value = |model: &Model| {
            let perplexity = model.estimate(RANKED_BY, None);
            perplexity.map_or(f64::INFINITY, |estimate| estimate.value)
        };
        let ranked = self.variants.iter();
        ranked.min_by(|a, b| value(a).total_cmp(&value(b)))
    }

    /// What is known of `model` against `against`, both by name.
    pub fn comparison(
        &self,
        model: &str,
        against: &str,
        domain: Option<&str>,
    ) -> Option<&Comparison> {
        self.comparisons.iter().find(|comparison| {
            comparison.model == model
                && comparison.against == against
                && comparison.domain.as_deref() == domain
        })
    }

    /// Every variant with the reference, and with the best of them.
    pub(super) fn compare(&self) -> Vec<Comparison> {
        let domains = self.domains().map(|domain| Some(domain.name.as_str()));
        let texts: Vec<Option<&str>> = std::iter::once(None).chain(domains).collect();
        let mut comparisons = Vec::new();
        let best = self.best().filter(|_| self.variants.len() > 1);
        for against in std::iter::once(&self.reference).chain(best) {
            let models: Vec<&Model> = self
                .variants
                .iter()
                .filter(|variant| variant.name != against.name)
                .collect();
            let mut families: Vec<Vec<Comparison>> = texts.iter().map(|_| Vec::new()).collect();
            let bootstrap = self.fine_enough(models.len());
            for model in models {
                let resampled = self.resample(model, against, EVALUATOR, &bootstrap);
                for (family, &domain) in families.iter_mut().zip(&texts) {
                    let strata = Self::strata(&resampled, domain);
                    let p = bootstrap.p_value(&strata, Statistic::Difference);
                    let (worse, better) = self.signs(model, against, domain);
                    family.push(Comparison {
                        model: model.name.clone(),
                        against: against.name.clone(),
                        domain: domain.map(str::to_owned),
                        bootstrap: p.map(PValue::alone),
                        worse,
                        better,
                        sign: PValue::alone(sign_test(worse, better)),
                    });
                }
            }
            for mut family in families {
                adjust(&mut family);
                comparisons.append(&mut family);
            }
        }
        comparisons
    }

    /// Enough draws for the least p-value of a family to stay below the level
    /// that the confidence implies.
    fn fine_enough(&self, family: usize) -> Bootstrap {
        let bootstrap = self.provenance.bootstrap;
        let least = RESOLUTION * 2.0 * family as f64 / (1.0 - bootstrap.confidence);
        Bootstrap {
            resamples: bootstrap.resamples.max(least.ceil() as usize),
            ..bootstrap
        }
    }

    /// Clusters of a domain, or of all that weigh something, that a model
    /// predicts worse and better than another.
    fn signs(&self, model: &Model, against: &Model, domain: Option<&str>) -> (u64, u64) {
        let counted = |index: usize| {
            let own = &self.provenance.domains[index];
            domain.map_or(own.weight > 0.0, |name| own.name == name)
        };
        let clusters = (0..self.provenance.domains.len())
            .filter(|&index| counted(index))
            .flat_map(|index| self.clusters(index, model, against, EVALUATOR));
        clusters.fold((0, 0), |(worse, better), cluster| {
            match cluster.left.total_cmp(&cluster.right) {
                Ordering::Greater => (worse + 1, better),
                Ordering::Less => (worse, better + 1),
                Ordering::Equal => (worse, better),
            }
        })
    }

    /// What would make a comparison meaningless.
    pub(super) fn check_comparisons(&self) -> Result<(), String> {
        let variants: BTreeSet<&str> = self.variants.iter().map(|v| v.name.as_str()).collect();
        for comparison in &self.comparisons {
            let (model, against) = (comparison.model.as_str(), comparison.against.as_str());
            if !variants.contains(model) {
                return Err(format!(
                    "`comparisons`: expected the name of a variant, found `{model}`"
                ));
            }
            if model == against || !(variants.contains(against) || against == self.reference.name) {
                return Err(format!(
                    "`comparisons`: `{model}`: expected another model, found `{against}`"
                ));
            }
            let values = [comparison.bootstrap, Some(comparison.sign)];
            for value in values.into_iter().flatten().flat_map(|v| [v.p, v.adjusted]) {
                if !(0.0..=1.0).contains(&value) {
                    return Err(format!("`comparisons`: `{model}` against `{against}`: expected p-values from 0 to 1, found {value}"));
                }
            }
        }
        Ok(())
    }
}

impl PValue {
    /// Before it is corrected.
    fn alone(p: f64) -> Self {
        Self { p, adjusted: p }
    }
}

/// Corrects both kinds of p-values of a family.
fn adjust(family: &mut [Comparison]) {
    let p: Vec<f64> = family
        .iter()
        .map(|comparison| comparison.bootstrap.map_or(f64::NAN, |value| value.p))
        .collect();
    let sign: Vec<f64> = family.iter().map(|comparison| comparison.sign.p).collect();
    for ((comparison, p), sign) in family.iter_mut().zip(holm(&p)).zip(holm(&sign)) {
        if let Some(value) = &mut comparison.bootstrap {
            value.adjusted = p;
        }
        comparison.sign.adjusted = sign;
    }
}
