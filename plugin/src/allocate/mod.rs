//! How many experts each layer keeps.
//!
//! An allocator is one file that implements [`Allocator`] and one line in
//! [`ALLOCATORS`]. It owns the split of a budget over layers. It does not own
//! the scores ([`crate::saliency`]), what has to stay nor whether the result is
//! possible ([`crate::plan`]).
//!
//! Layers are divided by ranks: rank r of a layer holds its r-th best expert,
//! or of a router with G groups the r-th best of each group, so that groups
//! stay even whatever an allocator does.

mod alpha_coverage;
mod knapsack;
mod lamp;
mod spend;
mod uniform;

pub(crate) use spend::spend;

use crate::registry::find;
use crate::Result;

/// Every allocator, the default first.
pub const ALLOCATORS: &[&dyn Allocator] = &[
    &uniform::Uniform,
    &lamp::Lamp,
    &alpha_coverage::AlphaCoverage,
    &knapsack::Knapsack,
];

/// Splits a budget of experts over layers.
pub trait Allocator: Sync + std::fmt::Debug {
    /// Name on the command line and in plans: `uniform`.
    fn name(&self) -> &'static str;

    /// One line for lists.
    fn about(&self) -> &'static str;

    /// Where it comes from.
    fn source(&self) -> &'static str;

    /// Ranks that each of `layers` keeps: `[L]`, together no more than
    /// [`Layer::even`] asks for. Those that differ from it are at least
    /// [`Layer::least`]. A budget that asks for more in every layer never gives
    /// less to one.
    fn allocate(&self, layers: &[Layer]) -> Vec<usize>;
}

/// A layer whose experts are to be divided into those that stay and those that
/// go.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Scores of the experts of each rank, the first to stay first: `[R][G]`.
    pub ranks: Vec<Vec<f64>>,
    /// Ranks that have to stay.
    pub least: usize,
    /// Ranks that stay if the budget applies to this layer alone.
    pub even: usize,
    /// Bytes of one expert.
    pub expert_bytes: u64,
}

impl Layer {
    /// Experts of a rank, G.
    pub fn groups(&self) -> usize {
        self.ranks.first().map_or(1, Vec::len)
    }

    /// Bytes of a rank.
    pub fn rank_bytes(&self) -> u64 {
        self.expert_bytes * self.groups() as u64
    }
}

/// Finds an allocator by name.
///
/// # Errors
/// [`Error::Unknown`](crate::Error::Unknown) with the known names.
pub fn allocator(name: &str) -> Result<&'static dyn Allocator> {
    find("allocator", ALLOCATORS, Allocator::name, name)
}

#[cfg(test)]
pub(super) mod testing {
    use super::Layer;

    /// A layer without groups whose experts have these scores, highest first.
    pub(super) fn layer(scores: &[f64], least: usize, even: usize) -> Layer {
        Layer {
            ranks: scores.iter().map(|&score| vec![score]).collect(),
            least,
            even,
            expert_bytes: 100,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_are_unique_and_found() {
        let names: BTreeSet<_> = ALLOCATORS.iter().map(|a| a.name()).collect();
        assert_eq!(names.len(), ALLOCATORS.len());
        for name in names {
            assert_eq!(allocator(name).unwrap().name(), name);
        }
        for described in ALLOCATORS {
            assert!(!described.about().is_empty() && !described.source().is_empty());
        }
        assert!(allocator("even").is_err());
    }

    /// Layers of six ranks of two groups; scores fall with the rank beyond the
    /// two ranks that have to stay.
    fn layers() -> impl Strategy<Value = Vec<Layer>> {
        let scores = prop::collection::vec(prop_oneof![Just(0.0), -5.0..50.0_f64], 12);
        let layer = (scores, 0..3_usize).prop_map(|(mut scores, least)| {
            scores[2 * least..].sort_by(|a, b| b.total_cmp(a));
            Layer {
                ranks: scores.chunks(2).map(<[f64]>::to_vec).collect(),
                least,
                even: 0,
                expert_bytes: 100,
            }
        });
        prop::collection::vec(layer, 1..6)
    }

    proptest! {
        #[test]
        fn every_allocator_spends_the_budget_and_a_larger_one_takes_nothing(layers in layers()) {
            for allocator in ALLOCATORS {
                let mut before = vec![0; layers.len()];
                for even in 2..=6 {
                    let asked: Vec<_> = layers
                        .iter()
                        .map(|layer| Layer { even, ..layer.clone() })
                        .collect();
                    let kept = allocator.allocate(&asked);
                    prop_assert_eq!(kept.len(), layers.len());
                    prop_assert_eq!(kept.iter().sum::<usize>(), even * layers.len());
                    for ((&kept, before), layer) in kept.iter().zip(&before).zip(&layers) {
                        prop_assert!(layer.least <= kept && kept <= 6, "{}", allocator.name());
                        prop_assert!(*before <= kept, "{}", allocator.name());
                    }
                    before = kept;
                }
            }
        }
    }
}
