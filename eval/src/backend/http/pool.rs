//! Several requests under way at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use router_stats::progress::{Progress, Update};

use crate::Result;

/// Who is told how far the work is.
pub(super) struct Meter<'a> {
    pub(super) progress: &'a dyn Progress,
    /// Name of the model that is asked.
    pub(super) model: &'a str,
}

/// Answers to `count` requests, `at_once` under way at a time, in order. The
/// first error, or a wish to stop, ends it after those under way.
pub(super) fn each<T: Send>(
    count: usize,
    at_once: usize,
    meter: Meter<'_>,
    ask: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    let mut answers: Vec<Option<T>> = (0..count).map(|_| None).collect();
    std::thread::scope(|scope| {
        for _ in 0..at_once.clamp(1, count.max(1)) {
            let (sender, next, ask) = (sender.clone(), &next, &ask);
            scope.spawn(move || loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                // Nobody listens any more after an error.
                if index >= count || sender.send((index, ask(index))).is_err() {
                    break;
                }
            });
        }
        drop(sender);
        for (done, (index, answer)) in receiver.into_iter().enumerate() {
            let taken = answer.and_then(|answer| {
                answers[index] = Some(answer);
                Ok(meter.progress.step(&Update {
                    stage: "Asking",
                    detail: meter.model,
                    unit: "requests",
                    done: done as u64 + 1,
                    total: count as u64,
                })?)
            });
            if taken.is_err() {
                next.store(count, Ordering::Relaxed);
                return taken;
            }
        }
        Ok(())
    })?;
    Ok(answers.into_iter().flatten().collect())
}
