//! Soft gate: S_j = Σ p_j(x) over all tokens, routed to j or not, where p are
//! the router's scores before the choice: σ(z) of its logits z for sigmoid
//! routers, softmax(z) for others; without unit.
//!
//! The soft counts of SEER-MoE (arXiv 2404.05089). The only criterion here that
//! tells apart experts that were never routed to.
//!
//! Shapes: Σ p [E] → S [E].

use router_stats::stats::LayerStats;

use super::Criterion;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct SoftGate;

impl Criterion for SoftGate {
    fn name(&self) -> &'static str {
        "soft-gate"
    }

    fn about(&self) -> &'static str {
        "sum of router scores over all tokens, routed or not"
    }

    fn source(&self) -> &'static str {
        "SEER-MoE, soft counts (arXiv 2404.05089)"
    }

    fn score(&self, layer: &LayerStats, _seed: u64) -> Vec<f64> {
        layer.soft_gate.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saliency::testing::three_experts;

    #[test]
    fn sums_scores_of_all_tokens() {
        assert_eq!(SoftGate.score(&three_experts(), 0), vec![3.0, 6.0, 1.0]);
    }
}
