//! From a checkpoint and a plan to a smaller checkpoint directory.
//!
//! ```text
//! classify   refuses tensors that would be wrong after pruning
//! layout     which tensors the result has, and where each one's bytes come from
//! sublayers  what stands in the place of a sublayer that goes, or why nothing can
//! pairs      \
//! values      } what the engine needs stored otherwise, to compute the same
//! bias       /
//! gguf       the same tensors in one file for llama.cpp
//! uqff       the same tensors as the engine's own format, with counts that differ by layer
//! shard      which file each goes to: headers, index and size, before a byte is written
//! write      streams the bytes, one expert at a time
//! place      puts them where they go in the files
//! streamed   the same where shards of the source come and go: what can be written when
//! companion  config.json, tokenizer, licence: everything that is not a weight
//! card       what was removed and what it cost, for README.md
//! directory  a temporary sibling that becomes the result by one rename
//! held       what the engine keeps of it in memory
//! ```
//!
//! Weights are moved, never computed: a bf16 weight that stays is the same
//! sixteen bits afterwards, and in [`Layout::Hf`]
//! [`Keep::all`](router_stats::family::Keep::all) reproduces every tensor. The
//! engine's copy may have rows in another order, zeros between them and a
//! router bias that is raised as a whole; [`Layout::Uqff`] and
//! [`Layout::Gguf`] alone compute, since numbers may be asked for that the
//! source does not have. Surgery does not choose what goes
//! (see [`crate::plan`]).

mod bias;
mod card;
mod classify;
mod companion;
mod directory;
#[cfg(test)]
mod fixture;
mod fp8;
mod gguf;
mod held;
mod layout;
mod pairs;
mod place;
mod served;
mod shard;
mod streamed;
mod sublayers;
#[cfg(test)]
mod tests;
mod uqff;
mod values;
mod write;

use std::path::Path;

use router_stats::checkpoint::Checkpoint;
use router_stats::family::{Family, Keep, Topology};
use router_stats::progress::Progress;

pub use card::CardFacts;
pub use companion::{companions_hash, copy as write_companions};
pub(crate) use directory::{Kept, Sibling};
pub use held::Held;
pub use layout::Layout;
pub use served::refusal;
pub(crate) use streamed::{looked_at, Streamed};
pub use sublayers::check_asked;
pub use uqff::{Uqff, UqffDevice, UqffWeights};

use crate::plan::ValidPlan;
use crate::{Error, Result};
use shard::Shard;

/// File in a pruned directory that holds the plan it was made with.
pub const PLAN_FILE: &str = "pruning_plan.json";

/// File in a pruned directory that holds what pruning cost, if it was measured.
pub const REPORT_FILE: &str = "pruning_report.json";

/// How [`prune`] writes.
#[derive(Debug, Clone)]
pub struct SurgeryOptions {
    /// How experts are stored.
    pub layout: Layout,
    /// Largest shard, in bytes of tensor data. A tensor that is larger gets a
    /// shard of its own.
    pub max_shard_bytes: u64,
    /// Whether a pruned checkpoint that is already there is replaced.
    pub force: bool,
    /// What the model card says beyond the plan.
    pub card: CardFacts,
}

impl Default for SurgeryOptions {
    /// Engine layout, shards of 5 GB, nothing replaced, loss not measured.
    fn default() -> Self {
        Self {
            layout: Layout::Engine,
            max_shard_bytes: 5_000_000_000,
            force: false,
            card: CardFacts::default(),
        }
    }
}

/// What [`prune`] wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Bytes of all tensors, as in the index's `total_size`.
    pub bytes: u64,
    /// Number of tensors.
    pub tensors: usize,
    /// Number of weight files.
    pub shards: usize,
}

impl Summary {
    fn of(shards: &[Shard]) -> Self {
        Self {
            bytes: shards.iter().map(|shard| shard.bytes).sum(),
            tensors: shards.iter().map(|shard| shard.outputs.len()).sum(),
            shards: shards.len(),
        }
    }
}

/// Writes what `plan` leaves of `checkpoint` to the directory `out`.
///
/// The result holds the weights, the rewritten `config.json`, the tokenizer
/// and other companions of the source, its model card with a section on what
/// was removed, the plan itself as [`PLAN_FILE`] and what it cost, if known, as
/// [`REPORT_FILE`]. It is written to a
/// hidden sibling of `out` and renamed when complete, so `out` never holds
/// half a checkpoint; on any failure the sibling is removed.
///
/// # Errors
/// - those of [`check`] and [`check_counts`];
/// - [`crate::Error::OutputExists`], [`crate::Error::NotReplaceable`] or [`crate::Error::OutputBusy`]
///   if `out` cannot be written;
/// - [`crate::Error::Unclassified`] if the checkpoint has a tensor that the family
///   does not account for;
/// - [`crate::Error::Stats`]: a router or expert that is missing or has another shape,
///   a full disk, an interruption.
pub fn prune(
    checkpoint: &Checkpoint,
    family: &'static dyn Family,
    topology: &Topology,
    plan: &ValidPlan,
    out: &Path,
    options: &SurgeryOptions,
    progress: &dyn Progress,
) -> Result<Summary> {
    check_counts(checkpoint, family, topology, plan, options.layout)?;
    let cut = Cut::new(checkpoint, family, topology, plan.keep(), options.layout);
    write_directory(&cut, out, options, progress, |directory| {
        say(checkpoint, plan, directory, options)
    })
}

