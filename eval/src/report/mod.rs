//! What an evaluation found, with everything needed to trace and requery it.
//!
//! A report keeps the summed outcomes of every sequence, so that any two of
//! its variants can be compared later without running a model. It owns the
//! numbers and their provenance; [`file`] stores them, [`table`] prints them.

mod file;
mod table;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::compare::{Bootstrap, Cluster, Estimate, Resampled};
use crate::evaluator::{self, Statistic, EVALUATORS};
use crate::{Error, Result};

/// Version of the file format.
pub const VERSION: u32 = 1;

/// Metric → estimate.
pub type Estimates = BTreeMap<String, Estimate>;

/// Reference and variants, measured on one text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// What was measured on, and how.
    pub provenance: Provenance,
    /// The original model.
    pub reference: Model,
    /// What it is compared with, in the order asked for.
    pub variants: Vec<Model>,
    /// Size of every sequence.
    pub predictions: Predictions,
}

/// Text and settings of an evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// Program and version.
    pub created_by: String,
    /// Hash of the token stream.
    pub corpus: String,
    /// Longest sequence, in tokens.
    pub seq_len: usize,
    /// How intervals were made.
    pub bootstrap: Bootstrap,
    /// Kinds of text.
    pub domains: Vec<Domain>,
}

/// One kind of text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Domain {
    /// Unique name.
    pub name: String,
    /// Share of the mixture "all"; shares add up to 1. Zero without text.
    pub weight: f64,
    /// Sequences with at least one prediction.
    pub sequences: u64,
    /// Predicted tokens.
    pub tokens: u64,
}

/// The sequences that predict something, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Predictions {
    /// Index of each sequence's domain.
    pub domains: Vec<u16>,
    /// Predicted tokens of each sequence.
    pub tokens: Vec<u32>,
}

/// What was measured of one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Unique name.
    pub name: String,
    /// Fingerprint of its checkpoint.
    pub fingerprint: String,
    /// Whether experts or layers of that checkpoint were masked.
    pub masked: bool,
    /// Of the domains mixed by weight.
    pub all: Estimates,
    /// Of each domain that has text.
    pub domains: BTreeMap<String, Estimates>,
    /// Evaluator → summed outcomes of every sequence.
    pub sums: BTreeMap<String, Vec<f64>>,
}

impl Model {
    /// A metric on one domain, or on all mixed by weight if `domain` is
    /// `None`. `None` for an unknown name, a domain without text, and a
    /// comparison of the reference with itself.
    pub fn estimate(&self, metric: &str, domain: Option<&str>) -> Option<&Estimate> {
        let estimates = match domain {
            None => &self.all,
            Some(domain) => self.domains.get(domain)?,
        };
        estimates.get(metric)
    }
}

impl Report {
    /// Derives every metric of every model from the sums.
    pub(crate) fn new(provenance: Provenance, predictions: Predictions, reference: Model, variants: Vec<Model>) -> Self {
        let mut report = Self { version: VERSION, provenance, reference, variants, predictions };
        (report.reference.all, report.reference.domains) = report.estimates(&report.reference, false);
        for index in 0..report.variants.len() {
            let (all, domains) = report.estimates(&report.variants[index], true);
            (report.variants[index].all, report.variants[index].domains) = (all, domains);
        }
        report
    }

    /// Variant `a` minus variant `b` in a metric, by paired bootstrap, on one
    /// domain, or on all mixed by weight if `domain` is `None`.
    ///
    /// Likelihoods, agreement and overlap are subtracted; perplexities and
    /// their changes give perplexity(a) / perplexity(b) − 1. The two are
    /// distinguishable if the estimate [excludes zero](Estimate::excludes_zero).
    ///
    /// # Errors
    /// [`Error::UnknownVariant`], [`Error::UnknownMetric`] or
    /// [`Error::UnknownDomain`].
    pub fn difference(&self, a: usize, b: usize, metric: &str, domain: Option<&str>) -> Result<Estimate> {
        let variant = |index: usize| {
            let unknown = Error::UnknownVariant { count: self.variants.len(), found: index };
            self.variants.get(index).ok_or(unknown)
        };
        let (a, b) = (variant(a)?, variant(b)?);
        let (evaluator, metric) = evaluator::metric(metric)?;
        if let Some(domain) = domain.filter(|domain| self.domains().all(|known| known.name != **domain)) {
            let known: Vec<&str> = self.domains().map(|domain| domain.name.as_str()).collect();
            return Err(Error::UnknownDomain { found: domain.to_owned(), known: known.join(", ") });
        }
        let resampled = self.resample(a, b, EVALUATORS[evaluator].name());
        Ok(self.mix(&resampled, metric.statistic.paired(), domain))
    }

