//! Law 6, in process: a calibration that is stopped continues, and the result
//! is that of one that was not, bit for bit.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use prune_tests::{ragged, Golden};
use router_stats::calibration::{calibrate, remove_state, CalibrateOptions, Sequences};
use router_stats::forward::{Model, IN_FLIGHT};
use router_stats::progress::{Progress, Update};
use router_stats::stats::Stats;
use router_stats::{Error, Result};

/// Asks to stop at a step, counted from 1.
struct StopAt {
    step: usize,
    steps: AtomicUsize,
}

impl StopAt {
    fn new(step: usize) -> Self {
        let steps = AtomicUsize::new(0);
        Self { step, steps }
    }

    fn never() -> Self {
        Self::new(usize::MAX)
    }

    fn steps(&self) -> usize {
        self.steps.load(Ordering::Relaxed)
    }
}

impl Progress for StopAt {
    fn update(&self, _: &Update<'_>) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    fn cancelled(&self) -> bool {
        self.steps() >= self.step
    }
}

/// A calibration in a folder of its own.
struct Run<'a> {
    model: &'a Model,
    sequences: Sequences,
    options: CalibrateOptions,
    folder: tempfile::TempDir,
}

impl<'a> Run<'a> {
    fn new(model: &'a Model, spill: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            model,
            sequences: ragged(&[2, 9, 5, 13, 7, 3, 11, 4], 259, 2),
            options: CalibrateOptions {
                batch_tokens: 13,
                state: Some(folder.path().join("state")),
                spill,
                ..CalibrateOptions::default()
            },
            folder,
        }
    }

    fn state(&self) -> &Path {
        self.options.state.as_deref().unwrap()
    }

    fn go(&self, progress: &StopAt) -> Result<Stats> {
        calibrate(self.model, &self.sequences, &self.options, progress)
    }

    fn stop_at(&self, step: usize) {
        assert!(matches!(
            self.go(&StopAt::new(step)),
            Err(Error::Interrupted)
        ));
        assert!(self.state().is_dir());
    }

    /// Steps that a run to the end takes now, and the bytes of its result.
    fn finish(&self) -> (usize, Vec<u8>) {
        let progress = StopAt::never();
        let stats = self.go(&progress).unwrap();
        let path = self.folder.path().join("whole.stats");
        stats.write(&path).unwrap();
        remove_state(self.state()).unwrap();
        assert!(!self.state().exists());
        (progress.steps(), fs::read(path).unwrap())
    }

    /// Steps of one block.
    fn block(&self) -> usize {
        let batches = self.sequences.batches(self.options.batch_tokens).len();
        let steps = batches.div_ceil(IN_FLIGHT);
        assert!(steps > 2);
        steps
    }
}

#[test]
fn stopped_anywhere_it_continues_after_the_last_finished_block() {
    for golden in Golden::all() {
        for spill in [false, true] {
            let run = Run::new(&golden.model, spill);
            let (all, expected) = run.finish();
            assert_eq!(all, run.block() * golden.layers());
            for step in 1..=all {
                run.stop_at(step);
                let (steps, bytes) = run.finish();
                // The step that stops a block is not the end of it.
                let finished = (step - 1) / run.block();
                assert_eq!(
                    steps,
                    all - finished * run.block(),
                    "stopped at step {step}"
                );
                assert!(bytes == expected, "stopped at step {step}");
            }
        }
    }
}

#[test]
fn stopped_again_and_again_it_still_ends() {
    for golden in Golden::all() {
        for spill in [false, true] {
            let run = Run::new(&golden.model, spill);
            let (_, expected) = run.finish();
            // One block and a bit at a time, all but the last.
            for _ in 1..golden.layers() {
                run.stop_at(run.block() + 1);
            }
            let (steps, bytes) = run.finish();
            assert_eq!(steps, run.block());
            assert!(bytes == expected);
        }
    }
}

#[test]
fn spilling_does_not_change_the_result() {
    for golden in Golden::all() {
        let [kept, spilled] = [false, true].map(|spill| Run::new(&golden.model, spill).finish());
        assert!(kept == spilled);
    }
}

#[test]
fn a_folder_may_change_between_memory_and_disk() {
    for golden in Golden::all() {
        let mut run = Run::new(&golden.model, false);
        let (all, expected) = run.finish();
        run.stop_at(run.block() + 2);
        run.options.spill = true;
        let (steps, bytes) = run.finish();
        assert_eq!(steps, all - run.block());
        assert!(bytes == expected);
    }
}

#[test]
fn the_state_of_another_run_is_not_continued() {
    for golden in Golden::all() {
        let mut run = Run::new(&golden.model, false);
        let (all, expected) = run.finish();
        run.sequences.hash.push('!');
        run.stop_at(run.block() + 1);
        run.sequences.hash.pop();
        assert!(run.finish() == (all, expected));
    }
}

#[test]
fn what_a_kill_left_half_written_is_done_again() {
    for golden in Golden::all() {
        let run = Run::new(&golden.model, false);
        let (all, expected) = run.finish();
        run.stop_at(run.block() + 2);
        // The residual stream of a block that did not finish, cut off.
        fs::write(run.state().join("hidden.2"), [0; 100]).unwrap();
        fs::write(run.state().join("stats.2"), b"half").unwrap();
        assert!(run.finish() == (all - run.block(), expected.clone()));
        // The mark is the first to go when the folder is removed.
        run.stop_at(run.block() + 2);
        fs::remove_file(run.state().join("run.json")).unwrap();
        fs::remove_file(run.state().join("last.0")).unwrap();
        assert!(run.finish() == (all, expected));
    }
}
