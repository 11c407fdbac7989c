//! What a sweep says once its seeds are taken together.
//!
//! Points that differ in their seed alone are one [`Cell`], whose numbers are
//! means over seeds with an interval for what chance does to them: that is
//! [`super::uncertain`]'s. This file owns which points belong together, and which
//! compete with each other.

use std::collections::BTreeMap;

use serde::Serialize;

use super::cliff::{self, Cliff};
use super::point::axis;
use super::uncertain::Uncertain;
use super::{Line, Point, Size, Sweep, Worst};
use crate::compare::{holm, Cluster, Spread};
use crate::evaluator::{Statistic, EVALUATORS};
use crate::report::{Estimates, Model, Report};

/// The evaluator whose contrasts rank cells: nats per token.
const RANKED_BY: &str = "nll";

/// A sweep with its seeds taken together.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Whatever a result depends on beside its point.
    pub settings: BTreeMap<String, String>,
    /// The model as it is.
    pub size: Size,
    /// Coverage of the intervals.
    pub confidence: f64,
    /// In the order of their first line.
    pub cells: Vec<Cell>,
    /// Where quality falls off, of every series long enough to tell.
    pub cliffs: Vec<Cliff>,
}

/// The points that differ in their seed alone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cell {
    /// Their coordinates without the seed.
    pub point: Point,
    /// Seeds.
    pub seeds: usize,
    /// Mean size.
    pub size: Size,
    /// Every metric, domains mixed by weight.
    pub all: Estimates,
    /// Every metric by domain.
    pub domains: BTreeMap<String, Estimates>,
    /// The domain whose mean perplexity rises most.
    pub worst: Option<Worst>,
    /// How it stands among its rivals, the cells that remove as much and are
    /// calibrated on the same; `None` if it has none, or if too little text
    /// tells.
    pub rank: Option<Rank>,
}

/// How a cell stands among its rivals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rank {
    /// It loses least.
    Best,
    /// It loses more than the best, which chance explains.
    NotDistinguishable,
    /// It loses more than the best.
    Worse,
}

impl Sweep {
    /// Takes seeds together, finds cliffs and tells which differences chance
    /// explains.
    pub fn summary(&self) -> Summary {
        let base = &self.header.base;
        let groups = groups(&self.lines, &[axis::SEED]);
        let mut cells: Vec<Cell> = groups
            .iter()
            .map(|(point, lines)| cell(base, point.clone(), lines))
            .collect();
        mark(base, &groups, &mut cells);
        Summary {
            settings: self.header.settings.clone(),
            size: self.header.size,
            confidence: base.provenance.bootstrap.confidence,
            cliffs: cliff::cliffs(base, &self.lines),
            cells,
        }
    }
}

/// Lines by their point without some of its coordinates, in order.
pub(super) fn groups<'a>(lines: &'a [Line], without: &[&str]) -> Vec<(Point, Vec<&'a Line>)> {
    let mut groups: Vec<(Point, Vec<&Line>)> = Vec::new();
    for line in lines {
        let rest = line.point.without(without);
        match groups.iter_mut().find(|(point, _)| *point == rest) {
            Some((_, members)) => members.push(line),
            None => groups.push((rest, vec![line])),
        }
    }
    groups
}

fn cell(base: &Report, point: Point, lines: &[&Line]) -> Cell {
    let models: Vec<&Model> = lines.iter().map(|line| &line.model).collect();
    let mean = mean_model(&models);
    let mut all = Estimates::new();
    let mut domains: BTreeMap<String, Estimates> = base
        .domains()
        .map(|domain| (domain.name.clone(), Estimates::new()))
        .collect();
    let confidence = base.provenance.bootstrap.confidence;
    for evaluator in EVALUATORS {
        let outcomes = Outcomes::new(base, &mean, &base.reference, evaluator.name());
        for metric in evaluator.metrics() {
            let one = |domain: Option<&str>| {
                let seeds: Vec<f64> = models
                    .iter()
                    .filter_map(|model| model.estimate(metric.name, domain))
                    .map(|estimate| metric.statistic.contrast_of(estimate.value))
                    .collect();
                let text = outcomes.spread(domain, metric.statistic);
                Uncertain::new(text, &seeds).estimate(metric.statistic, confidence)
            };
            all.insert(metric.name.to_owned(), one(None));
            for (domain, estimates) in &mut domains {
                estimates.insert(metric.name.to_owned(), one(Some(domain)));
            }
        }
    }
    let worst = worst(&domains);
    let sizes = |of: fn(&Size) -> u64| {
        let sum: u64 = lines.iter().map(|line| of(&line.size)).sum();
        sum / lines.len().max(1) as u64
    };
    Cell {
        point,
        seeds: lines.len(),
        size: Size {
            parameters: sizes(|size| size.parameters),
            active_parameters: sizes(|size| size.active_parameters),
            bytes: sizes(|size| size.bytes),
        },
        all,
        domains,
        worst,
        rank: None,
    }
}