    /// Domains that have text.
    pub fn domains(&self) -> impl Iterator<Item = &Domain> {
        self.provenance.domains.iter().filter(|domain| domain.sequences > 0)
    }

    /// The domain whose perplexity a variant raises most; `None` if there are
    /// fewer than two, or no such variant.
    pub fn worst_domain(&self, variant: usize) -> Option<(&str, &Estimate)> {
        let changes = self.variants.get(variant)?.domains.iter().filter_map(|(name, estimates)| {
            estimates.get("perplexity_change").map(|estimate| (name.as_str(), estimate))
        });
        let worst = changes.max_by(|(_, a), (_, b)| a.value.total_cmp(&b.value));
        worst.filter(|_| self.domains().count() > 1)
    }

    /// Every metric of `model`, mixed and per domain; comparisons with the
    /// reference only if `compare`.
    fn estimates(&self, model: &Model, compare: bool) -> (Estimates, BTreeMap<String, Estimates>) {
        let mut all = Estimates::new();
        let mut domains: BTreeMap<String, Estimates> =
            self.domains().map(|domain| (domain.name.clone(), Estimates::new())).collect();
        for evaluator in EVALUATORS {
            if evaluator.against_reference() && !compare {
                continue;
            }
            let resampled = self.resample(model, &self.reference, evaluator.name());
            for metric in evaluator.metrics() {
                if metric.statistic.is_paired() && !compare {
                    continue;
                }
                all.insert(metric.name.to_owned(), self.mix(&resampled, metric.statistic, None));
                for (domain, estimates) in &mut domains {
                    let estimate = self.mix(&resampled, metric.statistic, Some(domain));
                    estimates.insert(metric.name.to_owned(), estimate);
                }
            }
        }
        (all, domains)
    }

    /// Resamples two models together, domain by domain. A model without sums
    /// of this evaluator (the reference, of comparisons) counts as zero.
    fn resample(&self, left: &Model, right: &Model, evaluator: &str) -> Vec<(&Domain, Resampled)> {
        let sum = |model: &Model, sequence: usize| model.sums.get(evaluator).map_or(0.0, |sums| sums[sequence]);
        let domain = |(index, domain)| {
            let clusters: Vec<Cluster> = (0..self.predictions.tokens.len())
                .filter(|&sequence| usize::from(self.predictions.domains[sequence]) == index)
                .map(|sequence| Cluster {
                    tokens: f64::from(self.predictions.tokens[sequence]),
                    left: sum(left, sequence),
                    right: sum(right, sequence),
                })
                .collect();
            let domain: &Domain = domain;
            Some((domain, self.provenance.bootstrap.resample(&domain.name, &clusters)?))
        };
        self.provenance.domains.iter().enumerate().filter_map(domain).collect()
    }

