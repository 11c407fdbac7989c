//! Where quality falls off as more experts go.
//!
//! The loss y (nats per token above the original's) against the fraction x of
//! the experts that goes is fitted by two straight lines that meet:
//!
//! ```text
//! y = a + b·x + c·max(x − ψ, 0)
//! ```
//!
//! ψ is the break. Its interval comes from a bootstrap: in every draw documents
//! (within domains) and seeds are drawn with replacement, n − 1 of n, all points
//! of the series on the same draw, and the lines are fitted again.
//!
//! Sources: Muggeo, "Estimating Regression Models with Unknown Break-Points",
//! Statistics in Medicine 22, 2003 (the model); Davison and Hinkley, "Bootstrap
//! Methods and their Application", 1997, section 3.8 (resampling at two levels).

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::Serialize;

use super::point::axis;
use super::segmented::{fit, Broken};
use super::summary::groups;
use super::{Line, Point};
use crate::compare::{percentile, Cluster, Estimate};
use crate::report::{Model, Report};

/// Fewest fractions, the original not counted, that a break is looked for in:
/// four numbers are fitted.
const FEWEST: usize = 6;
/// The evaluator whose contrast is the loss.
const LOSS: &str = "nll";

/// Two lines through the loss of a series.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cliff {
    /// What the points of the series have in common.
    pub point: Point,
    /// Fractions that were measured, the original's 0 included, and the mean
    /// loss at each, in nats per token.
    pub series: Vec<(f64, f64)>,
    /// Seeds of the series.
    pub seeds: usize,
    /// Fraction of the experts at which the lines meet.
    pub fraction: Estimate,
    /// Loss there, by the lines.
    pub loss: f64,
    /// Nats per token and fraction before the break.
    pub before: Estimate,
    /// The same beyond it.
    pub beyond: Estimate,
}

/// The cliff of every series of enough fractions.
pub(super) fn cliffs(base: &Report, lines: &[Line]) -> Vec<Cliff> {
    groups(lines, &[axis::SEED, axis::PRUNE_EXPERTS])
        .into_iter()
        .filter_map(|(point, lines)| cliff(base, point, &lines))
        .collect()
}

fn cliff(base: &Report, point: Point, lines: &[&Line]) -> Option<Cliff> {
    let series = Series::new(base, lines)?;
    let whole = series.losses(&Draw::everything(&series));
    let fitted = fit(&series.fractions, &whole)?;
    let bootstrap = &base.provenance.bootstrap;
    let drawn: Vec<Broken> = (0..bootstrap.resamples)
        .into_par_iter()
        .filter_map(|draw| {
            let mut rng = ChaCha8Rng::seed_from_u64(bootstrap.seed);
            rng.set_stream(draw as u64);
            let draw = Draw::random(&series, &mut rng)?;
            fit(&series.fractions, &series.losses(&draw))
        })
        .collect();
    let tail = (1.0 - bootstrap.confidence) / 2.0;
    let estimate = |of: fn(&Broken) -> f64| {
        let mut values: Vec<f64> = drawn.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        let end = |share: f64| (!values.is_empty()).then(|| percentile(&values, share));
        Estimate {
            value: of(&fitted),
            low: end(tail),
            high: end(1.0 - tail),
        }
    };
    Some(Cliff {
        point,
        seeds: series.seeds,
        fraction: estimate(|it| it.at),
        loss: fitted.level,
        before: estimate(|it| it.before),
        beyond: estimate(|it| it.beyond),
        series: series.fractions.iter().copied().zip(whole).collect(),
    })
}

/// Outcomes of a series by fraction, seed, domain and document.
struct Series {
    /// Ascending, from 0.
    fractions: Vec<f64>,
    seeds: usize,
    /// Weights of the domains that have one.
    weights: Vec<f64>,
    /// [fractions][seeds][domains][documents]; none of the original.
    clusters: Vec<Vec<Vec<Vec<Cluster>>>>,
}

/// Which documents of each domain, and which seeds, count how often.
struct Draw {
    documents: Vec<Vec<usize>>,
    seeds: Vec<usize>,
}