fn worst(domains: &BTreeMap<String, Estimates>) -> Option<Worst> {
    let change = |estimates: &Estimates| {
        estimates
            .get("perplexity_change")
            .map_or(f64::NEG_INFINITY, |estimate| estimate.value)
    };
    let (domain, estimates) = domains
        .iter()
        .max_by(|(_, a), (_, b)| change(a).total_cmp(&change(b)))
        .filter(|_| domains.len() > 1)?;
    Some(Worst {
        domain: domain.clone(),
        estimates: estimates.clone(),
    })
}

/// Compares every cell with the best of its rivals: seeds in pairs, on the same
/// text, corrected by Holm for the number of rivals.
fn mark(base: &Report, groups: &[(Point, Vec<&Line>)], cells: &mut [Cell]) {
    const COMMON: [&str; 4] = [
        axis::PRUNE_EXPERTS,
        axis::DROP_LAYERS,
        axis::QUANTIZE,
        axis::CALIBRATE_ON,
    ];
    let budget = |point: &Point| COMMON.map(|axis| point.get(axis).cloned());
    let loss = |cell: &Cell| cell.all.get("nll").map_or(f64::INFINITY, |it| it.value);
    let level = 1.0 - base.provenance.bootstrap.confidence;
    let mut done = Vec::new();
    for first in 0..cells.len() {
        let asked = budget(&cells[first].point);
        if done.contains(&asked) {
            continue;
        }
        let rivals: Vec<usize> = (first..cells.len())
            .filter(|&index| budget(&cells[index].point) == asked)
            .collect();
        done.push(asked);
        let Some(&best) = rivals
            .iter()
            .min_by(|&&a, &&b| loss(&cells[a]).total_cmp(&loss(&cells[b])))
        else {
            continue;
        };
        let others: Vec<usize> = rivals.into_iter().filter(|&index| index != best).collect();
        let p: Vec<f64> = others
            .iter()
            .map(|&index| difference(base, &groups[index].1, &groups[best].1))
            .map(|difference| difference.and_then(|it| it.p_value()).unwrap_or(f64::NAN))
            .collect();
        for (&index, p) in others.iter().zip(holm(&p)) {
            if p.is_nan() {
                continue;
            }
            cells[best].rank = Some(Rank::Best);
            cells[index].rank = Some(match p > level {
                true => Rank::NotDistinguishable,
                false => Rank::Worse,
            });
        }
    }
}

/// Nats per token that one cell loses beyond another, over the seeds that both
/// have. `None` if they have none in common.
fn difference(base: &Report, left: &[&Line], right: &[&Line]) -> Option<Uncertain> {
    let seed = |line: &Line| line.point.get(axis::SEED).cloned();
    let pairs: Vec<(&Model, &Model)> = left
        .iter()
        .filter_map(|a| {
            let b = right.iter().find(|b| seed(b) == seed(a))?;
            Some((&a.model, &b.model))
        })
        .collect();
    let (a, b): (Vec<&Model>, Vec<&Model>) = pairs.iter().copied().unzip();
    if pairs.is_empty() {
        return None;
    }
    let nll = |model: &Model| {
        model
            .estimate(RANKED_BY, None)
            .map_or(f64::NAN, |it| it.value)
    };
    let seeds: Vec<f64> = pairs.iter().map(|(a, b)| nll(a) - nll(b)).collect();
    let text = Outcomes::new(base, &mean_model(&a), &mean_model(&b), RANKED_BY);
    Some(Uncertain::new(
        text.spread(None, Statistic::Difference),
        &seeds,
    ))
}

