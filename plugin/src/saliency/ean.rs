//! Expert activation norm: S_j = Σ ‖f_j(x)‖₂ over the tokens routed to j, in the
//! units of the residual stream.
//!
//! EAN of MC-Suite (arXiv 2504.05586). A sum, so it grows with frequency.
//!
//! Shapes: Σ‖f‖ [E] → S [E].

use router_stats::stats::LayerStats;

use super::Criterion;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Ean;

impl Criterion for Ean {
    fn name(&self) -> &'static str {
        "ean"
    }

    fn about(&self) -> &'static str {
        "sum of output norms over routed tokens"
    }

    fn source(&self) -> &'static str {
        "EAN, MC-Suite (arXiv 2504.05586)"
    }

    fn score(&self, layer: &LayerStats, _seed: u64) -> Vec<f64> {
        layer.norm.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saliency::testing::three_experts;

    #[test]
    fn sums_output_norms() {
        assert_eq!(Ean.score(&three_experts(), 0), vec![12.0, 16.0, 0.0]);
    }
}
