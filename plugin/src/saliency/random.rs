//! Random: S_j uniform in [0, 1).
//!
//! The baseline that every other criterion has to beat. Drawn with ChaCha8, one
//! stream per layer, so that a plan is reproduced by its seed alone and does
//! not depend on the order in which layers are scored.
//!
//! Shapes: nothing but E → S [E].

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use router_stats::stats::LayerStats;

use super::Criterion;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Random;

impl Criterion for Random {
    fn name(&self) -> &'static str {
        "random"
    }

    fn about(&self) -> &'static str {
        "seeded, uniform: the baseline"
    }

    fn source(&self) -> &'static str {
        "baseline"
    }

    fn score(&self, layer: &LayerStats, seed: u64) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(layer.layer as u64);
        (0..layer.experts).map(|_| rng.random()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::saliency::testing::three_experts;

    #[test]
    fn depends_on_seed_and_layer_only() {
        let here = three_experts();
        let mut elsewhere = three_experts();
        elsewhere.layer += 1;
        let mut busier = three_experts();
        busier.count[2] = 100.0;
        assert_eq!(Random.score(&here, 1), Random.score(&busier, 1));
        assert_ne!(Random.score(&here, 1), Random.score(&here, 2));
        assert_ne!(Random.score(&here, 1), Random.score(&elsewhere, 1));
        assert!(Random
            .score(&here, 1)
            .iter()
            .all(|score| (0.0..1.0).contains(score)));
    }
}
