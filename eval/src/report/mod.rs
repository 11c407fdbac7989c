//! What an evaluation found, with everything needed to trace and requery it.
//!
//! A report keeps the summed outcomes of every sequence, so that any two of
//! its variants can be compared later without running a model. It owns the
//! numbers and their provenance; [`Report::write`] stores them, [`Report::to_text`] prints them.

mod comparison;
mod file;
pub(crate) mod format;
mod subject;
mod table;
mod task;
mod task_table;

use std::collections::BTreeMap;

use router_stats::forward::Quantization;
use serde::{Deserialize, Serialize};

pub use comparison::{Comparison, PValue};
pub(crate) use file::check_sums;
pub(crate) use format::shortened;
pub use format::thousands;
pub use subject::Subject;
pub(crate) use table::Block;
pub use task::{TaskChange, TaskMetric, TaskModel, TaskReport};

use crate::compare::{Bootstrap, Cluster, Estimate, Resampled};
use crate::evaluator::{self, Statistic, EVALUATORS};
use crate::speed::Speed;
use crate::{Error, Result};

/// Version of the file format.
pub const VERSION: u32 = 2;

/// Metric → estimate.
pub type Estimates = BTreeMap<String, Estimate>;

/// Reference and variants, measured on one text, on tasks, or on both.
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
    /// Which differences chance explains: every variant against the reference,
    /// then against the best variant, per text.
    pub comparisons: Vec<Comparison>,
    /// Size of every sequence.
    pub predictions: Predictions,
    /// Speed and memory, if they were measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub speed: Option<Speed>,
    /// Sets of items that have an answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskReport>,
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
    /// Documents that these are of for the most part. The sequences of each
    /// are one cluster.
    pub documents: u64,
    /// Predicted tokens.
    pub tokens: u64,
}

/// The sequences that predict something, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Predictions {
    /// Index of each sequence's domain.
    pub domains: Vec<u16>,
    /// Document, within its domain, that most tokens of each sequence are of.
    pub documents: Vec<u32>,
    /// Predicted tokens of each sequence.
    pub tokens: Vec<u32>,
}

