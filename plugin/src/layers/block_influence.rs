//! Block influence: S_ℓ = 1 − E[cos(x_ℓ, x_{ℓ+1})] over tokens, where x_ℓ and
//! x_{ℓ+1} are the residual stream before and after block ℓ, or before and after
//! its attention or its feed-forward part alone; between 0 and 2, without unit.
//!
//! ShortGPT (arXiv 2403.03853): a block that hardly turns the residual stream
//! hardly matters. Of sublayers: "What Matters in Transformers? Not All Attention
//! is Needed" (arXiv 2406.15786).
//!
//! Shapes: Σcos [D, L, 3], tokens [D] → S [L, 3].

use router_stats::stats::Stats;

use super::{Evidence, LayerCriterion, Removal, Unit, Wanted};
use crate::check::expect_finite;
use crate::error::Result;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct BlockInfluence;

impl LayerCriterion for BlockInfluence {
    fn name(&self) -> &'static str {
        "block-influence"
    }

    fn about(&self) -> &'static str {
        "how far the layer, or its sublayer, turns the residual stream"
    }

    fn source(&self) -> &'static str {
        "ShortGPT (arXiv 2403.03853)"
    }

    fn choose(
        &self,
        evidence: &mut Evidence<'_, '_>,
        weights: &[f64],
        wanted: &Wanted<'_>,
    ) -> Result<Option<Vec<Removal>>> {
        let mut gone = Vec::with_capacity(wanted.total());
        for unit in Unit::ALL {
            let (count, mut free) = (wanted.count(unit), wanted.candidates(unit, &gone));
            if count == 0 {
                continue;
            }
            if free.len() < count {
                return Ok(None);
            }
            let influence = scores(evidence.stats, weights, unit)?;
            // A stable sort of the layers from the last: of equal ones the lower
            // stays.
            free.reverse();
            free.sort_by(|&a, &b| influence[a].total_cmp(&influence[b]));
            let chosen = free.into_iter().take(count);
            gone.extend(chosen.map(|layer| Removal { unit, layer }));
        }
        Ok(Some(gone))
    }
}

/// S of `unit` in every layer.
fn scores(stats: &Stats, weights: &[f64], unit: Unit) -> Result<Vec<f64>> {
    let influence = stats.block_influence(weights)?;
    let of_unit = |[block, attention, mlp]: [f64; 3]| match unit {
        Unit::Layer => block,
        Unit::Attention => attention,
        Unit::Moe => mlp,
    };
    let scores: Vec<f64> = influence.into_iter().map(of_unit).collect();
    expect_finite(&scores, |layer| {
        format!("block-influence of the {unit} {layer}")
    })?;
    Ok(scores)
}

#[cfg(test)]
mod tests {
    use super::super::tests::choose;
    use super::*;
    use crate::plan::fixture;

    #[test]
    fn is_one_minus_the_mean_cosine() {
        let stats = fixture::stats("x");
        let scores = scores(&stats, &stats.weights(), Unit::Layer).unwrap();
        for (score, cosine) in scores.iter().zip(fixture::COSINES) {
            assert!((score - (1.0 - cosine)).abs() < 1e-12, "{score} {cosine}");
        }
    }

    #[test]
    fn the_lowest_go_and_of_equal_ones_the_later() {
        let mut stats = fixture::stats("x");
        let choose = |stats: &Stats, asked, pinned: &[usize]| -> Vec<usize> {
            let chosen = choose(&BlockInfluence, stats, asked, pinned).unwrap();
            chosen.iter().map(|removal| removal.layer).collect()
        };
        assert_eq!(choose(&stats, [2, 0, 0], &[]), [2, 1]);
        assert_eq!(choose(&stats, [2, 0, 0], &[2]), [1, 3]);
        // A sublayer of a layer that goes does not go again; layer 1 is dense.
        assert_eq!(choose(&stats, [1, 1, 0], &[]), [2, 1]);
        assert_eq!(choose(&stats, [0, 0, 2], &[]), [2, 3]);
        // Σcos of two domains, four layers, three parts: attention of layer 0.
        let cosines = &mut stats.tables.get_mut("block.cos").unwrap().values;
        cosines[1] = 100.0;
        cosines[4 * 3 + 1] = 300.0;
        assert_eq!(choose(&stats, [0, 1, 0], &[]), [0]);
        stats.tables.get_mut("block.cos").unwrap().values.fill(1.0);
        assert_eq!(choose(&stats, [2, 0, 0], &[]), [3, 2]);
    }
}
