//! Text → statistics, of no more of it than the decision needs.

mod chunks;

use router_stats::calibration::{calibrate, CalibrateOptions, Corpus, PackOptions, Sequences};
use router_stats::progress::{Progress, Update};
use router_stats::stats::{Parts, Stats};

pub use chunks::Chunks;

use super::{texts, Calibration, Model, Reporter};
use crate::format;
use crate::plan::{self, PlanOptions};
use crate::stability::{self, Rounds, Stability, DRAWS};
use crate::Result;

/// When to stop calibrating, and where to keep what is finished.
#[derive(Debug)]
pub struct UntilStable<'a> {
    /// What is to be decided.
    pub plan: &'a PlanOptions,
    /// Mean Jaccard index of draws at which the decision is stable.
    pub stability: f64,
    /// Finished chunks, and the state of the running one.
    pub chunks: Chunks,
}

/// Where a calibration stopped.
#[derive(Debug)]
pub struct Settled {
    /// Statistics of all rounds: those of calibrating with that many tokens, but
    /// for the rounding of batches that are cut elsewhere.
    pub stats: Stats,
    /// Of the last round.
    pub stability: Stability,
    /// Whether it is as stable as was asked.
    pub stable: bool,
}

/// Calibrates in [`Rounds`], each with twice the text of the one before, until
/// the decision is stable or the budget of `calibration` is used up. Chunks that
/// an interrupted run finished are not run again.
///
/// # Errors
/// Those of packing, calibrating and planning; [`crate::Error::OnePart`] if the
/// budget holds so little text that nothing can be compared.
pub fn until_stable(
    model: &Model,
    corpus: &Corpus,
    calibration: &Calibration,
    until: &UntilStable<'_>,
    reporter: &dyn Reporter,
) -> Result<Settled> {
    let sequences = texts::sequences(corpus, model, &calibration.pack())?;
    let rounds = Rounds::new(&sequences, calibration.tokens);
    let mut parts: Vec<Stats> = Vec::new();
    let mut round = 0;
    loop {
        let new = rounds.chunks(round);
        let new = run(model, &sequences, &new, round, calibration, until, reporter)?;
        let new = new.into_iter().map(stability::without_unread).collect();
        parts = stability::add_round(parts, new)?;
        let all = Parts::new(parts)?;
        let stability = resampled(model, &all, until.plan, reporter)?;
        let domains = &all.provenance().domains;
        let tokens: u64 = domains.iter().map(|domain| domain.tokens).sum();
        let said = format!("{} tokens: {}", format::count(tokens), summary(&stability));
        reporter.report(&format!("Round {}", round + 1), &said);
        let stable = stability.jaccard >= until.stability;
        if stable || round + 1 == rounds.count() {
            let pack = PackOptions {
                tokens: rounds.budget(round),
                ..calibration.pack()
            };
            let held = (0..=round).flat_map(|round| rounds.chunks(round));
            let held: Vec<Sequences> = held.map(|chunk| sequences.select(&chunk)).collect();
            let mut stats = until.chunks.together(model, &held, calibration)?;
            let packed = texts::sequences(corpus, model, &pack)?;
            let domains = stats.provenance.domains.iter_mut();
            for (domain, documents) in domains.zip(packed.documents) {
                domain.documents = documents;
            }
            stats.provenance.corpus = packed.hash;
            return Ok(Settled {
                stats,
                stability,
                stable,
            });
        }
        parts = all.into_parts();
        round += 1;
    }
}

/// Plans bootstrap draws of `parts` as `options` ask and compares them.
///
/// # Errors
/// Those of [`stability::stability`] and of planning.
pub fn resampled(
    model: &Model,
    parts: &Parts,
    options: &PlanOptions,
    progress: &dyn Progress,
) -> Result<Stability> {
    let mut done = 0;
    stability::stability(parts, options.seed, &mut |stats| {
        progress.step(&Update {
            stage: "Resampling",
            detail: "",
            unit: "draws",
            done,
            total: DRAWS as u64,
        })?;
        done += 1;
        let (checkpoint, family) = (model.checkpoint(), model.family());
        let plan = plan::plan(stats, checkpoint, family, model.topology(), options)?;
        Ok(plan.plan().layers.clone())
    })
}

/// `Jaccard 0.962, 9 of 128 experts undecided`.
pub(crate) fn summary(stability: &Stability) -> String {
    format!(
        "Jaccard {:.3}, {} of {} experts undecided",
        stability.jaccard,
        stability.undecided,
        format::count(stability.experts as u64)
    )
}

/// Statistics of the chunks that are new in a round, finished ones from disk.
fn run(
    model: &Model,
    sequences: &Sequences,
    chunks: &[Vec<usize>],
    round: usize,
    calibration: &Calibration,
    until: &UntilStable<'_>,
    reporter: &dyn Reporter,
) -> Result<Vec<Stats>> {
    let chunks: Vec<Sequences> = chunks.iter().map(|chunk| sequences.select(chunk)).collect();
    let total: usize = chunks.iter().map(|chunk| chunk.tokens.len()).sum();
    let mut before = 0;
    let mut finished = Vec::with_capacity(chunks.len());
    for chunk in &chunks {
        let progress = InRound {
            inner: reporter,
            round,
            before,
            total: total as u64,
        };
        before += chunk.tokens.len() as u64;
        if let Some(stats) = until.chunks.read(model, chunk, calibration) {
            finished.push(stats);
            continue;
        }
        let options = CalibrateOptions {
            batch_tokens: calibration.batch_tokens,
            state: Some(until.chunks.state().to_path_buf()),
            spill: calibration.spill,
            shard: [0, 1],
        };
        let stats = calibrate(&model.forward, chunk, &options, &progress)?;
        until.chunks.write(model, chunk, calibration, &stats)?;
        finished.push(stats);
    }
    Ok(finished)
}

/// The progress of one chunk as that of its round.
struct InRound<'a> {
    inner: &'a dyn Reporter,
    round: usize,
    /// Tokens of the chunks before it.
    before: u64,
    /// Tokens of all chunks of the round.
    total: u64,
}

impl Progress for InRound<'_> {
    fn update(&self, update: &Update<'_>) {
        self.inner.update(&Update {
            detail: &format!("round {}, {}", self.round + 1, update.detail),
            done: self.before + update.done,
            total: self.total,
            ..*update
        });
    }

    fn cancelled(&self) -> bool {
        self.inner.cancelled()
    }
}
