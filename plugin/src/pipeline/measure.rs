//! Text → statistics.

use std::path::PathBuf;

use router_stats::calibration::{
    calibrate, remove_state, CalibrateOptions, Corpus, PackOptions, Sequences,
};
use router_stats::stats::Stats;

use super::{texts, Model, Reporter, CACHED};
use crate::cache::{self, Cache, Key};
use crate::format;
use crate::Result;

/// How statistics are made.
#[derive(Debug, Clone)]
pub struct Calibration {
    /// Tokens over all domains.
    pub tokens: usize,
    /// Tokens of a sequence.
    pub seq_len: usize,
    /// Seed of the order of documents.
    pub seed: u64,
    /// Tokens that go through a block together.
    pub batch_tokens: usize,
    /// Whether hidden states wait on disk instead of in memory.
    pub spill: bool,
}

impl Default for Calibration {
    fn default() -> Self {
        Self {
            tokens: 65_536,
            seq_len: 512,
            seed: 0,
            batch_tokens: CalibrateOptions::default().batch_tokens,
            spill: false,
        }
    }
}

impl Calibration {
    /// How documents are packed.
    pub fn pack(&self) -> PackOptions {
        PackOptions {
            seq_len: self.seq_len,
            tokens: self.tokens,
            seed: self.seed,
        }
    }
}

/// Statistics in the cache.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Key of the entry, for what depends on it.
    pub key: String,
    /// The file.
    pub path: PathBuf,
}

impl Measured {
    /// Reads the file.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(&self) -> Result<Stats> {
        Ok(Stats::read(&self.path)?)
    }
}

/// Statistics of `model` on `corpus`, from the cache or made now. An earlier
/// attempt that was interrupted is continued.
///
/// # Errors
/// Those of calibrating, and if the cache cannot be written.
pub fn measure(
    model: &Model,
    corpus: &Corpus,
    options: &Calibration,
    cache: &Cache,
    reporter: &dyn Reporter,
) -> Result<Measured> {
    let run = |model: &mut &Model, sequences: &Sequences, options: &CalibrateOptions| {
        Ok(calibrate(&model.forward, sequences, options, reporter)?)
    };
    measure_by(
        &mut { model },
        |it| it,
        run,
        (corpus, options),
        cache,
        reporter,
    )
}

/// As [`measure`], of what has a model and says how it is calibrated.
///
/// # Errors
/// Those of [`measure`] and of `run`.
pub(super) fn measure_by<S>(
    source: &mut S,
    model: impl Fn(&S) -> &Model,
    run: impl FnOnce(&mut S, &Sequences, &CalibrateOptions) -> Result<Stats>,
    (corpus, options): (&Corpus, &Calibration),
    cache: &Cache,
    reporter: &dyn Reporter,
) -> Result<Measured> {
    let of = model(source);
    let key = Key::new("stats")
        .with(&of.fingerprint)
        .with(&of.companions)
        .with(&corpus.hash())
        .with(&format!(
            "{} {} {}",
            options.tokens, options.seq_len, options.seed
        ))
        .finish();
    let measured = Measured {
        path: cache.stats(&key),
        key,
    };
    let state = cache.partial(&measured.key);
    let _lock = cache.lock(&measured.key, reporter)?;
    if measured.path.exists() {
        match Stats::read(&measured.path) {
            Ok(_) => {
                remove_state(&state)?;
                reporter.report(CACHED, &format!("statistics   {}", measured.path.display()));
                return Ok(measured);
            }
            // Another version wrote it; this one makes its own.
            Err(router_stats::Error::StatsVersion { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    cache::make_parent(&measured.path)?;
    let sequences = texts::sequences(corpus, of, &options.pack())?;
    let started = std::time::Instant::now();
    let how = CalibrateOptions {
        batch_tokens: options.batch_tokens,
        state: Some(state.clone()),
        spill: options.spill,
        shard: [0, 1],
    };
    let stats = run(source, &sequences, &how)?;
    stats.write(&measured.path)?;
    remove_state(&state)?;
    let tokens = sequences.tokens.len() as u64;
    let rate = tokens as f64 / started.elapsed().as_secs_f64().max(1e-9);
    reporter.report(
        "Calibrated",
        &format!(
            "{} tokens, {} domains, {} tok/s",
            format::count(tokens),
            sequences.names.len(),
            format::short(rate.round())
        ),
    );
    Ok(measured)
}