/// What was measured of one model.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Unique name.
    pub name: String,
    /// Fingerprint of its checkpoint.
    pub fingerprint: String,
    /// Whether experts or layers of that checkpoint were masked.
    pub masked: bool,
    /// What its weights were rounded through, if they were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantization: Option<Quantization>,
    /// Bytes of its weights, if they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
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
    pub(crate) fn new(
        provenance: Provenance,
        predictions: Predictions,
        reference: Model,
        variants: Vec<Model>,
    ) -> Self {
        let mut report = Self {
            version: VERSION,
            provenance,
            reference,
            variants,
            comparisons: Vec::new(),
            predictions,
            speed: None,
            tasks: Vec::new(),
        };
        (report.reference.all, report.reference.domains) =
            report.estimates(&report.reference, false);
        for index in 0..report.variants.len() {
            let (all, domains) = report.estimates(&report.variants[index], true);
            (report.variants[index].all, report.variants[index].domains) = (all, domains);
        }
        report.comparisons = report.compare();
        report
    }

    /// Variant `a` minus variant `b` in a metric, by paired bootstrap, on one
    /// domain, or on all mixed by weight if `domain` is `None`.
    ///
    /// Likelihoods, agreement and overlap are subtracted; perplexities and
    /// their changes give perplexity(a) / perplexity(b) − 1. Alone, the two are
    /// distinguishable if the estimate [excludes zero](Estimate::excludes_zero);
    /// of many variants [`Report::comparisons`] tells.
    ///
    /// # Errors
    /// [`Error::UnknownVariant`], [`Error::UnknownMetric`] or
    /// [`Error::UnknownDomain`].
    pub fn difference(
        &self,
        a: usize,
        b: usize,
        metric: &str,
        domain: Option<&str>,
    ) -> Result<Estimate> {
        let variant = |index: usize| {
            let unknown = Error::UnknownVariant {
                count: self.variants.len(),
                found: index,
            };
            self.variants.get(index).ok_or(unknown)
        };
        let (a, b) = (variant(a)?, variant(b)?);
        let (evaluator, metric) = evaluator::metric(metric)?;
        if let Some(domain) =
            domain.filter(|domain| self.domains().all(|known| known.name != **domain))
        {
            let known: Vec<&str> = self.domains().map(|domain| domain.name.as_str()).collect();
            return Err(Error::UnknownDomain {
                found: domain.to_owned(),
                known: known.join(", "),
            });
        }
        let bootstrap = &self.provenance.bootstrap;
        let resampled = self.resample(a, b, EVALUATORS[evaluator].name(), bootstrap);
        Ok(self.mix(&resampled, metric.statistic.paired(), domain))
    }

    /// Domains that have text.
    pub fn domains(&self) -> impl Iterator<Item = &Domain> {
        self.provenance
            .domains
            .iter()
            .filter(|domain| domain.sequences > 0)
    }

    /// The domain whose perplexity a variant raises most; `None` if there are
    /// fewer than two, or no such variant.
    pub fn worst_domain(&self, variant: usize) -> Option<(&str, &Estimate)> {
        let changes = self
            .variants
            .get(variant)?
            .domains
            .iter()
            .filter_map(|(name, estimates)| {
                estimates
                    .get("perplexity_change")
                    .map(|estimate| (name.as_str(), estimate))
            });
        let worst = changes.max_by(|(_, a), (_, b)| a.value.total_cmp(&b.value));
        worst.filter(|_| self.domains().count() > 1)
    }

    /// Every metric of `model`, mixed and per domain; comparisons with the
    /// reference only if `compare`.
    fn estimates(&self, model: &Model, compare: bool) -> (Estimates, BTreeMap<String, Estimates>) {
        let mut all = Estimates::new();
        let mut domains: BTreeMap<String, Estimates> = self
            .domains()
            .map(|domain| (domain.name.clone(), Estimates::new()))
            .collect();
        for evaluator in EVALUATORS {
            if evaluator.against_reference() && !compare {
                continue;
            }
            let bootstrap = &self.provenance.bootstrap;
            let resampled = self.resample(model, &self.reference, evaluator.name(), bootstrap);
            for metric in evaluator.metrics() {
                if metric.statistic.is_paired() && !compare {
                    continue;
                }
                all.insert(
                    metric.name.to_owned(),
                    self.mix(&resampled, metric.statistic, None),
                );
                for (domain, estimates) in &mut domains {
                    let estimate = self.mix(&resampled, metric.statistic, Some(domain));
                    estimates.insert(metric.name.to_owned(), estimate);
                }
            }
        }
        (all, domains)
    }

    /// Resamples two models together, domain by domain.
    fn resample(
        &self,
        left: &Model,
        right: &Model,
        evaluator: &str,
        bootstrap: &Bootstrap,
    ) -> Vec<(&Domain, Resampled)> {
        let domains = self.provenance.domains.iter().enumerate();
        domains
            .filter_map(|(index, domain)| {
                let clusters = self.clusters(index, left, right, evaluator);
                Some((domain, bootstrap.resample(&domain.name, &clusters)?))
            })
            .collect()
    }

    /// Outcomes of a domain summed by document. A model without sums of this
    /// evaluator (the reference, of comparisons) counts as zero.
    pub(crate) fn clusters(
        &self,
        domain: usize,
        left: &Model,
        right: &Model,
        evaluator: &str,
    ) -> Vec<Cluster> {
        let sum = |model: &Model, sequence: usize| {
            model.sums.get(evaluator).map_or(0.0, |sums| sums[sequence])
        };
        let predictions = &self.predictions;
        let mut documents = BTreeMap::<u32, Cluster>::new();
        for (sequence, &tokens) in predictions.tokens.iter().enumerate() {
            if usize::from(predictions.domains[sequence]) == domain {
                let cluster = documents
                    .entry(predictions.documents[sequence])
                    .or_default();
                cluster.tokens += f64::from(tokens);
                cluster.left += sum(left, sequence);
                cluster.right += sum(right, sequence);
            }
        }
        documents.into_values().collect()
    }

    /// Weights of the domains in a mixture, or of the only one.
    fn strata<'a>(
        resampled: &'a [(&Domain, Resampled)],
        domain: Option<&str>,
    ) -> Vec<(f64, &'a Resampled)> {
        resampled
            .iter()
            .filter_map(|(own, resampled)| match domain {
                None => Some((own.weight, resampled)),
                Some(name) => (own.name == name).then_some((1.0, resampled)),
            })
            .collect()
    }

    fn mix(
        &self,
        resampled: &[(&Domain, Resampled)],
        statistic: Statistic,
        domain: Option<&str>,
    ) -> Estimate {
        let strata = Self::strata(resampled, domain);
        self.provenance.bootstrap.estimate(&strata, statistic)
    }
}

#[cfg(test)]
pub(crate) mod tests;
