//! Mean squared activation norm: S_j = (1/N_j) Σ ‖f_j(x)‖₂² over the tokens routed
//! to j, in squared units of the residual stream.
//!
//! MSAN of "How to Score Experts for One-Shot MoE Expert Pruning"
//! (arXiv 2606.15716). Compared with `man`, it favours experts that speak
//! rarely but loudly. An expert that was never routed to scores 0.
//!
//! Shapes: Σ‖f‖² [E], N [E] → S [E].

use router_stats::stats::LayerStats;

use super::Criterion;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Msan;

impl Criterion for Msan {
    fn name(&self) -> &'static str {
        "msan"
    }

    fn about(&self) -> &'static str {
        "mean squared output norm over routed tokens"
    }

    fn source(&self) -> &'static str {
        "MSAN (arXiv 2606.15716)"
    }

    fn score(&self, layer: &LayerStats, _seed: u64) -> Vec<f64> {
        super::mean(&layer.norm_sq, &layer.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saliency::testing::three_experts;

    #[test]
    fn averages_squared_output_norms() {
        assert_eq!(Msan.score(&three_experts(), 0), vec![40.0, 5.0, 0.0]);
    }
}
