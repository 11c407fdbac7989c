use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use candle_core::Device;

use super::super::remove_state;
use super::*;
use crate::checkpoint::Checkpoint;

const BATCH_TOKENS: usize = 12;

/// Counts steps, and asks to stop at one of them.
struct StopAt(usize, AtomicUsize);

impl StopAt {
    fn new(step: usize) -> Self {
        Self(step, AtomicUsize::new(0))
    }

    fn steps(&self) -> usize {
        self.1.load(Ordering::Relaxed)
    }
}

impl Progress for StopAt {
    fn update(&self, _: &Update<'_>) {
        self.1.fetch_add(1, Ordering::Relaxed);
    }

    fn cancelled(&self) -> bool {
        self.steps() >= self.0
    }
}

fn golden() -> &'static Path {
    Path::new(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../tests/golden/mixtral"
    ))
}

fn open(dir: &Path) -> Model {
    Model::open(Arc::new(Checkpoint::open(dir).unwrap()), &Device::Cpu).unwrap()
}

/// Sequences of 2 to 11 tokens in two domains.
fn sequences() -> Sequences {
    let lengths = [2, 9, 5, 11, 7, 3, 8, 4];
    let mut starts = vec![0];
    for length in lengths {
        starts.push(starts[starts.len() - 1] + length);
    }
    Sequences {
        tokens: (0..starts[lengths.len()] as u32)
            .map(|i| i * 37 % 256)
            .collect(),
        domains: vec![0, 1, 0, 1, 0, 1, 0, 1],
        document: vec![0; 8],
        names: vec!["code".to_owned(), "prose".to_owned()],
        weights: vec![1.0; 2],
        documents: vec![1; 2],
        seq_len: 11,
        seed: 0,
        hash: "text".to_owned(),
        starts,
    }
}

/// A run in a state folder of its own.
struct Run {
    model: Model,
    sequences: Sequences,
    options: CalibrateOptions,
    _dir: tempfile::TempDir,
}

impl Run {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            model: open(golden()),
            sequences: sequences(),
            options: CalibrateOptions {
                batch_tokens: BATCH_TOKENS,
                state: Some(dir.path().join("state")),
                ..CalibrateOptions::default()
            },
            _dir: dir,
        }
    }

    fn state(&self) -> &Path {
        self.options.state.as_deref().unwrap()
    }

    fn go(&self, progress: &dyn Progress) -> Result<Stats> {
        calibrate(&self.model, &self.sequences, &self.options, progress)
    }

    /// Steps of a run to the end, and what it returns.
    fn finish(&self) -> (usize, Stats) {
        let progress = StopAt::new(usize::MAX);
        let stats = self.go(&progress).unwrap();
        (progress.steps(), stats)
    }

    fn block(&self) -> usize {
        let batches = self.sequences.batches(BATCH_TOKENS).len();
        batches.div_ceil(IN_FLIGHT)
    }

    /// Runs from the start until depth `depth` is stored.
    fn stop_after(&self, depth: usize) {
        remove_state(self.state()).unwrap();
        let progress = StopAt::new(depth * self.block() + 1);
        assert!(matches!(self.go(&progress), Err(Error::Interrupted)));
    }
}

#[test]
fn a_complete_state_is_returned_at_once_until_it_is_removed() {
    let run = Run::new();
    let (all, stats) = run.finish();
    assert_eq!(all, run.block() * run.model.topology().layers());
    assert_eq!(run.finish(), (0, stats.clone()));
    remove_state(run.state()).unwrap();
    assert!(!run.state().exists());
    assert_eq!(run.finish(), (all, stats));
}

#[test]
fn a_continued_run_has_its_own_provenance() {
    let mut run = Run::new();
    let (_, mut expected) = run.finish();
    run.stop_after(1);
    run.sequences.weights = vec![0.5, 2.0];
    for (domain, weight) in expected.provenance.domains.iter_mut().zip([0.5, 2.0]) {
        domain.weight = weight;
    }
    assert_eq!(run.finish().1, expected);
}

