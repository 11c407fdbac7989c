//! Routing frequency: S_j = N_j, in tokens.
//!
//! The hard counts of SEER-MoE (arXiv 2404.05089). It sees neither how much an
//! expert is weighted nor what it says.
//!
//! Shapes: N [E] → S [E].

use router_stats::stats::LayerStats;

use super::Criterion;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Frequency;

impl Criterion for Frequency {
    fn name(&self) -> &'static str {
        "frequency"
    }

    fn about(&self) -> &'static str {
        "tokens routed to the expert"
    }

    fn source(&self) -> &'static str {
        "SEER-MoE, hard counts (arXiv 2404.05089)"
    }

    fn score(&self, layer: &LayerStats, _seed: u64) -> Vec<f64> {
        layer.count.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saliency::testing::three_experts;

    #[test]
    fn counts_tokens() {
        assert_eq!(Frequency.score(&three_experts(), 0), vec![2.0, 8.0, 0.0]);
    }
}
