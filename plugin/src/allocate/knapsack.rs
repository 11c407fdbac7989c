//! Knapsack: the experts with the largest sum of values whose bytes are within
//! the budget, the value of an expert being its share s_r / Σ_i s_i of its
//! layer's saliency.
//!
//! Maximises the mean over layers of what α-coverage makes equal. Experts are
//! taken by value per byte (Dantzig, "Discrete-Variable Extremum Problems",
//! 1957), which is optimal if all of them weigh the same, as in every family
//! here, and else falls short of the budget by less than one rank. The budget
//! is what the even split weighs.
//!
//! Shapes: scores [L, R, G], bytes [L] → kept [L].

use super::spend::{masses, spend};
use super::{Allocator, Layer};

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Knapsack;

impl Allocator for Knapsack {
    fn name(&self) -> &'static str {
        "knapsack"
    }

    fn about(&self) -> &'static str {
        "the largest shares of their layers' saliency that fit in the bytes"
    }

    fn source(&self) -> &'static str {
        "Dantzig, Discrete-Variable Extremum Problems, 1957"
    }

    fn allocate(&self, layers: &[Layer]) -> Vec<usize> {
        let mut worth = masses(layers, |score| score);
        for (layer, masses) in layers.iter().zip(&mut worth) {
            let total: f64 = masses.iter().sum::<f64>() * layer.rank_bytes() as f64;
            for mass in masses.iter_mut().filter(|_| total > 0.0) {
                *mass /= total;
            }
        }
        spend(layers, &worth, Layer::rank_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocate::testing::layer;

    #[test]
    fn no_other_split_holds_more() {
        let scores = [
            [8.0, 4.0, 2.0, 1.0, 1.0],
            [3.0, 3.0, 3.0, 3.0, 0.0],
            [90.0, 50.0, 40.0, 20.0, 20.0],
        ];
        let value = |kept: &[usize]| -> f64 {
            let share = |(scores, &kept): (&[f64; 5], _)| {
                scores[..kept].iter().sum::<f64>() / scores.iter().sum::<f64>()
            };
            scores.iter().zip(kept).map(share).sum()
        };
        for even in 1..=4 {
            let layers = scores.map(|scores| layer(&scores, 1, even));
            let found = value(&Knapsack.allocate(&layers));
            for a in 1..=5 {
                for b in 1..=5 {
                    for c in (1..=5).filter(|c| a + b + c <= 3 * even) {
                        assert!(value(&[a, b, c]) <= found + 1e-12, "{even}: {a} {b} {c}");
                    }
                }
            }
        }
    }

    #[test]
    fn wide_experts_have_to_be_worth_more() {
        let wide = Layer {
            expert_bytes: 200,
            ..layer(&[1.0, 1.0], 0, 1)
        };
        // 50% for 200 bytes, against 40% and 30% for 100 each.
        let narrow = layer(&[4.0, 3.0, 3.0], 0, 0);
        assert_eq!(Knapsack.allocate(&[wide, narrow]), [0, 2]);
    }
}
