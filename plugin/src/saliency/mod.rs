//! How much each expert matters: layer statistics → one score per expert.
//!
//! A criterion is one file that implements [`Criterion`] and one line in
//! [`CRITERIA`]. It owns an equation. It does not own how many experts go
//! ([`crate::allocate`]) nor what must stay whatever its score
//! ([`crate::plan`]): exclusions are constraints, never infinite scores.
//!
//! Notation: expert j, token x; g_j(x) is the gate value, the weight that the
//! model really applies after its top-k and renormalisation; f_j(x) is the
//! expert's output before that weight; N_j counts the tokens routed to j. All
//! sums run over routed tokens and over domains, weighted by the mixture.

mod ean;
mod frequency;
mod gate_mass;
mod man;
mod msan;
mod random;
mod ranking;
mod reap;
#[cfg(test)]
mod routers;
mod soft_gate;

pub use ranking::Ranking;
use router_stats::stats::LayerStats;

use crate::registry::find;
use crate::Result;

/// Every criterion, the default first.
pub const CRITERIA: &[&dyn Criterion] = &[
    &reap::Reap,
    &ean::Ean,
    &man::Man,
    &msan::Msan,
    &gate_mass::GateMass,
    &soft_gate::SoftGate,
    &frequency::Frequency,
    &random::Random,
];

/// Scores the experts of a layer.
pub trait Criterion: Sync + std::fmt::Debug {
    /// Name on the command line and in plans: `gate-mass`.
    fn name(&self) -> &'static str;

    /// One line for lists.
    fn about(&self) -> &'static str;

    /// Where it comes from.
    fn source(&self) -> &'static str;

    /// One score per expert of `layer`; the higher, the more it matters.
    /// Scores compare within a layer, and are finite if the statistics are.
    /// `seed` only matters to criteria that draw at random.
    fn score(&self, layer: &LayerStats, seed: u64) -> Vec<f64>;
}

/// Finds a criterion by name.
///
/// # Errors
/// [`Error::Unknown`](crate::Error::Unknown) with the known names.
pub fn criterion(name: &str) -> Result<&'static dyn Criterion> {
    find("criterion", CRITERIA, Criterion::name, name)
}

/// Sums divided by counts, element by element. An expert that no token was
/// routed to has no mean: it scores 0, the least that a mean of norms can be.
fn mean(sums: &[f64], counts: &[f64]) -> Vec<f64> {
    sums.iter()
        .zip(counts)
        .map(|(&sum, &count)| if count > 0.0 { sum / count } else { 0.0 })
        .collect()
}

#[cfg(test)]
pub(crate) mod testing {
    use router_stats::stats::LayerStats;

    /// Statistics of three experts: one with few tokens and large outputs, one
    /// with many and small ones, one that was never routed to.
    pub(crate) fn three_experts() -> LayerStats {
        LayerStats {
            layer: 2,
            experts: 3,
            tokens: 10.0,
            count: vec![2.0, 8.0, 0.0],
            gate: vec![1.5, 4.0, 0.0],
            gate_sq: vec![1.25, 2.5, 0.0],
            soft_gate: vec![3.0, 6.0, 1.0],
            norm: vec![12.0, 16.0, 0.0],
            norm_sq: vec![80.0, 40.0, 0.0],
            gated_norm: vec![9.0, 8.0, 0.0],
            gated_norm_sq: vec![41.0, 10.0, 0.0],
            max: vec![7.0, 1.0, 0.0],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        let names: BTreeSet<_> = CRITERIA.iter().map(|c| c.name()).collect();
        assert_eq!(names.len(), CRITERIA.len());
        for name in names {
            assert_eq!(criterion(name).unwrap().name(), name);
        }
        for described in CRITERIA {
            assert!(!described.about().is_empty() && !described.source().is_empty());
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known() {
        let error = criterion("reep").unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("unknown criterion `reep`; known: reap, ean, "),
            "{error}"
        );
    }

    #[test]
    fn zero_counts_score_finitely() {
        let mut silent = testing::three_experts();
        silent.tokens = 0.0;
        for sums in columns(&mut silent) {
            sums.fill(0.0);
        }
        for criterion in CRITERIA {
            let scores = criterion.score(&silent, 0);
            assert_eq!(scores.len(), 3, "{}", criterion.name());
            assert!(
                scores.iter().all(|score| score.is_finite()),
                "{}",
                criterion.name()
            );
        }
    }

    fn columns(stats: &mut LayerStats) -> [&mut Vec<f64>; 9] {
        [
            &mut stats.count,
            &mut stats.gate,
            &mut stats.gate_sq,
            &mut stats.soft_gate,
            &mut stats.norm,
            &mut stats.norm_sq,
            &mut stats.gated_norm,
            &mut stats.gated_norm_sq,
            &mut stats.max,
        ]
    }

    /// Plausible statistics of `rows.len()` experts: an expert has either
    /// tokens and sums over them, or neither.
    fn layer_stats(rows: &[(u32, [f64; 8])]) -> LayerStats {
        let mut stats = testing::three_experts();
        stats.experts = rows.len();
        stats.tokens = rows.iter().map(|&(count, _)| f64::from(count)).sum();
        for (index, column) in columns(&mut stats).into_iter().enumerate() {
            *column = rows
                .iter()
                .map(|&(count, sums)| {
                    let count = f64::from(count);
                    if index == 0 {
                        count
                    } else {
                        count * sums[index - 1]
                    }
                })
                .collect();
        }
        stats
    }

    fn rows() -> impl Strategy<Value = Vec<(u32, [f64; 8])>> {
        let count = prop_oneof![Just(0_u32), 1..100_000_u32];
        prop::collection::vec((count, prop::array::uniform8(0.0..1e6)), 1..40)
    }

    proptest! {
        #[test]
        fn scores_are_finite_one_per_expert(rows in rows(), seed: u64) {
            let stats = layer_stats(&rows);
            for criterion in CRITERIA {
                let scores = criterion.score(&stats, seed);
                prop_assert_eq!(scores.len(), rows.len());
                prop_assert!(scores.iter().all(|score| score.is_finite()));
                prop_assert_eq!(scores, criterion.score(&stats, seed));
            }
        }

        #[test]
        fn scores_follow_their_experts(
            (rows, order) in rows().prop_flat_map(|rows| {
                let order: Vec<usize> = (0..rows.len()).collect();
                (Just(rows), Just(order).prop_shuffle())
            })
        ) {
            let stats = layer_stats(&rows);
            let permuted: Vec<_> = order.iter().map(|&i| rows[i]).collect();
            let permuted = layer_stats(&permuted);
            for criterion in CRITERIA.iter().filter(|c| c.name() != "random") {
                let scores = criterion.score(&stats, 0);
                let expected: Vec<f64> = order.iter().map(|&i| scores[i]).collect();
                prop_assert_eq!(criterion.score(&permuted, 0), expected);
            }
        }
    }
}
