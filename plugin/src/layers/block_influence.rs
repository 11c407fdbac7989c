//! Block influence: S_ℓ = 1 − E[cos(x_ℓ, x_{ℓ+1})] over tokens, where x_ℓ and
//! x_{ℓ+1} are the residual stream before and after block ℓ; between 0 and 2,
//! without unit.
//!
//! ShortGPT (arXiv 2403.03853): a block that hardly turns the residual stream
//! hardly matters.
//!
//! Shapes: Σcos [D, L], tokens [D] → S [L].

use router_stats::stats::Stats;

use super::LayerCriterion;
use crate::error::Result;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct BlockInfluence;

impl LayerCriterion for BlockInfluence {
    fn name(&self) -> &'static str {
        "block-influence"
    }

    fn about(&self) -> &'static str {
        "how far the block turns the residual stream"
    }

    fn source(&self) -> &'static str {
        "ShortGPT (arXiv 2403.03853)"
    }

    fn score(&self, stats: &Stats, weights: &[f64]) -> Result<Vec<f64>> {
        let influence = stats.block_influence(weights)?;
        Ok(influence
            .into_iter()
            .map(|[block, _attention, _mlp]| block)
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture;

    #[test]
    fn is_one_minus_the_mean_cosine() {
        let stats = fixture::stats("x");
        let scores = BlockInfluence.score(&stats, &stats.weights()).unwrap();
        for (score, cosine) in scores.iter().zip(fixture::COSINES) {
            assert!((score - (1.0 - cosine)).abs() < 1e-12, "{score} {cosine}");
        }
    }
}
