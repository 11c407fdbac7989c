//! Several files at a time, with one count of bytes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{mpsc, Arc, Mutex, PoisonError};
use std::time::Duration;

use router_stats::progress::{Progress, Update};

use super::listing::Entry;
use super::store::Store;
use super::transfer::Transfer;
use super::wire::Wire;
use super::Failure;

/// Files that are downloaded at the same time.
const WORKERS: usize = 4;

/// How often transfers are asked for news.
const POLL: Duration = Duration::from_millis(100);

/// What all transfers of one call share.
struct Shared {
    wire: Wire,
    store: Store,
    id: String,
    commit: String,
    waiting: Mutex<VecDeque<Entry>>,
    stop: AtomicBool,
    here: AtomicU64,
    done: AtomicUsize,
}

/// Downloads `entries` that are not there yet, [`WORKERS`] at a time. The first failure
/// ends all; what has come stays.
///
/// # Errors
/// [`Failure`]; [`Failure::Local`] if the user asks to stop, which is heard
/// even while nothing comes.
pub(super) fn fetch(
    wire: &Wire,
    store: &Store,
    id: &str,
    commit: &str,
    entries: &[Entry],
    progress: &dyn Progress,
) -> Result<(), Failure> {
    let missing = |entry: &&Entry| !store.snapshot().join(&entry.name).exists();
    let missing: Vec<Entry> = entries.iter().filter(missing).cloned().collect();
    fetch_all(wire, store, id, commit, missing, progress)
}

/// As [`fetch`], whatever the snapshot shows of `entries` already.
///
/// # Errors
/// Those of [`fetch`].
pub(super) fn fetch_all(
    wire: &Wire,
    store: &Store,
    id: &str,
    commit: &str,
    entries: Vec<Entry>,
    progress: &dyn Progress,
) -> Result<(), Failure> {
    let waiting = VecDeque::from(entries);
    if waiting.is_empty() {
        return Ok(());
    }
    store.create()?;
    let (files, total) = (waiting.len(), waiting.iter().filter_map(|it| it.size).sum());
    let shared = Arc::new(Shared {
        wire: wire.clone(),
        store: store.clone(),
        id: id.to_owned(),
        commit: commit.to_owned(),
        waiting: Mutex::new(waiting),
        stop: AtomicBool::new(false),
        here: AtomicU64::new(0),
        done: AtomicUsize::new(0),
    });
    let (sender, ended) = mpsc::channel();
    let mut working = WORKERS.min(files);
    // Threads and not a scope: one that waits for a silent host is left to its
    // time-out when the user asks to stop.
    for _ in 0..working {
        let (shared, sender) = (shared.clone(), sender.clone());
        std::thread::spawn(move || {
            // Nobody listens any more once the call has ended.
            let _ = sender.send(shared.work());
        });
    }
    drop(sender);
    let mut failed = None;
    while working > 0 {
        match ended.recv_timeout(POLL) {
            Ok(result) => {
                working -= 1;
                if let Err(failure) = result {
                    shared.stop.store(true, Ordering::Relaxed);
                    failed.get_or_insert(failure);
                }
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {}
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let broken = "a transfer ended without a result".to_owned();
                return Err(failed.unwrap_or(Failure::Transport(broken)));
            }
        }
        let done = shared.here.load(Ordering::Relaxed);
        let told = progress.step(&Update {
            stage: "Downloading",
            detail: &format!("{}/{files} files", shared.done.load(Ordering::Relaxed)),
            unit: "B",
            done,
            total: done.max(total),
        });
        if let Err(interrupted) = told {
            shared.stop.store(true, Ordering::Relaxed);
            return Err(interrupted.into());
        }
    }
    failed.map_or(Ok(()), Err)
}

impl Shared {
    /// Downloads what waits until nothing does.
    fn work(&self) -> Result<(), Failure> {
        loop {
            let next = self
                .waiting
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .pop_front();
            let Some(entry) = next else {
                return Ok(());
            };
            let transfer = Transfer {
                wire: &self.wire,
                store: &self.store,
                id: &self.id,
                commit: &self.commit,
                entry: &entry,
                stop: &self.stop,
                here: &self.here,
            };
            transfer.run()?;
            self.done.fetch_add(1, Ordering::Relaxed);
        }
    }
}
