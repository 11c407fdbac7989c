//! The progress of shard after shard as one bar.

use std::collections::BTreeMap;

use router_stats::progress::{Progress, Update};

/// Passes on what happens with one shard as part of all.
pub(super) struct Overall<'a> {
    progress: &'a dyn Progress,
    stage: &'static str,
    /// `shard 3/8`.
    detail: String,
    /// Bytes of the shards before it, of it, and of all.
    before: u64,
    bytes: u64,
    total: u64,
}

impl<'a> Overall<'a> {
    /// For the shard called `file` of those with `sizes`.
    pub(super) fn new(
        stage: &'static str,
        sizes: &BTreeMap<String, u64>,
        file: &str,
        progress: &'a dyn Progress,
    ) -> Self {
        let before = || sizes.iter().take_while(|(name, _)| name.as_str() < file);
        Self {
            progress,
            stage,
            detail: format!("shard {}/{}", before().count() + 1, sizes.len()),
            before: before().map(|(_, bytes)| bytes).sum(),
            bytes: sizes.get(file).copied().unwrap_or_default(),
            total: sizes.values().sum(),
        }
    }
}

impl Progress for Overall<'_> {
    fn update(&self, update: &Update<'_>) {
        // Once it has come, what is made of it takes little time.
        let done = match update.stage {
            "Downloading" => update.done.min(self.bytes),
            _ => self.bytes,
        };
        self.progress.update(&Update {
            stage: self.stage,
            detail: &self.detail,
            unit: "B",
            done: self.before + done,
            total: self.total,
        });
    }

    fn cancelled(&self) -> bool {
        self.progress.cancelled()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_shard_is_a_part_of_all() {
        #[derive(Default)]
        struct Told(Mutex<Vec<(String, u64, u64)>>);
        impl Progress for Told {
            fn update(&self, update: &Update<'_>) {
                let told = (update.detail.to_owned(), update.done, update.total);
                self.0.lock().unwrap().push(told);
            }
        }
        let sizes = [("a", 10), ("b", 20), ("c", 30)];
        let sizes = sizes.map(|(name, bytes)| (name.to_owned(), bytes)).into();
        let told = Told::default();
        let overall = Overall::new("Streaming", &sizes, "b", &told);
        for (stage, done) in [("Downloading", 5), ("Pruning", 1)] {
            overall.update(&Update {
                stage,
                detail: "",
                unit: "B",
                done,
                total: 7,
            });
        }
        let expected = [
            ("shard 2/3".to_owned(), 15, 60),
            ("shard 2/3".to_owned(), 30, 60),
        ];
        assert_eq!(*told.0.lock().unwrap(), expected);
    }
}
