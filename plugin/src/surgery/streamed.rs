//! A pruning whose source comes shard by shard.
//!
//! The files of the result, and where each tensor goes in them, are known from
//! names and shapes. Shards of the source come in the order of their names; a
//! tensor is written to its place as soon as all its sources are there, and a
//! shard is let go once nothing that is unwritten needs it. So the disk holds
//! the result and few shards, and how much at most is known beforehand. Does
//! not know where shards come from, nor keep account of what is done: a step
//! may be taken again, and writes the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;

use router_stats::checkpoint::{Checkpoint, ExpertReader};
use router_stats::family::{Family, Keep, Projection, Topology, SCALE_SUFFIX};
use router_stats::progress::Progress;
use router_stats::Error as StatsError;

use super::layout::{Output, Source};
use super::shard::Shard;
use super::{bias, companion, place, say, shards, Cut, Summary, SurgeryOptions};
use crate::cache::Key;
use crate::plan::ValidPlan;
use crate::Result;

/// What is written when.
pub(crate) struct Streamed<'a> {
    family: &'static dyn Family,
    topology: &'a Topology,
    plan: &'a ValidPlan,
    options: &'a SurgeryOptions,
    shards: Vec<Shard>,
    steps: Vec<Step>,
}

/// What one more shard of the source makes possible.
#[derive(Debug, Default)]
pub(crate) struct Step {
    /// The shard that comes.
    pub(crate) file: String,
    /// Bytes of it.
    bytes: u64,
    /// All shards that this step reads.
    pub(crate) needs: BTreeSet<String>,
    /// Shards that no later step reads.
    pub(crate) frees: BTreeSet<String>,
    /// Shards of the result, and which of their tensors.
    outputs: BTreeMap<usize, Vec<usize>>,
    /// Bytes of those.
    writes: u64,
}

/// The tensors whose values decide what is written, so that they have to be
/// there before their shards.
pub(crate) fn looked_at(
    checkpoint: &Checkpoint,
    family: &'static dyn Family,
    topology: &Topology,
    keep: &Keep,
    options: &SurgeryOptions,
) -> Vec<String> {
    let cut = Cut::new(checkpoint, family, topology, keep, options.layout);
    bias::looked_at(&cut)
}

impl<'a> Streamed<'a> {
    /// Decides what is written when, with the shards of `checkpoint`, whose
    /// names and bytes are `sources`.
    ///
    /// # Errors
    /// Those of [`prune`](super::prune) that concern names and shapes.
    pub(crate) fn new(
        checkpoint: &Checkpoint,
        family: &'static dyn Family,
        topology: &'a Topology,
        plan: &'a ValidPlan,
        options: &'a SurgeryOptions,
        sources: &BTreeMap<String, u64>,
    ) -> Result<Self> {
        super::check_counts(checkpoint, family, topology, plan, options.layout)?;
        let cut = Cut::new(checkpoint, family, topology, plan.keep(), options.layout);
        let shards = shards(&cut, options)?;
        let steps = steps(&cut, &shards, sources)?;
        Ok(Self {
            family,
            topology,
            plan,
            options,
            shards,
            steps,
        })
    }

    /// The steps, in order.
    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// What tells these places of everything from others.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub(crate) fn identity(&self) -> Result<String> {
        let mut key = Key::new("places");
        for shard in &self.shards {
            let header = String::from_utf8_lossy(&shard.header);
            key = key.with(&shard.file).with(&header);
        }
        for step in &self.steps {
            key = key
                .with(&step.file)
                .with_json(&(&step.needs, &step.outputs))?;
        }
        Ok(key.finish())
    }

    /// Whether the shard of the source called `file` is read again once `done`
    /// steps are taken, or is the next to come.
    pub(crate) fn keeps(&self, done: usize, file: &str) -> bool {
        let comes = self.steps.iter().position(|step| step.file == file);
        let goes = self.steps.iter().position(|step| step.frees.contains(file));
        comes.is_some_and(|at| at <= done) && goes.is_some_and(|at| at >= done)
    }

    /// What the result has.
    pub(crate) fn summary(&self) -> Summary {
        Summary::of(&self.shards)
    }

    /// Bytes of the result and of the shards of the source that are there with
    /// it, at most, once `done` steps are taken.
    pub(crate) fn peak(&self, done: usize) -> u64 {
        let mut written: u64 = self.shards.iter().map(|it| it.header.len() as u64).sum();
        let (mut held, mut peak) = (BTreeMap::new(), 0);
        for (index, step) in self.steps.iter().enumerate() {
            held.insert(&step.file, step.bytes);
            written += step.writes;
            if index >= done {
                peak = peak.max(written + held.values().sum::<u64>());
            }
            held.retain(|file, _| !step.frees.contains(*file));
        }
        peak.max(written)
    }

    /// Makes the files of the result in `directory`, which is made anew.
    ///
    /// # Errors
    /// I/O errors.
    pub(crate) fn begin(&self, directory: &Path) -> Result<()> {
        if directory.exists() {
            fs::remove_dir_all(directory).map_err(StatsError::io(directory))?;
        }
        fs::create_dir(directory).map_err(StatsError::io(directory))?;
        for shard in &self.shards {
            let path = directory.join(&shard.file);
            let file = place::begin(shard, directory)?;
            let whole = file.set_len(length(shard)).and_then(|()| file.sync_all());
            whole.map_err(StatsError::io(&path))?;
        }
        Ok(())
    }

    /// Whether `directory` has the files that [`begin`](Self::begin) makes.
    pub(crate) fn is_begun(&self, directory: &Path) -> bool {
        self.shards.iter().all(|shard| {
            let file = fs::metadata(directory.join(&shard.file));
            file.is_ok_and(|file| file.is_file() && file.len() == length(shard))
        })
    }

    /// Writes what step `index` makes possible, to disk for good.
    ///
    /// # Errors
    /// [`StatsError::NotHere`] unless all that the step needs is there; I/O
    /// errors; an interruption.
    pub(crate) fn take(
        &self,
        index: usize,
        checkpoint: &Checkpoint,
        directory: &Path,
        progress: &dyn Progress,
    ) -> Result<()> {
        let cut = self.cut(checkpoint);
        let step = &self.steps[index];
        let mut writer = place::Writer::new(&cut, directory, progress, step.writes);
        for (&shard, outputs) in &step.outputs {
            writer.place(&self.shards[shard], outputs.iter().copied())?;
        }
        for &shard in step.outputs.keys() {
            let path = directory.join(&self.shards[shard].file);
            let synced = File::open(&path).and_then(|file| file.sync_all());
            synced.map_err(StatsError::io(&path))?;
        }
        Ok(())
    }

    /// Writes everything of the result that is not a weight.
    ///
    /// # Errors
    /// I/O errors.
    pub(crate) fn finish(&self, checkpoint: &Checkpoint, directory: &Path) -> Result<()> {
        let cut = self.cut(checkpoint);
        place::index(&cut, &self.shards, directory)?;
        companion::write(&cut, directory)?;
        say(checkpoint, self.plan, directory, self.options)
    }

    fn cut<'b>(&'b self, checkpoint: &'b Checkpoint) -> Cut<'b> {
        Cut::new(
            checkpoint,
            self.family,
            self.topology,
            self.plan.keep(),
            self.options.layout,
        )
    }
}

