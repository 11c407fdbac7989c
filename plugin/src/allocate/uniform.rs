//! Uniform: every layer keeps the share that the budget states.
//!
//! The only split for configurations that state one number of experts, and hard
//! to beat: EvoESAP (arXiv 2603.06003) searches over counts and
//! does not gain at every ratio.
//!
//! Shapes: even [L] → kept [L].

use super::{Allocator, Layer};

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Uniform;

impl Allocator for Uniform {
    fn name(&self) -> &'static str {
        "uniform"
    }

    fn about(&self) -> &'static str {
        "the same share of every layer"
    }

    fn source(&self) -> &'static str {
        "baseline"
    }

    fn allocate(&self, layers: &[Layer]) -> Vec<usize> {
        layers.iter().map(|layer| layer.even).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocate::testing::layer;

    #[test]
    fn ignores_scores() {
        let layers = [layer(&[1.0, 0.0], 0, 1), layer(&[0.0, 0.0], 0, 1)];
        assert_eq!(Uniform.allocate(&layers), vec![1, 1]);
    }
}
