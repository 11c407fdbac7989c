//! How a pass reports that is one of several.

use router_stats::progress::{Progress, Update};

/// Reports a part of the work as a part.
pub(super) struct Part<'a> {
    pub(super) progress: &'a dyn Progress,
    /// Tokens done before.
    pub(super) before: u64,
    /// Tokens of all parts.
    pub(super) all: u64,
}

impl Progress for Part<'_> {
    fn update(&self, update: &Update<'_>) {
        self.progress.update(&Update {
            done: self.before + update.done,
            total: self.all,
            ..*update
        });
    }

    fn cancelled(&self) -> bool {
        self.progress.cancelled()
    }
}

/// Passes on the wish to stop alone.
pub(super) struct Stop<'a>(pub(super) &'a dyn Progress);

impl Progress for Stop<'_> {
    fn update(&self, _: &Update<'_>) {}

    fn cancelled(&self) -> bool {
        self.0.cancelled()
    }
}
