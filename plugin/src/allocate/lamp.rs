//! LAMP: experts of all layers compete by s_r² / Σ_{i≤r} s_i², where s_1 ≥ s_2
//! ≥ … are the scores of a layer; those with the least of it go.
//!
//! "Layer-adaptive sparsity for the Magnitude-based Pruning" (arXiv
//! 2010.07611), for experts in place of weights: the score of an expert
//! relative to what is left of its layer when its turn comes. A layer whose
//! saliency lies in a few experts loses more of the others. Of routers with
//! groups, s_r² is the sum over the experts of a rank.
//!
//! Shapes: scores [L, R, G] → kept [L].

use super::spend::{masses, spend};
use super::{Allocator, Layer};

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Lamp;

impl Allocator for Lamp {
    fn name(&self) -> &'static str {
        "lamp"
    }

    fn about(&self) -> &'static str {
        "by squared score relative to what is left of the layer"
    }

    fn source(&self) -> &'static str {
        "LAMP (arXiv 2010.07611)"
    }

    fn allocate(&self, layers: &[Layer]) -> Vec<usize> {
        let mut worth = masses(layers, |score| score * score);
        for layer in &mut worth {
            let mut sum = 0.0;
            for square in layer {
                sum += *square;
                if sum > 0.0 {
                    *square /= sum;
                }
            }
        }
        spend(layers, &worth, |layer| layer.groups() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocate::testing::layer;

    #[test]
    fn concentrated_layers_lose_more() {
        // Squares relative to those left: 1, 1/2, 1/3, 1/4 and 1, .2, .01, .01.
        let even = layer(&[1.0, 1.0, 1.0, 1.0], 1, 2);
        let steep = layer(&[2.0, 1.0, 0.1, 0.1], 1, 2);
        assert_eq!(Lamp.allocate(&[even.clone(), steep.clone()]), [3, 1]);
        // The scale of a layer does not matter.
        let large = layer(&[20.0, 10.0, 1.0, 1.0], 1, 2);
        assert_eq!(Lamp.allocate(&[even, large]), [3, 1]);
    }
}