impl Series {
    /// `None` if there are too few fractions. Seeds that not every fraction has
    /// are left out.
    fn new(base: &Report, lines: &[&Line]) -> Option<Self> {
        let fraction = |line: &Line| line.point.number_of(axis::PRUNE_EXPERTS);
        let mut fractions: Vec<f64> = lines.iter().filter_map(|line| fraction(line)).collect();
        fractions.sort_by(f64::total_cmp);
        fractions.dedup();
        if fractions.len() < FEWEST {
            return None;
        }
        let mut seeds: Vec<_> = Vec::new();
        for line in lines {
            let seed = line.point.get(axis::SEED);
            if !seeds.contains(&seed) {
                seeds.push(seed);
            }
        }
        let at = |x: f64, seed| {
            lines
                .iter()
                .find(|line| fraction(line) == Some(x) && line.point.get(axis::SEED) == seed)
                .map(|line| &line.model)
        };
        seeds.retain(|&seed| fractions.iter().all(|&x| at(x, seed).is_some()));
        if seeds.is_empty() {
            return None;
        }
        let domains: Vec<(usize, f64)> = base
            .provenance
            .domains
            .iter()
            .enumerate()
            .filter(|(_, domain)| domain.sequences > 0 && domain.weight > 0.0)
            .map(|(index, domain)| (index, domain.weight))
            .collect();
        let clusters_of = |model: &Model| -> Vec<Vec<Cluster>> {
            domains
                .iter()
                .map(|&(index, _)| base.clusters(index, model, &base.reference, LOSS))
                .collect()
        };
        let clusters = fractions
            .iter()
            .map(|&x| {
                seeds
                    .iter()
                    .filter_map(|&seed| at(x, seed))
                    .map(clusters_of)
                    .collect()
            })
            .collect();
        fractions.insert(0, 0.0);
        Some(Self {
            fractions,
            seeds: seeds.len(),
            weights: domains.iter().map(|&(_, weight)| weight).collect(),
            clusters,
        })
    }

    /// Documents of every domain.
    fn documents(&self) -> impl Iterator<Item = usize> + '_ {
        let first = self.clusters.first().and_then(|seeds| seeds.first());
        first.into_iter().flatten().map(Vec::len)
    }

    /// Mean loss at every fraction, the original's 0 first.
    fn losses(&self, draw: &Draw) -> Vec<f64> {
        let one = |domains: &[Vec<Cluster>]| -> f64 {
            let total: f64 = self.weights.iter().sum();
            let parts = domains.iter().zip(&draw.documents).zip(&self.weights);
            parts
                .map(|((clusters, drawn), weight)| {
                    let (mut lost, mut tokens) = (0.0, 0.0);
                    for &document in drawn {
                        lost += clusters[document].left - clusters[document].right;
                        tokens += clusters[document].tokens;
                    }
                    weight / total * lost / tokens
                })
                .sum()
        };
        let mean = |seeds: &Vec<Vec<Vec<Cluster>>>| {
            let sum: f64 = draw.seeds.iter().map(|&seed| one(&seeds[seed])).sum();
            sum / draw.seeds.len() as f64
        };
        std::iter::once(0.0)
            .chain(self.clusters.iter().map(mean))
            .collect()
    }
}

impl Draw {
    fn everything(series: &Series) -> Self {
        Self {
            documents: series
                .documents()
                .map(|count| (0..count).collect())
                .collect(),
            seeds: (0..series.seeds).collect(),
        }
    }

    /// `None` if a domain has a single document.
    fn random(series: &Series, rng: &mut ChaCha8Rng) -> Option<Self> {
        let mut some = |count: usize| -> Vec<usize> {
            (1..count).map(|_| rng.random_range(0..count)).collect()
        };
        let documents: Vec<Vec<usize>> = series.documents().map(&mut some).collect();
        let seeds = if series.seeds == 1 {
            vec![0]
        } else {
            some(series.seeds)
        };
        documents
            .iter()
            .all(|drawn| !drawn.is_empty())
            .then_some(Self { documents, seeds })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::tests::{line, sweep_of};

    /// Losses that rise slowly to `break_at`, then fast, for two seeds.
    fn series(break_at: f64) -> Vec<Line> {
        let mut lines = Vec::new();
        for seed in [0.0, 1.0] {
            for step in 1..=14 {
                let x = f64::from(step) / 16.0;
                let loss = 0.1 * x + 2.0 * (x - break_at).max(0.0) + 0.004 * seed * x;
                lines.push(line(x, seed, loss));
            }
        }
        lines
    }

    #[test]
    fn a_planted_break_is_found_within_its_interval() {
        let summary = sweep_of(series(0.55)).summary();
        assert_eq!(summary.cliffs.len(), 1);
        let cliff = &summary.cliffs[0];
        assert_eq!((cliff.series.len(), cliff.seeds), (15, 2));
        assert_eq!(cliff.point.get(axis::PRUNE_EXPERTS), None);
        let (low, high) = cliff.fraction.interval().unwrap();
        assert!((cliff.fraction.value - 0.55).abs() < 0.01, "{cliff:?}");
        assert!(low <= cliff.fraction.value && cliff.fraction.value <= high);
        assert!(low > 0.53 && high < 0.57, "{cliff:?}");
        assert!(cliff.before.value > 0.0 && cliff.beyond.value > 5.0 * cliff.before.value);
    }

    #[test]
    fn a_few_points_have_no_break() {
        let lines: Vec<Line> = series(0.55).into_iter().take(FEWEST - 1).collect();
        assert!(sweep_of(lines).summary().cliffs.is_empty());
    }

    #[test]
    fn seeds_that_are_not_complete_are_left_out() {
        let mut lines = series(0.55);
        lines.pop();
        let summary = sweep_of(lines).summary();
        assert_eq!(summary.cliffs[0].seeds, 1);
        assert_eq!(summary.cliffs[0].series.len(), 15);
    }
}
