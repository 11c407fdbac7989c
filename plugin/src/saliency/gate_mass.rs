//! Gate mass: S_j = Σ g_j(x) over the tokens routed to j, without unit.
//!
//! The counts of SEER-MoE (arXiv 2404.05089), each token counted by the gate
//! value that the expert receives.
//!
//! Shapes: Σg [E] → S [E].

use router_stats::stats::LayerStats;

use super::Criterion;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct GateMass;

impl Criterion for GateMass {
    fn name(&self) -> &'static str {
        "gate-mass"
    }

    fn about(&self) -> &'static str {
        "sum of the gate values applied"
    }

    fn source(&self) -> &'static str {
        "after SEER-MoE (arXiv 2404.05089)"
    }

    fn score(&self, layer: &LayerStats, _seed: u64) -> Vec<f64> {
        layer.gate.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saliency::testing::three_experts;

    #[test]
    fn sums_gate_values() {
        assert_eq!(GateMass.score(&three_experts(), 0), vec![1.5, 4.0, 0.0]);
    }
}
