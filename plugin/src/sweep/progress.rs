//! One stage over the whole grid, in place of those of every point.

use router_stats::progress::{Progress, Update};

/// Reports the stages of one variant as its part of the grid. A token counts
/// when it has gone through the blocks and been compared, half each.
pub(super) struct OfGrid<'a> {
    pub(super) inner: &'a dyn Progress,
    /// The point: `12/190 reap 0.25, on mix, seed 0`.
    pub(super) detail: String,
    /// Points that were done in this run before it.
    pub(super) before: u64,
    /// Points of this run.
    pub(super) points: u64,
    /// Tokens of a point.
    pub(super) tokens: u64,
}

impl Progress for OfGrid<'_> {
    fn update(&self, update: &Update<'_>) {
        let compared = update.stage == "Comparing";
        let halves = update.done + if compared { self.tokens } else { 0 };
        self.inner.update(&Update {
            stage: "Sweeping",
            detail: &self.detail,
            unit: "tok",
            done: self.before * self.tokens + halves.min(2 * self.tokens) / 2,
            total: self.points * self.tokens,
        });
    }

    fn cancelled(&self) -> bool {
        self.inner.cancelled()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn points_add_up_to_the_grid() {
        struct Last(Mutex<(u64, u64)>);
        impl Progress for Last {
            fn update(&self, update: &Update<'_>) {
                *self.0.lock().unwrap() = (update.done, update.total);
            }
        }
        let last = Last(Mutex::new((0, 0)));
        let point = OfGrid {
            inner: &last,
            detail: String::new(),
            before: 2,
            points: 4,
            tokens: 100,
        };
        for (stage, done, expected) in [
            ("Evaluating", 0, 200),
            ("Evaluating", 100, 250),
            ("Comparing", 0, 250),
            ("Comparing", 100, 300),
        ] {
            point.update(&Update {
                stage,
                detail: "",
                unit: "tok",
                done,
                total: 100,
            });
            assert_eq!(*last.0.lock().unwrap(), (expected, 400));
        }
    }
}