/// Writes what became of the model and why into the pruned `directory`.
fn say(
    checkpoint: &Checkpoint,
    plan: &ValidPlan,
    directory: &Path,
    options: &SurgeryOptions,
) -> Result<()> {
    crate::plan::write(plan.plan(), directory.join(PLAN_FILE))?;
    record(checkpoint, plan, directory, options.layout, &options.card)
}

/// Fails where [`prune`] would before it writes anything, for the reasons that
/// do not depend on the plan.
///
/// # Errors
/// [`crate::Error::NotServed`], [`crate::Error::OutputExists`] and
/// [`crate::Error::NotReplaceable`], as in [`prune`].
pub fn check(
    checkpoint: &Checkpoint,
    family: &'static dyn Family,
    topology: &Topology,
    out: &Path,
    options: &SurgeryOptions,
) -> Result<()> {
    let keep = Keep::all(topology);
    let cut = Cut::new(checkpoint, family, topology, &keep, options.layout);
    cut.check_served()?;
    directory::check(out, checkpoint.dir(), options.force)
}

/// Fails if no configuration describes what `plan` leaves of the layers: if it
/// keeps different numbers of experts in them and `layout` states one, or can
/// state several but not of this model; or if it takes sublayers that the family
/// cannot be without.
///
/// # Errors
/// [`Error::NotWritten`], [`Error::UnevenExperts`], [`Error::NotRequantised`]
/// and [`Error::NotServed`].
pub fn check_counts(
    checkpoint: &Checkpoint,
    family: &'static dyn Family,
    topology: &Topology,
    plan: &ValidPlan,
    layout: Layout,
) -> Result<()> {
    sublayers::check(&checkpoint.name(), family, topology, plan.keep())?;
    match layout {
        Layout::Hf | Layout::Engine => {
            Cut::new(checkpoint, family, topology, plan.keep(), layout).check_numbers()?;
            plan.expect_even()
        }
        Layout::Gguf(_) => {
            plan.expect_even()?;
            gguf::check(&Cut::new(checkpoint, family, topology, plan.keep(), layout))
        }
        Layout::Uqff(_) => {
            let cut = Cut::new(checkpoint, family, topology, plan.keep(), layout);
            cut.check_served()?;
            uqff::check_runs(&cut)
        }
    }
}

/// Writes the model card of the pruned `directory`, and the report if there is
/// one: when it is made, or when its loss is measured later. The card is written
/// anew, so the facts are all that it says beyond the plan.
///
/// # Errors
/// I/O errors.
pub fn record(
    checkpoint: &Checkpoint,
    plan: &ValidPlan,
    directory: &Path,
    layout: Layout,
    facts: &CardFacts,
) -> Result<()> {
    let section = card::section(plan.plan(), layout, facts);
    companion::write_card(
        checkpoint.dir(),
        directory,
        &plan.plan().model.name,
        &section,
    )?;
    // Last, so that where there is a report the card has its numbers.
    if let Some(report) = &facts.report {
        report.write(&directory.join(REPORT_FILE))?;
    }
    Ok(())
}

/// Writes all of `checkpoint` and its companions to the directory `out` in
/// another layout. The result has no model card of its own.
///
/// # Errors
/// Those of [`prune`].
pub fn convert(
    checkpoint: &Checkpoint,
    family: &'static dyn Family,
    topology: &Topology,
    layout: Layout,
    out: &Path,
    progress: &dyn Progress,
) -> Result<Summary> {
    let keep = Keep::all(topology);
    let cut = Cut::new(checkpoint, family, topology, &keep, layout);
    write_directory(
        &cut,
        out,
        &SurgeryOptions {
            layout,
            ..SurgeryOptions::default()
        },
        progress,
        |_| Ok(()),
    )
}

