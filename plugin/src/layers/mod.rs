//! What goes from layers as a whole: layers, and their sublayers.
//!
//! A layer criterion is one file that implements [`LayerCriterion`] and one
//! line in [`LAYER_CRITERIA`]. It owns an equation, or a measurement, and the
//! choice that follows from it; how much goes and what is pinned belongs to
//! [`crate::plan`], and how a cost is measured to whoever gives the
//! [`Evidence`].

mod angular_span;
mod block_influence;
mod greedy;
mod unit;
mod wanted;

use router_stats::family::Keep;
use router_stats::stats::Stats;

pub use unit::Unit;
pub use wanted::{Removal, Wanted};

use crate::registry::find;
use crate::Result;

/// Every layer criterion, the default first.
pub const LAYER_CRITERIA: &[&dyn LayerCriterion] = &[
    &block_influence::BlockInfluence,
    &angular_span::AngularSpan,
    &greedy::Greedy,
];

/// Nats a token of what a [`Keep`] leaves of a model, on calibration text.
pub type Cost<'a> = dyn FnMut(&Keep) -> Result<f64> + 'a;

/// What a layer criterion decides from.
pub struct Evidence<'a, 'c> {
    /// Statistics of the whole model.
    pub stats: &'a Stats,
    /// Measures what is left; `None` if there is no text to measure on.
    pub cost: Option<&'c mut Cost<'c>>,
}

impl<'a> From<&'a Stats> for Evidence<'a, '_> {
    fn from(stats: &'a Stats) -> Self {
        Self { stats, cost: None }
    }
}

/// Chooses layers and sublayers of a model.
pub trait LayerCriterion: Sync + std::fmt::Debug {
    /// Name on the command line and in plans: `block-influence`.
    fn name(&self) -> &'static str;

    /// One line for lists.
    fn about(&self) -> &'static str;

    /// Where it comes from.
    fn source(&self) -> &'static str;

    /// What it can choose.
    fn units(&self) -> &'static [Unit] {
        &Unit::ALL
    }

    /// Whether it takes [`Evidence::cost`], which is asked for once for every
    /// choice it weighs.
    fn measures(&self) -> bool {
        false
    }

    /// What goes, in the order in which it was chosen; `None` if what is pinned
    /// leaves no such choice. `weights` holds one weight per domain of the
    /// statistics. Asked for what it cannot choose, it chooses none of it.
    ///
    /// # Errors
    /// Those of reading a table that the statistics lack;
    /// [`NonFiniteScore`](crate::Error::NonFiniteScore) if they are damaged;
    /// those of measuring.
    fn choose(
        &self,
        evidence: &mut Evidence<'_, '_>,
        weights: &[f64],
        wanted: &Wanted<'_>,
    ) -> Result<Option<Vec<Removal>>>;
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
mod tests;