#[test]
fn a_damaged_state_is_begun_anew() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 10] = [
        ("last.0", |file| fs::remove_file(file).unwrap()),
        ("last.1", |file| fs::write(file, [0; 5]).unwrap()),
        ("last.1", |file| set_first(file, f32::NAN)),
        ("stats.1", |file| fs::remove_file(file).unwrap()),
        ("stats.1", |file| fs::write(file, b"half").unwrap()),
        ("stats.1", |file| {
            let mut stats = Stats::read(file).unwrap();
            stats.tables.remove(TOKENS);
            stats.write(file).unwrap();
        }),
        ("hidden.1", |file| fs::remove_file(file).unwrap()),
        ("hidden.1", |file| {
            let bytes = fs::read(file).unwrap();
            fs::write(file, &bytes[..bytes.len() - 4]).unwrap();
        }),
        ("hidden.1", |file| set_first(file, f32::INFINITY)),
        ("run.json", |file| {
            let mark = fs::read_to_string(file).unwrap();
            fs::write(file, mark.replace("\"depth\":1", "\"depth\":9")).unwrap();
        }),
    ];
    for spill in [false, true] {
        let mut run = Run::new();
        run.options.spill = spill;
        let (all, expected) = run.finish();
        run.stop_after(1);
        assert_eq!(run.finish(), (all - run.block(), expected.clone()));
        for (file, damage) in &damages {
            run.stop_after(1);
            damage(&run.state().join(file));
            assert!(run.finish() == (all, expected.clone()), "{file}");
        }
    }
}

/// Overwrites the first number of a file of f32.
fn set_first(file: &Path, value: f32) {
    let mut bytes = fs::read(file).unwrap();
    bytes[..4].copy_from_slice(&value.to_ne_bytes());
    fs::write(file, bytes).unwrap();
}

#[test]
fn another_runs_mark_is_gone_before_its_files_are_overwritten() {
    let mut run = Run::new();
    run.stop_after(0);
    run.sequences.hash.push('!');
    run.sequences.tokens[0] = u32::MAX;
    assert!(matches!(
        run.go(&StopAt::new(usize::MAX)),
        Err(Error::Structure { .. })
    ));
    assert!(!run.state().join("run.json").exists());
}

#[test]
fn a_state_folder_serves_one_run() {
    /// Starts the same run again in the middle of it.
    struct Again<'a>(&'a Run);
    impl Progress for Again<'_> {
        fn update(&self, _: &Update<'_>) {
            let second = self.0.go(&StopAt::new(usize::MAX));
            assert!(
                matches!(&second, Err(Error::StateInUse { path }) if path == self.0.state()),
                "{second:?}"
            );
        }
    }
    let run = Run::new();
    run.go(&Again(&run)).unwrap();
}

#[test]
fn activations_that_overflow_are_named() {
    for (tensor, layer) in [
        ("model.layers.1.post_attention_layernorm.weight", 1),
        ("model.layers.2.self_attn.o_proj.weight", 2),
    ] {
        let dir = tempfile::tempdir().unwrap();
        for file in ["config.json", "model.safetensors"] {
            fs::copy(golden().join(file), dir.path().join(file)).unwrap();
        }
        let path = dir.path().join("model.safetensors");
        let mut bytes = fs::read(&path).unwrap();
        let header = crate::checkpoint::header::parse(&bytes).unwrap();
        let info = header.tensors.into_iter().find(|(name, _)| name == tensor);
        let (start, end) = info.unwrap().1.data_offsets;
        // 3.4e38, the largest bf16 and nearly the largest f32.
        bytes[start..end].fill(0x7f);
        fs::write(&path, bytes).unwrap();
        let options = CalibrateOptions {
            batch_tokens: BATCH_TOKENS,
            ..CalibrateOptions::default()
        };
        let error = calibrate(
            &open(dir.path()),
            &sequences(),
            &options,
            &StopAt::new(usize::MAX),
        )
        .unwrap_err();
        assert!(error.hint().is_some());
        match error {
            Error::NonFiniteActivations {
                path, layer: found, ..
            } => assert_eq!((path.as_path(), found), (dir.path(), layer)),
            other => panic!("{tensor}: {other}"),
        }
    }
}
