//! Router-weighted expert activation: S_j = (1/N_j) Σ g_j(x)·‖f_j(x)‖₂ over the
//! tokens routed to j, in the units of the residual stream.
//!
//! REAP (arXiv 2510.13999): what leaves the layer output, on average, each time
//! an expert is asked. The gate value is the one really applied, so it is
//! renormalised over the top-k where the model does that. An expert that was
//! never routed to scores 0.
//!
//! Shapes: Σ g‖f‖ [E], N [E] → S [E].

use router_stats::stats::LayerStats;

use super::Criterion;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Reap;

impl Criterion for Reap {
    fn name(&self) -> &'static str {
        "reap"
    }

    fn about(&self) -> &'static str {
        "mean gate value times output norm over routed tokens"
    }

    fn source(&self) -> &'static str {
        "REAP (arXiv 2510.13999)"
    }

    fn score(&self, layer: &LayerStats, _seed: u64) -> Vec<f64> {
        super::mean(&layer.gated_norm, &layer.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saliency::testing::three_experts;

    #[test]
    fn averages_gated_output_norms() {
        assert_eq!(Reap.score(&three_experts(), 0), vec![4.5, 1.0, 0.0]);
    }
}
