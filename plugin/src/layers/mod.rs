//! Which whole layers go.
//!
//! A layer criterion is one file that implements [`LayerCriterion`] and one
//! line in [`LAYER_CRITERIA`]. It owns an equation and the choice that follows
//! from it; how many layers go and which are pinned belongs to [`crate::plan`].

mod angular_span;
mod block_influence;

use router_stats::stats::Stats;

use crate::registry::find;
use crate::Result;

/// Every layer criterion, the default first.
pub const LAYER_CRITERIA: &[&dyn LayerCriterion] =
    &[&block_influence::BlockInfluence, &angular_span::AngularSpan];

/// Chooses layers of a model.
pub trait LayerCriterion: Sync + std::fmt::Debug {
    /// Name on the command line and in plans: `block-influence`.
    fn name(&self) -> &'static str;

    /// One line for lists.
    fn about(&self) -> &'static str;

    /// Where it comes from.
    fn source(&self) -> &'static str;

    /// The `count` layers that go, ascending, dense ones included; `None` if
    /// the `pinned` ones, which stay, leave no such choice. `weights` holds one
    /// weight per domain of `stats`, `pinned` one flag per layer.
    ///
    /// # Errors
    /// Those of reading a table that `stats` lacks;
    /// [`NonFiniteScore`](crate::Error::NonFiniteScore) if it is damaged.
    fn choose(
        &self,
        stats: &Stats,
        weights: &[f64],
        count: usize,
        pinned: &[bool],
    ) -> Result<Option<Vec<usize>>>;
}

/// Finds a layer criterion by name.
///
/// # Errors
/// [`Error::Unknown`](crate::Error::Unknown) with the known names.
pub fn layer_criterion(name: &str) -> Result<&'static dyn LayerCriterion> {
    find(
        "layer criterion",
        LAYER_CRITERIA,
        LayerCriterion::name,
        name,
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::plan::fixture;

    #[test]
    fn every_criterion_chooses_as_many_as_asked_and_none_that_is_pinned() {
        let stats = fixture::stats("x");
        let layers = fixture::COSINES.len();
        for criterion in LAYER_CRITERIA {
            let choose = |count, pinned: &[bool]| {
                criterion
                    .choose(&stats, &stats.weights(), count, pinned)
                    .unwrap()
            };
            for count in 0..layers {
                let chosen = choose(count, &[false; 4]).unwrap();
                assert_eq!(chosen.len(), count, "{}", criterion.name());
                assert!(chosen.windows(2).all(|pair| pair[0] < pair[1]));
                for layer in 0..layers {
                    let mut pinned = [false; 4];
                    pinned[layer] = true;
                    let spared = choose(count, &pinned);
                    assert!(spared.is_none_or(|chosen| !chosen.contains(&layer)));
                }
            }
            assert_eq!(choose(1, &[true; 4]), None, "{}", criterion.name());
        }
    }

    #[test]
    fn names_are_unique_and_found() {
        let names: BTreeSet<_> = LAYER_CRITERIA.iter().map(|c| c.name()).collect();
        assert_eq!(names.len(), LAYER_CRITERIA.len());
        for name in names {
            assert_eq!(layer_criterion(name).unwrap().name(), name);
        }
        assert!(layer_criterion("depth").is_err());
    }
}