/// Outcomes of two models by domain.
struct Outcomes<'a>(Vec<(&'a str, f64, Vec<Cluster>)>);

impl<'a> Outcomes<'a> {
    fn new(base: &'a Report, left: &Model, right: &Model, evaluator: &str) -> Self {
        let domains = base.provenance.domains.iter().enumerate();
        let outcomes = domains.map(|(index, domain)| {
            let clusters = base.clusters(index, left, right, evaluator);
            (domain.name.as_str(), domain.weight, clusters)
        });
        Self(outcomes.collect())
    }

    /// Of one domain, or of all mixed by weight.
    fn spread(&self, domain: Option<&str>, statistic: Statistic) -> Spread {
        let strata: Vec<(f64, Vec<Cluster>)> = self
            .0
            .iter()
            .filter_map(|(name, weight, clusters)| match domain {
                None => Some((*weight, clusters.clone())),
                Some(own) => (own == *name).then(|| (1.0, clusters.clone())),
            })
            .collect();
        Spread::new(&strata, statistic)
    }
}

/// A model whose sums are the means of those of `models`.
fn mean_model(models: &[&Model]) -> Model {
    let mut mean = match models.first() {
        Some(first) => (*first).clone(),
        None => return Model::default(),
    };
    for (evaluator, sums) in &mut mean.sums {
        for (sequence, sum) in sums.iter_mut().enumerate() {
            let total: f64 = models
                .iter()
                .filter_map(|model| model.sums.get(evaluator)?.get(sequence))
                .sum();
            *sum = total / models.len() as f64;
        }
    }
    mean
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Estimate;
    use crate::sweep::tests::{line, sweep_of};

    #[test]
    fn seeds_are_one_cell_whose_value_is_their_mean() {
        let lines = vec![
            line(0.25, 0.0, 0.10),
            line(0.25, 1.0, 0.14),
            line(0.25, 2.0, 0.12),
            line(0.5, 0.0, 0.30),
        ];
        let summary = sweep_of(lines.clone()).summary();
        assert_eq!(summary.cells.len(), 2);
        let cell = &summary.cells[0];
        assert_eq!((cell.seeds, cell.point.get(axis::SEED)), (3, None));
        let of = |line: &Line| line.model.estimate("nll_change", None).unwrap().value;
        let mean = lines[..3].iter().map(of).sum::<f64>() / 3.0;
        let found = cell.all["nll_change"];
        assert!((found.value - mean).abs() < 1e-9, "{found:?} {mean}");
        assert!((cell.all["perplexity_change"].value - mean.exp_m1()).abs() < 1e-9);
        // Wider than the text alone makes it.
        let one = lines[2].model.estimate("nll_change", None).unwrap();
        let width = |estimate: &Estimate| estimate.high.unwrap() - estimate.low.unwrap();
        assert!(width(&found) > width(one));
        let worst = cell.worst.as_ref().unwrap();
        let change = |name: &str| cell.domains[name]["perplexity_change"].value;
        assert!(cell
            .domains
            .keys()
            .all(|name| change(name) <= change(&worst.domain)));
        assert!(cell.all.contains_key("top1_agreement"));
    }

    #[test]
    fn rivals_are_marked_by_whether_chance_explains_their_loss() {
        let with = |criterion: &str, seed: f64, loss: f64| {
            let mut line = line(0.25, seed, loss);
            line.point = line.point.text(axis::CRITERION, criterion);
            line
        };
        let mut lines = Vec::new();
        for (seed, extra) in [(0.0, 0.0), (1.0, 0.004), (2.0, -0.004)] {
            lines.push(with("best", seed, 0.1 + extra));
            lines.push(with("close", seed, 0.1001 - extra));
            lines.push(with("far", seed, 0.4 + extra));
        }
        let summary = sweep_of(lines).summary();
        let ranks: Vec<Option<Rank>> = summary.cells.iter().map(|cell| cell.rank).collect();
        let expected = [Rank::Best, Rank::NotDistinguishable, Rank::Worse];
        assert_eq!(ranks, expected.map(Some));
    }
}