    fn mix(&self, resampled: &[(&Domain, Resampled)], statistic: Statistic, domain: Option<&str>) -> Estimate {
        let strata: Vec<(f64, &Resampled)> = resampled
            .iter()
            .filter_map(|(own, resampled)| match domain {
                None => Some((own.weight, resampled)),
                Some(name) => (own.name == name).then_some((1.0, resampled)),
            })
            .collect();
        self.provenance.bootstrap.estimate(&strata, statistic)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A report on two domains; variants lose `losses` nats per token, and a
    /// little more on some sequences than on others.
    pub(crate) fn sample(losses: &[(&str, f64)]) -> Report {
        let names = ["code", "math", "empty"];
        let sequences = 24;
        let predictions = Predictions {
            domains: (0..sequences).map(|sequence| u16::from(sequence % 3 == 0)).collect(),
            tokens: (0..sequences).map(|sequence| 100 + u32::from(sequence)).collect(),
        };
        let column = |f: &dyn Fn(f64) -> f64| -> Vec<f64> {
            predictions.tokens.iter().enumerate().map(|(i, &n)| f64::from(n) * f(i as f64)).collect()
        };
        let difficulty = |i: f64| 2.0 + 0.3 * (i * 1.9).sin();
        let model = |name: &str, sums: Vec<(&str, Vec<f64>)>| Model {
            name: name.to_owned(),
            fingerprint: format!("{:064x}", name.len()),
            masked: name != "original",
            all: Estimates::new(),
            domains: BTreeMap::new(),
            sums: sums.into_iter().map(|(name, sums)| (name.to_owned(), sums)).collect(),
        };
        let variants = losses
            .iter()
            .map(|&(name, loss)| {
                let lost = |i: f64| difficulty(i) + loss * (1.0 + 0.2 * (i * 0.7).cos());
                let agreed = |i: f64| (-loss).exp() * (0.95 + 0.05 * i.sin());
                model(name, vec![("nll", column(&lost)), ("top1", column(&agreed)), ("overlap", column(&agreed))])
            })
            .collect();
        let domains = names
            .iter()
            .zip([0.75, 0.25, 0.0])
            .enumerate()
            .map(|(index, (name, weight))| {
                let own = |&(_, &domain): &(&u32, &u16)| usize::from(domain) == index;
                let tokens = || predictions.tokens.iter().zip(&predictions.domains).filter(own);
                Domain {
                    name: (*name).to_owned(),
                    weight,
                    sequences: tokens().count() as u64,
                    tokens: tokens().map(|(&n, _)| u64::from(n)).sum(),
                }
            })
            .collect();
        let provenance = Provenance {
            created_by: "prune-eval test".to_owned(),
            corpus: "c0ffee".to_owned(),
            seq_len: 128,
            bootstrap: Bootstrap { resamples: 500, confidence: 0.95, seed: 1 },
            domains,
        };
        let reference = model("original", vec![("nll", column(&difficulty))]);
        Report::new(provenance, predictions.clone(), reference, variants)
    }

    #[test]
    fn rows_hold_what_each_model_can_have() {
        let report = sample(&[("half", 0.4)]);
        assert_eq!(report.reference.all.len(), 2);
        assert_eq!(report.reference.estimate("perplexity_change", None), None);
        let half = &report.variants[0];
        assert_eq!(half.all.len(), evaluator::metrics().count());
        assert_eq!(half.domains.keys().collect::<Vec<_>>(), ["code", "math"]);
        let change = half.estimate("perplexity_change", Some("math")).unwrap();
        let ratio = half.estimate("perplexity", Some("math")).unwrap().value
            / report.reference.estimate("perplexity", Some("math")).unwrap().value;
        assert!((change.value - (ratio - 1.0)).abs() < 1e-12);
        assert!(change.excludes_zero());
    }

    #[test]
    fn all_is_the_mixture_by_weight() {
        let report = sample(&[("half", 0.4)]);
        let nll = |domain| report.variants[0].estimate("nll", domain).unwrap().value;
        assert!((nll(None) - (0.75 * nll(Some("code")) + 0.25 * nll(Some("math")))).abs() < 1e-12);
        let perplexity = report.variants[0].estimate("perplexity", None).unwrap().value;
        assert!((perplexity - nll(None).exp()).abs() < 1e-9);
    }

    #[test]
    fn differences_compare_variants() {
        let report = sample(&[("half", 0.4), ("same", 0.4), ("quarter", 0.1)]);
        let same = report.difference(0, 1, "nll", None).unwrap();
        assert_eq!((same.value, same.interval()), (0.0, Some((0.0, 0.0))));
        assert!(!same.excludes_zero());
        let worse = report.difference(0, 2, "perplexity", None).unwrap();
        assert!(worse.value > 0.0 && worse.excludes_zero());
        assert_eq!(worse, report.difference(0, 2, "perplexity_change", None).unwrap());
        assert!(report.difference(0, 2, "overlap", Some("code")).unwrap().value < 0.0);
        assert!(matches!(report.difference(0, 3, "nll", None), Err(Error::UnknownVariant { count: 3, found: 3 })));
        assert!(matches!(report.difference(0, 1, "speed", None), Err(Error::UnknownMetric { .. })));
        let error = report.difference(0, 1, "nll", Some("empty")).unwrap_err();
        assert_eq!(error.to_string(), "domain: expected one of code, math, found `empty`");
    }

    #[test]
    fn a_variant_does_not_depend_on_its_neighbours() {
        let alone = sample(&[("half", 0.4)]);
        let last = sample(&[("quarter", 0.1), ("half", 0.4)]);
        assert_eq!(alone.variants[0], last.variants[1]);
    }

    #[test]
    fn the_worst_domain_is_that_of_the_largest_change() {
        let mut report = sample(&[("half", 0.4)]);
        let (name, worst) = report.worst_domain(0).unwrap();
        let other = if name == "code" { "math" } else { "code" };
        assert!(worst.value > report.variants[0].estimate("perplexity_change", Some(other)).unwrap().value);
        assert_eq!(report.worst_domain(1), None);
        report.provenance.domains.truncate(1);
        assert_eq!(report.worst_domain(0), None);
    }
}
