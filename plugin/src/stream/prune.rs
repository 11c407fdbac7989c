//! `prune --stream-prune`: a plan and a model on the hub → a checkpoint
//! directory.
//!
//! Beside the directory to write, a hidden sibling has what is not finished:
//!
//! ```text
//! .{name}.streaming/journal.json   the job, and the steps that are done
//! .{name}.streaming/source/        stand-ins, and the shards that are here
//! .{name}.streaming/result/        what becomes the directory
//! ```
//!
//! It stays when a run is cut off, and the same job goes on after the last
//! finished step.

use std::path::{Path, PathBuf};

use router_stats::checkpoint::Checkpoint;
use router_stats::family::{self, Family, Topology};
use router_stats::Error as StatsError;

use super::arriving::Arriving;
use super::journal::Journal;
use super::overall::Overall;
use crate::cache::Key;
use crate::format;
use crate::hub::Listed;
use crate::pipeline::Reporter;
use crate::plan::{Plan, ValidPlan};
use crate::surgery::{self, Kept, Layout, Streamed, Summary, SurgeryOptions};
use crate::{Error, Result};

/// Part of every job. Raise it when another version must not go on with what
/// this one began.
const GENERATION: &str = "1";

/// What is to be written.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// The plan, not yet checked.
    pub plan: Plan,
    /// What it is called in errors: its file.
    pub label: String,
    /// The directory to write.
    pub out: &'a Path,
    /// Where shards come, if not beside the directory.
    pub root: Option<PathBuf>,
    /// How it is written.
    pub options: SurgeryOptions,
}

/// What was written.
#[derive(Debug, Clone)]
pub struct Pruned {
    /// The weights.
    pub summary: Summary,
    /// The plan, with the sizes of this model.
    pub plan: Plan,
    /// Bytes of the disk that were foreseen at most.
    pub peak: u64,
}

/// A model whose names and shapes are here.
struct Source {
    arriving: Arriving,
    checkpoint: Checkpoint,
    family: &'static dyn Family,
    topology: Topology,
}

/// Writes what a plan leaves of a model on the hub, whose shards come one by
/// one. The result has the bytes that [`surgery::prune`] would write.
///
/// # Errors
/// Those of [`surgery::prune`]; [`Error::Hub`]; [`Error::OtherJob`] if another
/// job's unfinished work is there; [`Error::Space`]; [`Error::OtherModel`], at
/// the latest when all shards have been here, and then nothing is left.
pub fn prune(listed: &Listed, request: &Request<'_>, reporter: &dyn Reporter) -> Result<Pruned> {
    let Request {
        plan: asked,
        label,
        out,
        root,
        options,
    } = request;
    let kept = Kept::open(out, options.force)?;
    let (mut journal, fresh) = journal(&kept, listed, asked, options, reporter)?;
    let root = root.clone().unwrap_or_else(|| kept.path().join("source"));
    let prepared = Source::open(listed, &root, reporter).and_then(|mut source| {
        // Compared once all shards have been here.
        let claimed = asked.model.fingerprint.clone();
        source.checkpoint.claim_fingerprint(claimed);
        let valid = source.validated(asked, label)?;
        source.look(&valid, options)?;
        Ok((source, valid))
    });
    let (mut source, valid) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return Err(given_up(kept, fresh, error)),
    };
    let Source {
        arriving,
        checkpoint,
        family,
        topology,
    } = &mut source;
    let mut options = options.clone();
    options.card.prediction_layers = topology.prediction_layers;
    let options = &options;
    let sizes = arriving.sizes();
    let planned =
        Streamed::new(checkpoint, *family, topology, &valid, options, sizes).and_then(|streamed| {
            go_on(&mut journal, &streamed, &kept)?;
            let peak = streamed.peak(journal.done);
            arriving.expect_room(kept.path(), peak)?;
            Ok((streamed, peak))
        });
    let (streamed, peak) = match planned {
        Ok(planned) => planned,
        Err(error) => return Err(given_up(kept, fresh, error)),
    };
    say(&streamed, arriving, peak, journal.done, reporter);
    let result = kept.result();
    arriving.keep(checkpoint, |file| streamed.keeps(journal.done, file))?;
    for (index, step) in streamed.steps().iter().enumerate().skip(journal.done) {
        let overall = Overall::new("Streaming", sizes, &step.file, reporter);
        for file in std::iter::once(&step.file).chain(&step.needs) {
            arriving.bring(checkpoint, file, &overall)?;
        }
        streamed.take(index, checkpoint, &result, &overall)?;
        journal.done = index + 1;
        journal.write(kept.path())?;
        for file in &step.frees {
            arriving.let_go(checkpoint, file)?;
        }
    }
    let found = arriving.fingerprint(checkpoint, reporter)?;
    if found != asked.model.fingerprint {
        // What was written is of another model.
        kept.discard()?;
        return Err(Error::OtherModel {
            what: format!("{label} was"),
            fingerprint: asked.model.fingerprint.clone(),
            name: asked.model.name.clone(),
            found,
            found_name: checkpoint.name(),
        });
    }
    streamed.finish(checkpoint, &result)?;
    kept.finish()?;
    Ok(Pruned {
        summary: streamed.summary(),
        plan: valid.plan().clone(),
        peak,
    })
}

