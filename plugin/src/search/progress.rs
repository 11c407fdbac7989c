//! One stage over many variants of a model, in place of those of each.

use router_stats::progress::{Progress, Update};

/// Reports the stages of one variant as its part of all. A token counts when it
/// has gone through the blocks and been compared, half each.
pub(crate) struct OfMany<'a> {
    pub(crate) inner: &'a dyn Progress,
    /// What is done with all: `Searching`.
    pub(crate) stage: &'a str,
    /// Where in it: `generation 3, overlap 0.8123`.
    pub(crate) detail: &'a str,
    /// Variants before it.
    pub(crate) before: u64,
    /// Variants in all.
    pub(crate) variants: u64,
    /// Tokens of a variant.
    pub(crate) tokens: u64,
}

impl Progress for OfMany<'_> {
    fn update(&self, update: &Update<'_>) {
        let compared = update.stage == "Comparing";
        let halves = update.done + if compared { self.tokens } else { 0 };
        self.inner.update(&Update {
            stage: self.stage,
            detail: self.detail,
            unit: "tok",
            done: self.before * self.tokens + halves.min(2 * self.tokens) / 2,
            total: self.variants * self.tokens,
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
    fn variants_add_up() {
        struct Last(Mutex<(u64, u64)>);
        impl Progress for Last {
            fn update(&self, update: &Update<'_>) {
                *self.0.lock().unwrap() = (update.done, update.total);
            }
        }
        let last = Last(Mutex::new((0, 0)));
        let point = OfMany {
            inner: &last,
            stage: "Sweeping",
            detail: "",
            before: 2,
            variants: 4,
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
