//! How much of each domain's expert output the kept experts carry, and the
//! mixture under which the worst domain keeps most.
//!
//! The coverage of domain d is Σ_{kept} Σ_x g_j‖f_j‖ / Σ_{all} Σ_x g_j‖f_j‖,
//! over the tokens x of d and the MoE layers that stay; between 0 and 1. What
//! a mixture keeps on average can hide that one domain loses most of its
//! output; [`balance`] searches the weights that a criterion sees for the
//! largest minimum over domains. Scores and selection are unchanged, so a plan
//! made with the weights found, given by hand, is the same plan.
//!
//! Shapes: Σ g‖f‖ [D, L, E] and kept experts → coverage [D].

use router_stats::observer::expert::GATED_NORM;
use router_stats::stats::Stats;

use super::LayerPlan;
use crate::error::Result;

/// Mixtures tried.
const ROUNDS: u32 = 100;

/// How strongly the first correction of a weight answers a domain's coverage
/// being below the mean: e^(8 · 0.1) ≈ 2.2 for ten points. Later ones answer
/// less, as 1/√round.
const STEP: f64 = 8.0;

/// Digits after the point of the weights tried, so that they can be typed.
const DIGITS: f64 = 1e3;

/// The coverage of every domain; `None` for one without routed output.
///
/// # Errors
/// If `stats` lack the sums.
pub(super) fn coverage(stats: &Stats, layers: &[LayerPlan]) -> Result<Vec<Option<f64>>> {
    let sums = stats.table(GATED_NORM)?;
    let staying = || layers.iter().filter(|layer| layer.keeps_mlp());
    let of_domain = |domain: usize| {
        let (mut kept, mut all) = (0.0, 0.0);
        for layer in staying() {
            let row = sums.row(&[domain, layer.layer]);
            kept += layer.kept.iter().map(|&expert| row[expert]).sum::<f64>();
            all += row.iter().sum::<f64>();
        }
        (all > 0.0).then(|| kept / all)
    };
    Ok((0..stats.provenance.domains.len()).map(of_domain).collect())
}

/// Weights under which the domain that `coverage` says is covered least is
/// covered most: of [`ROUNDS`] mixtures the best, the given one if none is
/// better. Domains that weigh nothing keep doing so.
///
/// Each round multiplies a domain's weight by e^(η·(mean − coverage)), the
/// multiplicative weights that solve max-min problems (Arora, Hazan and Kale,
/// "The Multiplicative Weights Update Method", 2012).
///
/// # Errors
/// Those of `coverage`.
pub(super) fn balance(
    weights: &[f64],
    mut coverage: impl FnMut(&[f64]) -> Result<Vec<Option<f64>>>,
) -> Result<Vec<f64>> {
    let total: f64 = weights.iter().sum();
    let mut tried = weights.to_vec();
    let mut best: Option<(f64, Vec<f64>)> = None;
    for round in 1..=ROUNDS {
        let covered: Vec<Option<f64>> = coverage(&tried)?
            .into_iter()
            .zip(&tried)
            .map(|(covered, &weight)| covered.filter(|_| weight > 0.0))
            .collect();
        let shares = || covered.iter().flatten();
        let count = shares().count();
        let worst = shares().copied().fold(f64::INFINITY, f64::min);
        if best.as_ref().is_none_or(|(least, _)| worst > *least) {
            best = Some((worst, tried.clone()));
        }
        if count < 2 {
            break;
        }
        let mean = shares().sum::<f64>() / count as f64;
        let step = STEP / f64::from(round).sqrt();
        for (weight, covered) in tried.iter_mut().zip(&covered) {
            *weight *= covered.map_or(1.0, |covered| (step * (mean - covered)).exp());
        }
        let scale = total / tried.iter().sum::<f64>();
        for weight in tried.iter_mut().filter(|weight| **weight > 0.0) {
            *weight = ((*weight * scale * DIGITS).round() / DIGITS).max(1.0 / DIGITS);
        }
    }
    Ok(best.map_or_else(|| weights.to_vec(), |(_, weights)| weights))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture;

    #[test]
    fn coverage_is_the_kept_share_of_each_domain() {
        let stats = fixture::stats("x");
        let layers = fixture::half().plan().layers.clone();
        let shares = coverage(&stats, &layers).unwrap();
        let sums = &stats.tables[GATED_NORM];
        for (domain, share) in shares.into_iter().enumerate() {
            let sum = |pick: &dyn Fn(&LayerPlan) -> Vec<usize>| -> f64 {
                let of = |layer: &LayerPlan| -> f64 {
                    let row = sums.row(&[domain, layer.layer]);
                    pick(layer).into_iter().map(|expert| row[expert]).sum()
                };
                layers.iter().map(of).sum()
            };
            let (kept, removed) = (sum(&|l| l.kept.clone()), sum(&|l| l.removed.clone()));
            assert!((share.unwrap() - kept / (kept + removed)).abs() < 1e-12);
        }
    }

    #[test]
    fn a_domain_without_output_has_no_coverage() {
        let mut stats = fixture::stats("x");
        let sums = stats.tables.get_mut(GATED_NORM).unwrap();
        sums.row_mut(&[0]).fill(0.0);
        let shares = coverage(&stats, &fixture::half().plan().layers).unwrap();
        assert_eq!(shares[0], None);
        assert!(shares[1].is_some());
    }

    /// Two domains share one budget: each is covered by its part of the weight.
    fn shared(weights: &[f64]) -> Result<Vec<Option<f64>>> {
        let total: f64 = weights.iter().sum();
        Ok(weights.iter().map(|weight| Some(weight / total)).collect())
    }

    #[test]
    fn the_worst_domain_gains_until_none_is_worse() {
        let found = balance(&[9.0, 1.0], shared).unwrap();
        let worst = |weights: &[f64]| weights.iter().copied().fold(f64::INFINITY, f64::min);
        assert!(worst(&found) > 4.9, "{found:?}");
        assert!(
            found.iter().all(|w| (w * DIGITS).fract() < 1e-9),
            "{found:?}"
        );
    }

    #[test]
    fn weights_stay_if_nothing_is_better_and_where_they_are_zero() {
        assert_eq!(balance(&[1.0, 1.0], shared).unwrap(), [1.0, 1.0]);
        let alone = balance(&[2.0, 0.0], |_| Ok(vec![Some(0.3), Some(0.0)])).unwrap();
        assert_eq!(alone, [2.0, 0.0]);
        let even = balance(&[3.0, 1.0, 0.0], |_| Ok(vec![Some(0.5), Some(0.5), None])).unwrap();
        assert_eq!(even, [3.0, 1.0, 0.0]);
    }
}
