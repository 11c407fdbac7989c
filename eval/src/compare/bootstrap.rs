//! Paired cluster bootstrap, stratified by domain.
//!
//! Tokens of one document are not independent, so documents are resampled,
//! not tokens: a cluster is what sequences of one document have together, and
//! a mean is the ratio estimator Σ outcomes / Σ tokens of the clusters drawn.
//! Two models are compared on the same draws, which cancels what is hard about
//! the text itself.
//!
//! Sources: Efron and Tibshirani, "An Introduction to the Bootstrap", 1993,
//! chapter 13 (percentile intervals) and 15 (tests that invert them); Davison
//! and Hinkley, "Bootstrap Methods and their Application", 1997, chapter 4
//! (p = (b + 1) / (B + 1)); Koehn, "Statistical Significance Tests for Machine
//! Translation Evaluation", EMNLP 2004 (paired bootstrap); McCarthy and
//! Snowden, "The Bootstrap and Finite Population Sampling", 1985 (n − 1 draws
//! from n, so that the variance is unbiased); Hesterberg, "What Teachers
//! Should Know About the Bootstrap", 2015 (percentile intervals are too narrow
//! for small n by the ratio of Student's to the normal quantile).

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Estimate;
use crate::evaluator::Statistic;
use crate::student;

/// Resamples unless told otherwise.
pub const RESAMPLES: usize = 2000;
/// Coverage of an interval unless told otherwise.
pub const CONFIDENCE: f64 = 0.95;

/// The summed outcomes of one document under two models.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cluster {
    /// Predicted tokens; positive.
    pub tokens: f64,
    /// Σ outcomes of the model in question.
    pub left: f64,
    /// Σ outcomes of the model it is compared with.
    pub right: f64,
}

/// How to resample.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bootstrap {
    /// Draws.
    pub resamples: usize,
    /// Coverage of the interval, between 0 and 1.
    pub confidence: f64,
    /// Equal seeds give equal draws.
    pub seed: u64,
}

/// Mean outcome per token of both models.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Means {
    left: f64,
    right: f64,
}

/// The means of one domain, from all its clusters and from every draw.
#[derive(Debug, Clone, PartialEq)]
pub struct Resampled {
    point: Means,
    /// Empty for a single cluster.
    draws: Vec<Means>,
    clusters: usize,
}

impl Bootstrap {
    /// Draws clusters of one domain with replacement, n − 1 of n. `None` if
    /// there are none.
    ///
    /// The result depends on the seed, the domain's name and the set of
    /// clusters: neither on their order nor on the number of threads.
    pub fn resample(&self, domain: &str, clusters: &[Cluster]) -> Option<Resampled> {
        let mut clusters = clusters.to_vec();
        clusters.sort_by(|a, b| {
            let by_size = a.tokens.total_cmp(&b.tokens);
            by_size
                .then(a.left.total_cmp(&b.left))
                .then(a.right.total_cmp(&b.right))
        });
        let point = means(clusters.iter())?;
        let count = clusters.len();
        let draws = if count < 2 { 0 } else { self.resamples };
        let key = key(self.seed, domain);
        let draws = (0..draws)
            .into_par_iter()
            .with_min_len(64)
            .map(|draw| {
                let mut rng = ChaCha8Rng::from_seed(key);
                rng.set_stream(draw as u64);
                means((1..count).map(|_| &clusters[rng.random_range(0..count)])).unwrap_or(point)
            })
            .collect();
        Some(Resampled {
            point,
            draws,
            clusters: count,
        })
    }

    /// A statistic of several domains mixed by weight, or of one domain.
    ///
    /// Weights are normalised. The contrast (mean outcome, or difference of
    /// mean outcomes) of the mixture is Σ_d w_d·contrast_d, so that a large
    /// domain does not hide a small one; a perplexity is the exponential of
    /// the mixed mean. The interval is the percentile interval of the
    /// contrast, widened about its centre by the ratio of Student's to the
    /// normal quantile (degrees of freedom by Welch and Satterthwaite), then
    /// transformed. NaN if no stratum has a positive weight.
    pub fn estimate(&self, strata: &[(f64, &Resampled)], statistic: Statistic) -> Estimate {
        let mixture = Mixture::new(strata, statistic);
        let end = |share: f64| {
            let (point, draws) = (mixture.point, mixture.draws.as_ref()?);
            let widened =
                point + mixture.widening(self.confidence) * (percentile(draws, share) - point);
            Some(statistic.transform(widened))
        };
        let tail = (1.0 - self.confidence) / 2.0;
        Estimate {
            value: statistic.transform(mixture.point),
            low: end(tail),
            high: end(1.0 - tail),
        }
    }