/// Whether `checkpoint` is stored in `layout` already.
///
/// # Errors
/// Those of [`prune`] that concern the source.
pub fn is_stored_as(
    checkpoint: &Checkpoint,
    family: &'static dyn Family,
    topology: &Topology,
    layout: Layout,
) -> Result<bool> {
    let keep = Keep::all(topology);
    let cut = Cut::new(checkpoint, family, topology, &keep, layout);
    let outputs = layout::outputs(&cut)?;
    // Multi-token-prediction blocks may be there: no reader minds them.
    let mut config = companion::config(&cut)?;
    let stored = checkpoint.config().value();
    if topology.prediction_layers > 0 {
        config["num_nextn_predict_layers"] = stored["num_nextn_predict_layers"].clone();
    }
    Ok(outputs.iter().all(layout::Output::is_unchanged) && config == *stored)
}

/// A cut through a checkpoint: what there is, what stays, how it is stored.
#[derive(Clone, Copy)]
struct Cut<'a> {
    checkpoint: &'a Checkpoint,
    family: &'static dyn Family,
    topology: &'a Topology,
    keep: &'a Keep,
    layout: Layout,
}

impl<'a> Cut<'a> {
    fn new(
        checkpoint: &'a Checkpoint,
        family: &'static dyn Family,
        topology: &'a Topology,
        keep: &'a Keep,
        layout: Layout,
    ) -> Self {
        Self {
            checkpoint,
            family,
            topology,
            keep,
            layout,
        }
    }

    /// Whether blocks of the source are asked for.
    fn takes_blocks(&self) -> bool {
        matches!(self.layout, Layout::Uqff(_))
    }

    /// Fails if the source is in GGUF and the result would have other numbers.
    ///
    /// # Errors
    /// [`Error::NotRequantised`]
    fn check_numbers(&self) -> Result<()> {
        let same = match self.layout {
            Layout::Hf | Layout::Engine => false,
            Layout::Uqff(Uqff { weights, .. }) | Layout::Gguf(weights) => {
                weights == UqffWeights::Float
            }
        };
        if self.checkpoint.gguf().is_none() || same {
            return Ok(());
        }
        Err(Error::NotRequantised {
            model: self.checkpoint.name(),
            asked: match self.layout {
                Layout::Uqff(Uqff { weights, .. }) | Layout::Gguf(weights) => {
                    format!("{} of {}", self.layout, weights.name())
                }
                other => other.to_string(),
            },
        })
    }

    /// Fails if the engine would not take the result and it is written for it.
    fn check_served(&self) -> Result<()> {
        self.check_numbers()?;
        if let Layout::Gguf(_) = self.layout {
            return gguf::check(self);
        }
        let cpu = matches!(self.layout, Layout::Uqff(uqff) if uqff.device == UqffDevice::Cpu);
        if !self.layout.is_for_engine() {
            return Ok(());
        }
        match refusal(self.checkpoint, self.family, self.topology, cpu) {
            None if matches!(self.layout, Layout::Uqff(_)) => uqff::check(self),
            None => Ok(()),
            Some(reason) => Err(Error::NotServed {
                model: self.checkpoint.name(),
                reason,
            }),
        }
    }

    /// Whether the result stacks the experts of a layer.
    fn stacks_experts(&self) -> bool {
        match self.layout {
            Layout::Hf => self.family.stacks_experts(),
            Layout::Gguf(_) | Layout::Uqff(_) => false,
            Layout::Engine => self
                .family
                .serving(self.topology)
                .layout()
                .is_some_and(|layout| layout.stacked),
        }
    }
}

/// Everything of [`prune`] that depends on what stays but not on why; `record`
/// adds the why to the directory.
fn write_directory(
    cut: &Cut<'_>,
    out: &Path,
    options: &SurgeryOptions,
    progress: &dyn Progress,
    record: impl FnOnce(&Path) -> Result<()>,
) -> Result<Summary> {
    let shards = shards(cut, options)?;
    let summary = Summary::of(&shards);
    let partial = directory::Partial::create(out, cut.checkpoint.dir(), options.force)?;
    place::weights(cut, &shards, partial.path(), progress)?;
    companion::write(cut, partial.path())?;
    record(partial.path())?;
    partial.finish()?;
    Ok(summary)
}

/// The weight files of what `cut` leaves.
fn shards(cut: &Cut<'_>, options: &SurgeryOptions) -> Result<Vec<Shard>> {
    cut.check_served()?;
    match cut.layout {
        Layout::Hf | Layout::Engine => {
            shard::partition(layout::outputs(cut)?, options.max_shard_bytes)
        }
        Layout::Gguf(weights) => Ok(vec![gguf::file(cut, weights)?]),
        Layout::Uqff(uqff) => {
            let files = uqff::files(cut, uqff)?;
            let residual = |_, _| uqff::RESIDUAL.to_owned();
            let mut shards = shard::partition_as(files.residual, u64::MAX, residual)?;
            shards.extend(shard::partition_as(
                files.artifacts,
                options.max_shard_bytes,
                |index, _| uqff.file(index),
            )?);
            Ok(shards)
        }
    }
}
