//! One stage over a whole search, in place of those of every candidate.

use router_stats::progress::{Progress, Update};

/// Reports the stages of one candidate as its part of the search. A token
/// counts when it has gone through the blocks and been compared, half each.
pub(super) struct OfSearch<'a> {
    pub(super) inner: &'a dyn Progress,
    /// What the search is doing: `generation 3, overlap 0.8123`.
    pub(super) detail: &'a str,
    /// Candidates before it.
    pub(super) before: u64,
    /// Candidates of the search.
    pub(super) candidates: u64,
    /// Tokens of a candidate.
    pub(super) tokens: u64,
}

impl Progress for OfSearch<'_> {
    fn update(&self, update: &Update<'_>) {
        let compared = update.stage == "Comparing";
        let halves = update.done + if compared { self.tokens } else { 0 };
        self.inner.update(&Update {
            stage: "Searching",
            detail: self.detail,
            unit: "tok",
            done: self.before * self.tokens + halves.min(2 * self.tokens) / 2,
            total: self.candidates * self.tokens,
        });
    }

    fn cancelled(&self) -> bool {
        self.inner.cancelled()
    }
}
