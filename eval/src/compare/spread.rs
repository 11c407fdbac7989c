//! Sampling variance of a mixture of domains, without drawing.
//!
//! The contrast of a domain is a ratio of sums over its documents, r = Σ d / Σ t
//! (d a document's outcomes, or the difference of two models' outcomes, t its
//! tokens). To first order its variance over the choice of documents is
//!
//! ```text
//! v = n / (n − 1) · Σ (d − r·t)² / (Σ t)²
//! ```
//!
//! with n − 1 degrees of freedom; domains are independent, so that variances of a
//! mixture add up with squared weights, and their degrees of freedom by
//! Satterthwaite. The bootstrap of this folder estimates the same; a formula is
//! what can be added to a variance from another source.
//!
//! Sources: Cochran, "Sampling Techniques", 3rd edition, 1977, section 6.3;
//! Satterthwaite, Biometrics Bulletin 2, 1946.

use super::Cluster;
use crate::evaluator::Statistic;

/// A contrast and how far chance moves it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    /// The contrast.
    pub(crate) point: f64,
    /// Its variance; `None` where a domain has a single document, or none.
    pub(crate) variance: Option<f64>,
    /// Degrees of freedom of the variance, at least 1.
    pub(crate) freedom: f64,
}

impl Spread {
    /// Of domains with their weights, which are normalised; those that weigh
    /// nothing are left out. The point is NaN if none is left.
    pub(crate) fn new(domains: &[(f64, Vec<Cluster>)], statistic: Statistic) -> Self {
        let weighed = || {
            domains
                .iter()
                .filter(|(weight, clusters)| *weight > 0.0 && !clusters.is_empty())
        };
        let total: f64 = weighed().map(|(weight, _)| weight).sum();
        let (mut point, mut variance, mut doubt) = (0.0, 0.0, 0.0);
        let mut defined = total > 0.0;
        for (weight, clusters) in weighed() {
            let share = weight / total;
            let outcome = |cluster: &Cluster| statistic.contrast(cluster.left, cluster.right);
            let tokens: f64 = clusters.iter().map(|cluster| cluster.tokens).sum();
            let ratio = clusters.iter().map(outcome).sum::<f64>() / tokens;
            point += share * ratio;
            let n = clusters.len() as f64;
            if clusters.len() < 2 {
                defined = false;
                continue;
            }
            let squares: f64 = clusters
                .iter()
                .map(|cluster| (outcome(cluster) - ratio * cluster.tokens).powi(2))
                .sum();
            let own = share * share * n / (n - 1.0) * squares / (tokens * tokens);
            variance += own;
            doubt += own * own / (n - 1.0);
        }
        let freedom = if doubt > 0.0 {
            (variance * variance / doubt).max(1.0)
        } else {
            1.0
        };
        Self {
            point: if total > 0.0 { point } else { f64::NAN },
            variance: defined.then_some(variance),
            freedom,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::Bootstrap;

    fn clusters(count: usize, phase: f64) -> Vec<Cluster> {
        (0..count)
            .map(|i| {
                let tokens = 100.0 + i as f64;
                let wave = (i as f64 * 1.7 + phase).sin();
                Cluster {
                    tokens,
                    left: tokens * (2.4 + 0.3 * wave),
                    right: tokens * 2.0,
                }
            })
            .collect()
    }

    #[test]
    fn equal_documents_have_the_variance_of_a_mean() {
        let clusters: Vec<Cluster> = [1.0, 2.0, 4.0, 5.0]
            .map(|left| Cluster {
                tokens: 1.0,
                left,
                right: 0.5,
            })
            .to_vec();
        let spread = Spread::new(&[(2.0, clusters)], Statistic::Difference);
        // s² = 10/3 of four: s²/4.
        assert!((spread.point - 2.5).abs() < 1e-12);
        assert!((spread.variance.unwrap() - 10.0 / 12.0).abs() < 1e-12);
        assert!((spread.freedom - 3.0).abs() < 1e-12);
    }

    #[test]
    fn a_mixture_spreads_as_the_bootstrap_says() {
        let domains = [(3.0, clusters(30, 0.0)), (1.0, clusters(20, 1.0))];
        let bootstrap = Bootstrap {
            resamples: 20_000,
            confidence: 0.95,
            seed: 1,
        };
        let drawn: Vec<_> = ["a", "b"]
            .iter()
            .zip(&domains)
            .map(|(name, (weight, own))| (*weight, bootstrap.resample(name, own).unwrap()))
            .collect();
        let strata: Vec<_> = drawn.iter().map(|(weight, own)| (*weight, own)).collect();
        let estimate = bootstrap.estimate(&strata, Statistic::Difference);
        let spread = Spread::new(&domains, Statistic::Difference);
        let half = crate::student::quantile(0.95, spread.freedom) * spread.variance.unwrap().sqrt();
        let (low, high) = estimate.interval().unwrap();
        assert!((spread.point - estimate.value).abs() < 1e-12);
        assert!(
            (2.0 * half / (high - low) - 1.0).abs() < 0.05,
            "{half} {estimate:?}"
        );
    }

    #[test]
    fn a_single_document_has_no_variance_unless_it_weighs_nothing() {
        let one = (1.0, clusters(1, 0.0));
        let many = (1.0, clusters(9, 0.0));
        let of = |domains: &[_]| Spread::new(domains, Statistic::Mean);
        assert_eq!(of(&[one.clone(), many.clone()]).variance, None);
        assert!(of(&[(0.0, one.1), many.clone()]).variance.is_some());
        assert!(of(&[(0.0, many.1)]).point.is_nan());
    }
}
