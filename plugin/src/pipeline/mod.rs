//! The steps from a model's name to a smaller checkpoint, each with its cache.
//!
//! ```text
//! resolve    a name → an open checkpoint        the demo, a directory, the hub
//! texts      files → calibration and held-out   the bundled ones by default
//! measure    text → statistics                  cached by model, tokenizer, text, settings
//! stable     text → statistics of no more of it than the decision needs
//! planner    statistics → what plans are made by; what a criterion measures is cached
//! decide     statistics → a plan                cached by statistics and options
//! searched   statistics and text → the best plan of a search; its candidates are cached
//! evaluate   a plan → what it costs             cached by plan and text
//! within     a loss → the plan that stays in it  cached by plan and text
//! solved     memory → the plan that loses least in it   cached by statistics, text and options
//! replan     a budget and more text → another plan, of which nothing is cached
//! write      a plan → a checkpoint              cached by plan, tokenizer and layout
//! limit      a checkpoint → one with shorter sequences   links in the cache
//! job        all of them behind one call
//! ```
//!
//! Owns the order of the steps and what their cache entries depend on. How a
//! step works is its own module's business; how it is shown, a [`Reporter`]'s.

mod decide;
mod evaluate;
mod job;
mod limit;
mod measure;
mod planner;
mod replan;
mod resolve;
mod searched;
mod solved;
mod stable;
#[cfg(test)]
mod tests;
mod texts;
mod within;
mod write;

use router_stats::progress::Progress;

pub use decide::decide;
pub use evaluate::{evaluate, EvaluationOptions};
pub use job::{plan_name, Change, Job, Outcome};
pub use measure::{measure, Calibration, Measured};
pub use planner::{planner, Grounds, SearchOn};
pub use replan::{replan, Beside};
pub use resolve::{Model, ModelSource};
pub use searched::{searched, uneven};
pub use solved::{serving, solved};
pub(crate) use stable::summary as stability_summary;
pub use stable::{resampled, until_stable, Chunks, Settled, UntilStable};
pub use texts::{bundled_calibration, bundled_held_out, read, sequences, Texts, HELD_OUT};
pub use within::{within_loss, LossLimit};
pub use write::{needs_relayout, relayout, write};

/// Verb of a step that found its result already there.
pub const CACHED: &str = "Cached";

/// Shows what the steps do. Long ones report [`Progress`] as well.
pub trait Reporter: Progress + Send {
    /// A step is done: a verb, and what came of it.
    fn report(&self, verb: &str, text: &str);

    /// Lines to be shown as they are.
    fn text(&self, text: &str);

    /// Rows of cells whose columns line up.
    fn table(&self, rows: &[Vec<String>]) {
        for row in rows {
            self.text(&row.join("  "));
        }
    }

    /// Advice.
    fn hint(&self, text: &str);
}

impl Reporter for router_stats::progress::Silent {
    fn report(&self, _: &str, _: &str) {}
    fn text(&self, _: &str) {}
    fn hint(&self, _: &str) {}
}
