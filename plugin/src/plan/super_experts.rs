//! Super experts: the few whose outputs are far larger than any other's.
//!
//! "Unveiling Super Experts in Mixture-of-Experts Large Language Models"
//! (arXiv 2507.23279): an expert is super if the largest magnitude in its
//! output, a_j = max ‖f_j‖∞, is above the 99.5th percentile of all experts of
//! the model and above a tenth of their maximum. The paper's models produce
//! nonsense without them, although a mean need not rank them high: a handful of
//! tokens makes the activations that attention sinks rest on.
//!
//! The percentile is interpolated between order statistics, so of fewer than
//! 201 experts at most the one with the largest output qualifies.
//!
//! Shapes: max [L, E_ℓ] → pairs of layer and expert.

use router_stats::family::Topology;
use router_stats::stats::Stats;

use super::ExpertId;
use crate::error::Result;

/// Share of the experts that are below every super expert.
const PERCENTILE: f64 = 0.995;

/// Share of the largest output that a super expert exceeds.
const OF_LARGEST: f64 = 0.1;

/// The super experts of the model that `stats` describe, ascending. Only
/// domains with a positive weight count.
///
/// # Errors
/// Those of reading a table that `stats` lacks.
pub(super) fn super_experts(
    stats: &Stats,
    topology: &Topology,
    weights: &[f64],
) -> Result<Vec<ExpertId>> {
    let mut outputs = Vec::new();
    for layer in (0..topology.layers()).filter(|&layer| topology.moe(layer).is_some()) {
        for (expert, max) in stats.layer(layer, weights)?.max.into_iter().enumerate() {
            outputs.push((ExpertId { layer, expert }, max));
        }
    }
    let mut sorted: Vec<f64> = outputs.iter().map(|&(_, max)| max).collect();
    sorted.sort_by(f64::total_cmp);
    let largest = sorted.last().copied().unwrap_or(0.0);
    let above = percentile(&sorted).max(OF_LARGEST * largest);
    Ok(outputs
        .into_iter()
        .filter(|&(_, max)| max > above)
        .map(|(id, _)| id)
        .collect())
}

/// The [`PERCENTILE`] of ascending numbers, between the two nearest of them; 0
/// of none.
fn percentile(sorted: &[f64]) -> f64 {
    let position = PERCENTILE * sorted.len().saturating_sub(1) as f64;
    let below = position.floor();
    let at = |index: f64| sorted.get(index as usize).copied().unwrap_or(0.0);
    let (low, high) = (at(below), at(position.ceil()));
    low + (high - low) * (position - below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture::{self, Stored};

    #[test]
    fn the_percentile_lies_between_its_neighbours() {
        assert_eq!(percentile(&[]), 0.0);
        assert_eq!(percentile(&[3.0]), 3.0);
        let hundred: Vec<f64> = (0..=200).map(f64::from).collect();
        assert!((percentile(&hundred) - 199.0).abs() < 1e-9);
        assert!((percentile(&[0.0, 1.0]) - 0.995).abs() < 1e-12);
    }

    #[test]
    fn the_largest_output_stands_out_and_equal_ones_do_not() {
        let fixture = fixture::model(Stored::PerExpert);
        let found = |stats: &Stats| super_experts(stats, &fixture.topology, &[1.0, 1.0]).unwrap();
        let mut stats = fixture::stats("x");
        assert_eq!(found(&stats), [], "three layers share the largest");
        let max = stats.tables.get_mut("expert.max").unwrap();
        max.row_mut(&[1, 2])[4] = 600.0;
        let id = ExpertId {
            layer: 2,
            expert: 4,
        };
        assert_eq!(found(&stats), [id]);
        // Seen only in a domain that weighs nothing.
        assert_eq!(
            super_experts(&stats, &fixture.topology, &[1.0, 0.0]).unwrap(),
            []
        );
    }
}
