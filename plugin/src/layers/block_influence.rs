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
use crate::check::{expect_finite, expect_len};
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

    fn choose(
        &self,
        stats: &Stats,
        weights: &[f64],
        count: usize,
        pinned: &[bool],
    ) -> Result<Option<Vec<usize>>> {
        let influence = scores(stats, weights)?;
        expect_len("scored layers", influence.len(), pinned.len())?;
        let mut free: Vec<usize> = (0..pinned.len()).filter(|&layer| !pinned[layer]).collect();
        if free.len() < count {
            return Ok(None);
        }
        // A stable sort of the layers from the last: of equal ones the lower
        // stays.
        free.reverse();
        free.sort_by(|&a, &b| influence[a].total_cmp(&influence[b]));
        free.truncate(count);
        free.sort_unstable();
        Ok(Some(free))
    }
}

/// S of every layer.
fn scores(stats: &Stats, weights: &[f64]) -> Result<Vec<f64>> {
    let influence = stats.block_influence(weights)?;
    let scores: Vec<f64> = influence.into_iter().map(|[block, ..]| block).collect();
    expect_finite(&scores, |layer| format!("block-influence of layer {layer}"))?;
    Ok(scores)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture;

    #[test]
    fn is_one_minus_the_mean_cosine() {
        let stats = fixture::stats("x");
        let scores = scores(&stats, &stats.weights()).unwrap();
        for (score, cosine) in scores.iter().zip(fixture::COSINES) {
            assert!((score - (1.0 - cosine)).abs() < 1e-12, "{score} {cosine}");
        }
    }

    #[test]
    fn the_lowest_go_and_of_equal_ones_the_later() {
        let mut stats = fixture::stats("x");
        let choose = |stats: &Stats, count, pinned: [bool; 4]| {
            let weights = stats.weights();
            BlockInfluence
                .choose(stats, &weights, count, &pinned)
                .unwrap()
        };
        assert_eq!(choose(&stats, 2, [false; 4]), Some(vec![1, 2]));
        let pinned = [false, false, true, false];
        assert_eq!(choose(&stats, 2, pinned), Some(vec![1, 3]));
        stats.tables.get_mut("block.cos").unwrap().values.fill(1.0);
        assert_eq!(choose(&stats, 2, [false; 4]), Some(vec![2, 3]));
    }
}
