//! Which whole layers go.
//!
//! A layer criterion is one file that implements [`LayerCriterion`] and one
//! line in [`LAYER_CRITERIA`]. It owns an equation; how many layers go and
//! what must stay belongs to [`crate::plan`].

mod block_influence;

use router_stats::stats::Stats;

use crate::registry::find;
use crate::Result;

/// Every layer criterion, the default first.
pub const LAYER_CRITERIA: &[&dyn LayerCriterion] = &[&block_influence::BlockInfluence];

/// Scores the layers of a model.
pub trait LayerCriterion: Sync + std::fmt::Debug {
    /// Name on the command line and in plans: `block-influence`.
    fn name(&self) -> &'static str;

    /// One line for lists.
    fn about(&self) -> &'static str;

    /// Where it comes from.
    fn source(&self) -> &'static str;

    /// One score per layer, dense ones included; the higher, the more it
    /// matters. `weights` holds one weight per domain of `stats`.
    ///
    /// # Errors
    /// Those of reading a table that `stats` lacks.
    fn score(&self, stats: &Stats, weights: &[f64]) -> Result<Vec<f64>>;
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
