//! α-coverage: every layer keeps the fewest experts that hold a share α of its
//! saliency, k_ℓ(α) = min { k : Σ_{r≤k} s_r ≥ α Σ_r s_r } for s_1 ≥ s_2 ≥ …, and
//! α is as large as the budget allows.
//!
//! SHAPE bisects α. Here it rises from 0 instead: always the layer that is
//! covered least keeps one more expert. The counts are those of the largest α
//! with Σ k_ℓ(α) within the budget, what is left of it already goes towards the
//! next, and there is no tolerance to choose.
//!
//! Shapes: scores [L, R, G] → kept [L].

use super::spend::{masses, spend};
use super::{Allocator, Layer};

/// See the module documentation.
#[derive(Debug)]
pub(super) struct AlphaCoverage;

impl Allocator for AlphaCoverage {
    fn name(&self) -> &'static str {
        "alpha-coverage"
    }

    fn about(&self) -> &'static str {
        "the same share of every layer's saliency"
    }

    fn source(&self) -> &'static str {
        "SHAPE"
    }

    fn allocate(&self, layers: &[Layer]) -> Vec<usize> {
        let mut worth = masses(layers, |score| score);
        for layer in &mut worth {
            let total: f64 = layer.iter().sum();
            let mut covered = 0.0;
            for mass in layer {
                // What is covered without this rank; a layer that holds nothing
                // is covered.
                let before = if total > 0.0 { covered / total } else { 1.0 };
                covered += *mass;
                *mass = -before;
            }
        }
        spend(layers, &worth, |layer| layer.groups() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocate::testing::layer;

    /// The fewest ranks with a share `alpha` of the scores.
    fn covering(scores: &[f64], alpha: f64) -> usize {
        let total: f64 = scores.iter().sum();
        (0..=scores.len())
            .find(|&kept| scores[..kept].iter().sum::<f64>() >= alpha * total)
            .unwrap()
    }

    #[test]
    fn counts_are_those_of_the_largest_alpha_within_the_budget() {
        let scores = [
            [8.0, 4.0, 2.0, 1.0, 1.0, 0.0],
            [3.0, 3.0, 3.0, 3.0, 3.0, 3.0],
            [9.0, 5.0, 4.0, 2.0, 2.0, 1.0],
        ];
        for even in 0..=6 {
            let layers = scores.map(|scores| layer(&scores, 0, even));
            let kept = AlphaCoverage.allocate(&layers);
            let at = |alpha| scores.map(|scores| covering(&scores, alpha));
            let alpha = (0..=10_000)
                .map(|step| f64::from(step) / 10_000.0)
                .filter(|&alpha| at(alpha).iter().sum::<usize>() <= 3 * even)
                .fold(0.0, f64::max);
            for (kept, least) in kept.iter().zip(at(alpha)) {
                assert!(*kept >= least, "{even} {alpha}: {kept} {least}");
            }
        }
    }

    #[test]
    fn concentrated_layers_keep_fewer() {
        let layers = [
            layer(&[9.0, 1.0, 0.0, 0.0], 0, 2),
            layer(&[1.0, 1.0, 1.0, 1.0], 0, 2),
        ];
        assert_eq!(AlphaCoverage.allocate(&layers), [1, 3]);
    }
}
