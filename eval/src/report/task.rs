//! What models scored on tasks, item by item.
//!
//! Items are independent, so each is a cluster of the bootstrap. Outcomes are
//! kept, so that any two models can be compared later. What an outcome is
//! belongs to [`crate::task`].

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{PValue, Predictions, Provenance, Report, Subject};
use crate::compare::{holm, sign_test, Bootstrap, Cluster, Estimate};
use crate::evaluator::{Metric, Statistic};
use crate::task::{TaskOutcomes, TaskSet};
use crate::{Error, Result};

/// Outcomes are rounded to one part in so many, so that a report stays small.
const STEPS: f64 = 1e6;

/// One set of items.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskReport {
    /// Unique name of the set.
    pub name: String,
    /// Kind of its items, a name in [`TASKS`](crate::task::TASKS).
    pub kind: String,
    /// Hash of the items.
    pub hash: String,
    /// How many there are.
    pub items: usize,
    /// The reference, then every variant, in the order of the report.
    pub models: Vec<TaskModel>,
}

/// What one model scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskModel {
    /// Name of the model.
    pub name: String,
    /// Metric → what was measured.
    pub metrics: BTreeMap<String, TaskMetric>,
}

/// One metric of one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskMetric {
    /// Over items. The interval is of the bootstrap over items, or, for a
    /// share that is 0 or 1, the exact one of Clopper and Pearson.
    pub estimate: Estimate,
    /// Against the reference; absent for the reference itself.
    pub change: Option<TaskChange>,
    /// Of every item.
    pub outcomes: Vec<f64>,
}

/// One metric of one model against another, item by item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskChange {
    /// Difference, or for a perplexity its relative change, by paired
    /// bootstrap over items.
    pub estimate: Estimate,
    /// Items whose outcome is better.
    pub better: u64,
    /// Items whose outcome is worse.
    pub worse: u64,
    /// Of the sign test over these (of right and wrong, McNemar's exact test),
    /// corrected by Holm's procedure for the variants of the report.
    pub sign: PValue,
}

impl Report {
    /// A report without text, for [`Report::with_tasks`].
    pub fn of_tasks(reference: Subject, variants: Vec<Subject>, bootstrap: Bootstrap) -> Self {
        Self {
            version: super::VERSION,
            provenance: Provenance {
                created_by: concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"))
                    .to_owned(),
                corpus: String::new(),
                seq_len: 0,
                bootstrap,
                domains: Vec::new(),
            },
            reference: reference.unmeasured(),
            variants: variants.into_iter().map(Subject::unmeasured).collect(),
            comparisons: Vec::new(),
            predictions: Predictions {
                domains: Vec::new(),
                documents: Vec::new(),
                tokens: Vec::new(),
            },
            speed: None,
            tasks: Vec::new(),
        }
    }