impl Source {
    fn open(listed: &Listed, root: &Path, reporter: &dyn Reporter) -> Result<Self> {
        let (arriving, checkpoint) = Arriving::open(listed, root, reporter)?;
        let family = family::detect(checkpoint.config())?;
        let topology = family.topology(checkpoint.config())?;
        Ok(Self {
            arriving,
            checkpoint,
            family,
            topology,
        })
    }

    fn validated(&self, plan: &Plan, label: &str) -> Result<ValidPlan> {
        let Self {
            checkpoint,
            family,
            topology,
            ..
        } = self;
        ValidPlan::named(plan.clone(), label, checkpoint, *family, topology)
    }

    /// Takes the few values that decide what is written.
    fn look(&mut self, plan: &ValidPlan, options: &SurgeryOptions) -> Result<()> {
        let Self {
            arriving,
            checkpoint,
            family,
            topology,
        } = self;
        let tensors = surgery::looked_at(checkpoint, *family, topology, plan.keep(), options);
        arriving.look_at(checkpoint, &tensors)
    }
}

/// What an earlier run of this job has done, and whether there was none.
///
/// # Errors
/// [`Error::OtherJob`], unless it is to be replaced.
fn journal(
    kept: &Kept,
    listed: &Listed,
    plan: &Plan,
    options: &SurgeryOptions,
    reporter: &dyn Reporter,
) -> Result<(Journal, bool)> {
    let layout = match options.layout {
        // The name of the layout does not tell its numbers.
        Layout::Uqff(uqff) => format!("uqff {} {}", uqff.weights.name(), uqff.device.name()),
        Layout::Gguf(weights) => format!("gguf {}", weights.name()),
        other => other.to_string(),
    };
    let commit: String = listed.commit().chars().take(7).collect();
    let new = Journal {
        job: Key::new("stream")
            .with(GENERATION)
            .with(env!("CARGO_PKG_VERSION"))
            .with(listed.id())
            .with(listed.commit())
            .with_json(plan)?
            .with(&layout)
            .with(&options.max_shard_bytes.to_string())
            .finish(),
        what: format!(
            "{} @ {commit} by the plan for {}, layout {layout}",
            listed.id(),
            plan.method.asked.flags().join(" ")
        ),
        places: String::new(),
        done: 0,
    };
    match Journal::read(kept.path()) {
        Some(old) if old.job == new.job => return Ok((old, false)),
        Some(old) if !options.force => {
            return Err(Error::OtherJob {
                path: kept.path().to_path_buf(),
                expected: new.what,
                found: old.what,
            });
        }
        Some(old) => {
            reporter.report("Discarded", &format!("the unfinished {}", old.what));
            kept.empty()?;
        }
        None => kept.empty()?,
    }
    new.write(kept.path())?;
    Ok((new, true))
}

/// Begins the result, or finds it as the journal has it.
fn go_on(journal: &mut Journal, streamed: &Streamed<'_>, kept: &Kept) -> Result<()> {
    let places = streamed.identity()?;
    let result = kept.result();
    let known = journal.places == places && streamed.is_begun(&result);
    if !known || journal.done == 0 {
        (journal.places, journal.done) = (places, 0);
        journal.write(kept.path())?;
        streamed.begin(&result)?;
    }
    Ok(())
}

/// Says what will happen.
fn say(
    streamed: &Streamed<'_>,
    arriving: &Arriving,
    peak: u64,
    done: usize,
    reporter: &dyn Reporter,
) {
    let (shards, bytes) = (arriving.sizes().len(), arriving.sizes().values().sum());
    let from = match done {
        0 => String::new(),
        _ => format!(", from shard {} on", (done + 1).min(shards)),
    };
    reporter.report(
        "Streaming",
        &format!(
            "{shards} shards, {}{from} → {}; at most {} on disk; the loss is not measured, as that \
             takes the whole model",
            format::bytes(bytes),
            format::bytes(streamed.summary().bytes),
            format::bytes(peak),
        ),
    );
}

/// The error, after removing what this run alone has begun and nobody could go
/// on with.
fn given_up(kept: Kept, fresh: bool, error: Error) -> Error {
    let goes_on = matches!(error, Error::Stats(StatsError::Interrupted));
    if fresh && !goes_on {
        // The error is what matters.
        let _ = kept.discard();
    }
    error
}