/// Bytes of a whole shard.
fn length(shard: &Shard) -> u64 {
    shard.header.len() as u64 + shard.bytes
}

/// One step for every source, in the order of names.
fn steps(cut: &Cut<'_>, shards: &[Shard], sources: &BTreeMap<String, u64>) -> Result<Vec<Step>> {
    let named = |(file, &bytes): (&String, &u64)| Step {
        file: file.clone(),
        bytes,
        ..Step::default()
    };
    let mut steps: Vec<Step> = sources.iter().map(named).collect();
    let places: BTreeMap<&str, usize> = sources.keys().map(String::as_str).zip(0..).collect();
    // A shard that nothing is made of goes at once.
    let mut last: Vec<usize> = (0..steps.len()).collect();
    for (index, shard) in shards.iter().enumerate() {
        for (output, tensor) in shard.outputs.iter().enumerate() {
            let files = files(cut, tensor)?;
            let needed = || files.iter().filter_map(|file| places.get(file.as_str()));
            let at = needed().copied().max().unwrap_or(0);
            for &place in needed() {
                last[place] = last[place].max(at);
            }
            if let Some(step) = steps.get_mut(at) {
                step.needs.extend(files);
                step.outputs.entry(index).or_default().push(output);
                step.writes += tensor.bytes;
            }
        }
    }
    for (file, last) in sources.keys().zip(last) {
        steps[last].frees.insert(file.clone());
    }
    Ok(steps)
}

/// Names of the source's files that a tensor is made of.
fn files(cut: &Cut<'_>, output: &Output) -> Result<BTreeSet<String>> {
    let mut tensors = Vec::new();
    read(cut, output, &mut tensors)?;
    tensors
        .iter()
        .map(|tensor| Ok(cut.checkpoint.place(tensor)?.0.to_owned()))
        .collect()
}

/// Names of the tensors that `output` is made of.
fn read(cut: &Cut<'_>, output: &Output, tensors: &mut Vec<String>) -> Result<()> {
    match &output.source {
        Source::Zeros => {}
        Source::Copy { tensor }
        | Source::Rows { tensor, .. }
        | Source::Padded { tensor, .. }
        | Source::Raised { tensor, .. } => tensors.push(tensor.clone()),
        Source::Weight { tensor } => {
            let scales = format!("{tensor}{SCALE_SUFFIX}");
            tensors.push(tensor.clone());
            tensors.extend(Some(scales).filter(|it| cut.checkpoint.contains(it)));
        }
        Source::Scaled { inner, .. } => read(cut, inner, tensors)?,
        Source::Widened(widened) => read(cut, &widened.inner, tensors)?,
        Source::Artifact(artifact) => {
            for part in artifact.parts.iter().flatten().chain(&artifact.bias) {
                read(cut, part, tensors)?;
            }
        }
        Source::Packed(packed) => {
            for part in &packed.parts {
                read(cut, part, tensors)?;
            }
        }
        Source::Matrix {
            layer,
            expert,
            projection,
        }
        | Source::Numbers {
            layer,
            expert,
            projection,
            ..
        } => experts(cut, *layer, &[*expert], &[*projection], tensors)?,
        Source::StackGateUp { layer, experts: of } => {
            let projections = [Projection::Gate, Projection::Up];
            experts(cut, *layer, of, &projections, tensors)?;
        }
        Source::StackDown { layer, experts: of } => {
            experts(cut, *layer, of, &[Projection::Down], tensors)?;
        }
    }
    Ok(())
}

/// Names of the tensors that hold matrices of `experts`.
fn experts(
    cut: &Cut<'_>,
    layer: usize,
    experts: &[usize],
    projections: &[Projection],
    tensors: &mut Vec<String>,
) -> Result<()> {
    let names = cut.family.names();
    let Some(moe) = cut.topology.moe(layer) else {
        unreachable!("layout reads experts of MoE layers only")
    };
    let hidden = cut.topology.hidden;
    let reader = ExpertReader::open(cut.checkpoint, names, layer, moe, hidden)?;
    for &projection in projections {
        for &expert in experts {
            tensors.push(reader.tensor(expert, projection)?.name.to_owned());
        }
    }
    Ok(())
}