    /// Adds what every model of the report scored on `sets`:
    /// `outcomes[model][set]`, the reference first.
    ///
    /// # Errors
    /// [`Error::DuplicateName`] for a set named twice; [`Error::Option`] for
    /// outcomes that are not of these models, sets and items.
    pub fn with_tasks(mut self, sets: &[TaskSet], outcomes: &[Vec<TaskOutcomes>]) -> Result<Self> {
        let models = 1 + self.variants.len();
        let shape = |expected: &'static str, found: String| Error::Option {
            option: "outcomes",
            expected,
            found,
        };
        if outcomes.len() != models {
            let found = format!("{} for {models} models", outcomes.len());
            return Err(shape("one list per model", found));
        }
        for (index, set) in sets.iter().enumerate() {
            if self.tasks.iter().any(|task| task.name == set.name) {
                return Err(Error::DuplicateName {
                    what: "task",
                    name: set.name.clone(),
                });
            }
            let own: Vec<&TaskOutcomes> = outcomes
                .iter()
                .filter_map(|model| model.get(index))
                .filter(|outcomes| fits(set, outcomes))
                .collect();
            if own.len() != models {
                let found = format!("{} that fit `{}`", own.len(), set.name);
                return Err(shape("one per model, set, item and metric", found));
            }
            let report = self.task(set, &own);
            self.tasks.push(report);
        }
        Ok(self)
    }

    /// One set, from the outcomes of the reference and every variant.
    fn task(&self, set: &TaskSet, outcomes: &[&TaskOutcomes]) -> TaskReport {
        let names = std::iter::once(&self.reference).chain(&self.variants);
        let mut models: Vec<TaskModel> = names
            .map(|model| TaskModel {
                name: model.name.clone(),
                metrics: BTreeMap::new(),
            })
            .collect();
        for (column, metric) in set.kind.metrics().iter().enumerate() {
            let columns: Vec<Vec<f64>> = outcomes
                .iter()
                .map(|model| {
                    let own = model.items.iter().map(|item| item[column]);
                    own.map(|outcome| (outcome * STEPS).round() / STEPS)
                        .collect()
                })
                .collect();
            let mut changes: Vec<TaskChange> = columns[1..]
                .iter()
                .map(|own| self.task_change(&set.name, metric, own, &columns[0]))
                .collect();
            let p: Vec<f64> = changes.iter().map(|change| change.sign.p).collect();
            for (change, adjusted) in changes.iter_mut().zip(holm(&p)) {
                change.sign.adjusted = adjusted;
            }
            let changes = std::iter::once(None).chain(changes.into_iter().map(Some));
            for ((model, outcomes), change) in models.iter_mut().zip(columns).zip(changes) {
                let measured = TaskMetric {
                    estimate: self.task_estimate(&set.name, metric.statistic, &outcomes, &outcomes),
                    change,
                    outcomes,
                };
                model.metrics.insert(metric.name.to_owned(), measured);
            }
        }
        TaskReport {
            name: set.name.clone(),
            kind: set.kind.name().to_owned(),
            hash: set.hash.clone(),
            items: set.records.len(),
            models,
        }
    }

    /// How outcomes of a metric differ between two models, item by item; the
    /// p-value is not corrected.
    pub fn task_change(
        &self,
        task: &str,
        metric: &Metric,
        left: &[f64],
        right: &[f64],
    ) -> TaskChange {
        let (mut better, mut worse) = (0, 0);
        for (left, right) in left.iter().zip(right) {
            match left.total_cmp(right) {
                Ordering::Equal => {}
                order if (order == Ordering::Greater) == metric.higher_is_better => better += 1,
                _ => worse += 1,
            }
        }
        let p = sign_test(better, worse);
        TaskChange {
            estimate: self.task_estimate(task, metric.statistic.paired(), left, right),
            better,
            worse,
            sign: PValue { p, adjusted: p },
        }
    }

    fn task_estimate(
        &self,
        task: &str,
        statistic: Statistic,
        left: &[f64],
        right: &[f64],
    ) -> Estimate {
        let bootstrap = &self.provenance.bootstrap;
        let clusters: Vec<Cluster> = left
            .iter()
            .zip(right)
            .map(|(&left, &right)| Cluster {
                tokens: 1.0,
                left,
                right,
            })
            .collect();
        let resampled = bootstrap.resample(task, &clusters);
        let strata: Vec<_> = resampled.iter().map(|resampled| (1.0, resampled)).collect();
        let estimate = bootstrap.estimate(&strata, statistic);
        match statistic {
            Statistic::Proportion => exact(estimate, left.len(), bootstrap.confidence),
            _ => estimate,
        }
    }

    /// What would make a later lookup fail, or lie.
    pub(super) fn check_tasks(&self) -> Result<(), String> {
        let names: Vec<&str> = std::iter::once(&self.reference)
            .chain(&self.variants)
            .map(|model| model.name.as_str())
            .collect();
        let mut seen = BTreeSet::new();
        for task in &self.tasks {
            let wrong = |what: String| Err(format!("task `{}`: {what}", task.name));
            if !seen.insert(&task.name) {
                return wrong("expected unique names, found it twice".to_owned());
            }
            let Some(kind) = crate::task::kind(&task.kind) else {
                return wrong(format!("expected a known kind, found `{}`", task.kind));
            };
            let found: Vec<&str> = task
                .models
                .iter()
                .map(|model| model.name.as_str())
                .collect();
            if found != names {
                return wrong(format!("expected the models {names:?}, found {found:?}"));
            }
            if task.items == 0 {
                return wrong("expected at least 1 item, found 0".to_owned());
            }
            for (index, model) in task.models.iter().enumerate() {
                for metric in kind.metrics() {
                    let own = model.metrics.get(metric.name);
                    let outcomes = own.map_or(0, |own| own.outcomes.len());
                    if outcomes != task.items {
                        return wrong(format!(
                            "`{}`: expected {} outcomes of `{}`, found {outcomes}",
                            model.name, task.items, metric.name
                        ));
                    }
                    if own.is_some_and(|own| own.change.is_some() != (index > 0)) {
                        return wrong(format!(
                            "`{}`: expected a change of `{}` for variants alone",
                            model.name, metric.name
                        ));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether outcomes are of this set.
fn fits(set: &TaskSet, outcomes: &TaskOutcomes) -> bool {
    let metrics = set.kind.metrics().len();
    outcomes.task == set.name
        && outcomes.items.len() == set.records.len()
        && outcomes
            .items
            .iter()
            .all(|item| item.len() == metrics && item.iter().all(|outcome| outcome.is_finite()))
}

/// A share that no item has, or every item, is the same in every resample. Its
/// interval is then that of Clopper and Pearson, "The Use of Confidence or
/// Fiducial Limits Illustrated in the Case of the Binomial", Biometrika 26,
/// 1934: [0, 1 − (α/2)^(1/n)], or one minus that.
fn exact(estimate: Estimate, items: usize, confidence: f64) -> Estimate {
    let far = 1.0 - ((1.0 - confidence) / 2.0).powf(1.0 / items as f64);
    let (low, high) = match estimate.value {
        0.0 => (0.0, far),
        1.0 => (1.0 - far, 1.0),
        _ => return estimate,
    };
    Estimate {
        low: Some(low),
        high: Some(high),
        ..estimate
    }
}

#[cfg(test)]
pub(super) mod tests;