    /// Two-sided p-value of a contrast of zero, `strata` and `statistic` being
    /// as in [`Bootstrap::estimate`]. `None` where the interval is undefined.
    ///
    /// It is the lowest of 2(b + 1) / (B + 1), b = 0, 1, …, whose interval
    /// leaves out zero, where B is the number of draws and b of them lie
    /// beyond the interval's end: never below 2 / (B + 1), and 1 where no
    /// interval leaves out zero.
    pub fn p_value(&self, strata: &[(f64, &Resampled)], statistic: Statistic) -> Option<f64> {
        let mixture = Mixture::new(strata, statistic);
        let (point, draws) = (mixture.point, mixture.draws.as_ref()?);
        let p_of = |beyond: usize| 2.0 * (beyond + 1) as f64 / (draws.len() + 1) as f64;
        let leaves_out_zero = |beyond: usize| {
            // Where zero is before draws are widened about the point.
            let zero = point - point / mixture.widening(1.0 - p_of(beyond));
            let below = draws.partition_point(|&draw| draw <= zero);
            let above = draws.len() - draws.partition_point(|&draw| draw < zero);
            (point > 0.0 && below <= beyond) || (point < 0.0 && above <= beyond)
        };
        // Narrower intervals leave out more: a bisection.
        let (mut lowest, mut end) = (0, draws.len() / 2);
        while lowest < end {
            let middle = lowest + (end - lowest) / 2;
            if leaves_out_zero(middle) {
                end = middle;
            } else {
                lowest = middle + 1;
            }
        }
        Some(if lowest < draws.len() / 2 {
            p_of(lowest)
        } else {
            1.0
        })
    }
}

/// Domains mixed by weight, as one contrast.
struct Mixture {
    point: f64,
    /// Sorted; `None` if a domain has no draws, or if there is no domain.
    draws: Option<Vec<f64>>,
    /// Degrees of freedom of Student's t.
    freedom: f64,
}

impl Mixture {
    /// Normalises weights; strata that weigh nothing are left out.
    fn new(strata: &[(f64, &Resampled)], statistic: Statistic) -> Self {
        let total: f64 = strata.iter().map(|(weight, _)| weight).sum();
        let strata: Vec<Stratum> = strata
            .iter()
            .filter(|(weight, _)| *weight > 0.0)
            .map(|(weight, resampled)| Stratum::new(weight / total, resampled, statistic))
            .collect();
        if strata.is_empty() || strata.iter().any(|stratum| stratum.draws.is_empty()) {
            let point = strata.iter().map(|stratum| stratum.point);
            return Self {
                point: point.reduce(|sum, point| sum + point).unwrap_or(f64::NAN),
                draws: None,
                freedom: 1.0,
            };
        }
        let mut draws: Vec<f64> = (0..strata[0].draws.len())
            .map(|draw| strata.iter().map(|stratum| stratum.draws[draw]).sum())
            .collect();
        draws.sort_by(f64::total_cmp);
        Self {
            point: strata.iter().map(|stratum| stratum.point).sum(),
            draws: Some(draws),
            freedom: freedom(&strata),
        }
    }

    /// Student's quantile over the normal one.
    fn widening(&self, confidence: f64) -> f64 {
        student::quantile(confidence, self.freedom) / student::normal_quantile(confidence)
    }
}

/// One domain's part of a mixture, in weighted contrasts.
struct Stratum {
    point: f64,
    draws: Vec<f64>,
    clusters: usize,
}

impl Stratum {
    fn new(weight: f64, resampled: &Resampled, statistic: Statistic) -> Self {
        let contrast = |means: &Means| weight * statistic.contrast(means.left, means.right);
        Self {
            point: contrast(&resampled.point),
            draws: resampled.draws.iter().map(contrast).collect(),
            clusters: resampled.clusters,
        }
    }

    fn variance(&self) -> f64 {
        let n = self.draws.len() as f64;
        let mean = self.draws.iter().sum::<f64>() / n;
        self.draws
            .iter()
            .map(|draw| (draw - mean).powi(2))
            .sum::<f64>()
            / n
    }
}

/// Degrees of freedom of a sum of independent estimates: (Σ s²)² / Σ s⁴/(n−1)
/// (Satterthwaite 1946; Welch 1947).
fn freedom(strata: &[Stratum]) -> f64 {
    let (mut total, mut squares) = (0.0, 0.0);
    for stratum in strata {
        let variance = stratum.variance();
        total += variance;
        squares += variance * variance / (stratum.clusters - 1) as f64;
    }
    // Without any variance the interval is a point, however it is widened.
    if squares > 0.0 {
        (total * total / squares).max(1.0)
    } else {
        1.0
    }
}

/// Ratio estimators over the given clusters; `None` if there are none.
fn means<'a>(clusters: impl Iterator<Item = &'a Cluster>) -> Option<Means> {
    let (mut tokens, mut left, mut right) = (0.0, 0.0, 0.0);
    for cluster in clusters {
        tokens += cluster.tokens;
        left += cluster.left;
        right += cluster.right;
    }
    (tokens > 0.0).then(|| Means {
        left: left / tokens,
        right: right / tokens,
    })
}

/// Linear interpolation between order statistics of a non-empty sorted list.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let position = share * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (position - below as f64) * (sorted[above] - sorted[below])
}

/// Domains draw independently, and each does so wherever it stands in a list:
/// the key is the seed and the FNV-1a hash of the name.
fn key(seed: u64, domain: &str) -> [u8; 32] {
    let hash = domain
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&hash.to_le_bytes());
    key
}

#[cfg(test)]
mod tests;
