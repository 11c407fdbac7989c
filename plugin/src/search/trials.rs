//! The candidates of one search, and the best of them.

use router_stats::family::Keep;

use super::Objective;
use crate::plan::{Fitness, Space};
use crate::Result;

/// Measures candidates and remembers the best.
pub struct Trials<'t, 'a> {
    space: &'t Space,
    objective: &'t mut Objective<'a>,
    starts: Vec<Start>,
    before: Fitness,
    best: Keep,
    after: Fitness,
}

/// A split to begin with.
#[derive(Debug, Clone, PartialEq)]
pub struct Start {
    /// Ranks that every layer keeps: `[L]`.
    pub ranks: Vec<usize>,
    /// What it is worth: E Σ min(p, q).
    pub overlap: f64,
}

/// The result of a search.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// What stays.
    pub keep: Keep,
    /// What is worth what a plan without a search keeps.
    pub before: Fitness,
    /// What [`keep`](Self::keep) is worth.
    pub after: Fitness,
    /// Different candidates that were measured.
    pub candidates: usize,
}

impl<'t, 'a> Trials<'t, 'a> {
    /// Measures what is kept without a search and the even split, however little
    /// time there is, and then the splits of the other allocators.
    ///
    /// # Errors
    /// Those of [`Objective::measure`].
    pub(super) fn new(space: &'t Space, objective: &'t mut Objective<'a>) -> Result<Self> {
        let splits = space.splits();
        objective.describe("splits of the allocators".to_owned(), splits.len() + 1);
        let best = space.unsearched().clone();
        let before = objective.measure(&best)?;
        let mut trials = Self {
            space,
            objective,
            starts: Vec::new(),
            before,
            best,
            after: before,
        };
        for ranks in splits {
            let keep = space.of_ranks(&ranks);
            let overlap = if trials.starts.is_empty() {
                trials.measure_at_any_cost(&keep)?
            } else if let Some(overlap) = trials.measure(&keep)? {
                overlap
            } else {
                break;
            };
            trials.starts.push(Start { ranks, overlap });
        }
        // A stable sort: of equal ones the simpler comes first.
        trials
            .starts
            .sort_by(|a, b| b.overlap.total_cmp(&a.overlap));
        Ok(trials)
    }

    /// What can be chosen.
    pub fn space(&self) -> &'t Space {
        self.space
    }

    /// The splits of the allocators, the best first; at least one if any is
    /// possible.
    pub fn starts(&self) -> &[Start] {
        &self.starts
    }

    /// What `keep` is worth, E Σ min(p, q); `None` once the time is over, and
    /// nothing is run then.
    ///
    /// # Errors
    /// Those of [`Objective::measure`].
    pub fn measure(&mut self, keep: &Keep) -> Result<Option<f64>> {
        if self.objective.expired() {
            return Ok(None);
        }
        self.measure_at_any_cost(keep).map(Some)
    }

    /// Says where the search is (`generation 3`), and how many candidates it
    /// will still measure at most.
    pub fn describe(&mut self, place: &str, left: usize) {
        let detail = format!("{place}, overlap {:.4}", self.after.overlap);
        self.objective
            .describe(detail, self.objective.asked() + left);
    }

    /// The best so far.
    pub(super) fn found(self) -> Found {
        Found {
            keep: self.best,
            before: self.before,
            after: self.after,
            candidates: self.objective.asked(),
        }
    }

    fn measure_at_any_cost(&mut self, keep: &Keep) -> Result<f64> {
        let fitness = self.objective.measure(keep)?;
        if fitness.overlap > self.after.overlap {
            self.best.clone_from(keep);
            self.after = fitness;
        }
        Ok(fitness.overlap)
    }
}
