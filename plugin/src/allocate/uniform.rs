//! Uniform: every layer keeps the share that the budget states.
//!
//! The only split that checkpoints with one expert count for all layers can
//! hold, and hard to beat: EvoESAP (arXiv 2603.06003) searches over counts and
//! does not gain at every ratio.
//!
//! Shapes: even [L] → kept [L].

use super::Allocator;

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

    fn allocate(&self, _scores: &[Vec<f64>], even: &[usize]) -> Vec<usize> {
        even.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignores_scores() {
        assert_eq!(
            Uniform.allocate(&[vec![1.0, 0.0], vec![0.0, 0.0]], &[1, 1]),
            vec![1, 1]
        );
    }
}
