//! Mean activation norm: S_j = (1/N_j) Σ ‖f_j(x)‖₂ over the tokens routed to j, in
//! the units of the residual stream.
//!
//! MAN of "How to Score Experts for One-Shot MoE Expert Pruning"
//! (arXiv 2606.15716), which finds gate-free means best when the task is not
//! known. An expert that was never routed to scores 0.
//!
//! Shapes: Σ‖f‖ [E], N [E] → S [E].

use router_stats::stats::LayerStats;

use super::Criterion;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Man;

impl Criterion for Man {
    fn name(&self) -> &'static str {
        "man"
    }

    fn about(&self) -> &'static str {
        "mean output norm over routed tokens"
    }

    fn source(&self) -> &'static str {
        "MAN (arXiv 2606.15716)"
    }

    fn score(&self, layer: &LayerStats, _seed: u64) -> Vec<f64> {
        super::mean(&layer.norm, &layer.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saliency::testing::three_experts;

    #[test]
    fn averages_output_norms() {
        assert_eq!(Man.score(&three_experts(), 0), vec![6.0, 2.0, 0.0]);
    }
}
