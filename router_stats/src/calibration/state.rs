//! A run between two blocks, and what a killed run leaves to continue from.
//!
//! A state folder holds, for the last finished depth d:
//!
//! * `hidden.<d>`: the residual stream of every batch, f32, concatenated;
//! * `stats.<d>`: the statistics so far;
//! * `last.<i>` for i ≤ d: last-token states at depth i, f32;
//! * `run.json`: the key of the run and d, renamed into place last.
//!
//! Whatever else is there was not finished, or belongs to a run with another
//! key, and is overwritten. So is a state that is damaged: a file is missing or
//! of another length, or a number is not finite. A run holds `lock` locked.
//!
//! A killed program costs at most the running block. Hidden states are not
//! forced to disk after every block, so a power loss may cost the whole run, or
//! leave values in them that no check can tell from true ones.

mod folder;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use candle_core::{Device, Tensor};

pub use folder::remove_state;
use folder::{holds_floats, read_floats, Folder};

use super::run::{Batches, CalibrateOptions};
use super::Sequences;
use crate::forward::{rows, Batch, Model};
use crate::stats::{Stats, Table};
use crate::{Error, Result};

/// Statistics and hidden states between two blocks. Depth 0 is the embedding,
/// depth d is after d blocks.
pub(super) struct State {
    /// Blocks of the model, width of its residual stream H, and where it runs.
    layers: usize,
    width: usize,
    device: Device,
    /// What the observers saw so far.
    pub stats: Stats,
    /// Last-token states at every finished depth, S × H each.
    pub last: Vec<Vec<f32>>,
    /// Rows of each batch.
    rows: Vec<usize>,
    /// Sequences of all batches, S.
    sequences: usize,
    /// Residual stream of each batch [N, H]; all `None` when spilled or when no
    /// block is left to run.
    hidden: Vec<Option<Tensor>>,
    spill: bool,
    folder: Option<Folder>,
    /// Residual stream after the running block, being written.
    next: Option<BufWriter<File>>,
}

impl State {
    /// Continues the run that `key` names if the state folder holds it, else
    /// is to begin with the [embedding](Self::embed) and `empty` statistics.
    /// What can be another in runs with one key, the provenance, is that of
    /// `empty` either way.
    ///
    /// # Errors
    /// `Structure` if spilling is asked for without a state folder,
    /// `StateInUse` if another run has it, or `Io`.
    pub(super) fn open(
        model: &Model,
        batches: &Batches,
        options: &CalibrateOptions,
        key: String,
        empty: Stats,
    ) -> Result<Self> {
        if options.spill && options.state.is_none() {
            return Err(Error::Structure {
                what: "spilling hidden states".to_owned(),
                expected: "a state folder to spill to".to_owned(),
                found: "none".to_owned(),
            });
        }
        let topology = model.topology();
        let mut state = Self {
            layers: topology.layers(),
            width: topology.hidden,
            device: model.device().clone(),
            stats: empty,
            last: Vec::new(),
            rows: batches.iter().map(|(_, batch)| batch.rows()).collect(),
            sequences: batches.iter().map(|(range, _)| range.len()).sum(),
            hidden: vec![None; batches.len()],
            spill: options.spill,
            folder: match &options.state {
                Some(path) => Some(Folder::open(path.clone(), key)?),
                None => None,
            },
            next: None,
        };
        // Nothing to continue from is no error.
        let _ = state.resume();
        Ok(state)
    }

    /// Whether there is nothing yet, not even the embedding.
    pub(super) fn is_empty(&self) -> bool {
        self.last.is_empty()
    }

    /// The last finished depth, which is the index of the block to run next.
    pub(super) fn depth(&self) -> usize {
        self.last.len() - 1
    }

    /// Takes the residual stream of a batch before the running block.
    pub(super) fn take(&mut self, batch: usize) -> Result<Tensor> {
        match (self.hidden[batch].take(), &self.folder) {
            (Some(hidden), _) => Ok(hidden),
            (None, Some(folder)) => {
                let values = self.read(&folder.file("hidden", self.depth()), batch)?;
                self.tensor(batch, values)
            }
            (None, None) => unreachable!("a batch is taken once per block and put back"),
        }
    }

    /// Gives back the residual stream of a batch after the running block.
    /// Batches come in order; that of the last block is needed no more.
    pub(super) fn put(&mut self, batch: usize, hidden: Tensor) -> Result<()> {
        let depth = self.last.len();
        if depth == self.layers {
            // No block is left to read it.
            return Ok(());
        }
        if let Some(folder) = &self.folder {
            let path = folder.file("hidden", depth);
            let next = match &mut self.next {
                Some(next) => next,
                None => self.next.insert(BufWriter::new(
                    File::create(&path).map_err(Error::io(&path))?,
                )),
            };
            let mut write = |values: &[f32]| next.write_all(bytemuck::cast_slice(values));
            let written = match rows::with_slices([&hidden], |[values]| write(values))? {
                Some(written) => written,
                None => write(&hidden.flatten_all()?.to_vec1::<f32>()?),
            };
            written.map_err(Error::io(&path))?;
        }
        if !self.spill {
            self.hidden[batch] = Some(hidden);
        }
        Ok(())
    }

    /// Stores the last finished depth, so that a rerun continues after it.
    pub(super) fn save(&mut self) -> Result<()> {
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        let depth = self.depth();
        if let Some(mut next) = self.next.take() {
            next.flush()
                .map_err(Error::io(folder.file("hidden", depth)))?;
        }
        self.stats.write(folder.file("stats", depth))?;
        let last = folder.file("last", depth);
        fs::write(&last, bytemuck::cast_slice(&self.last[depth])).map_err(Error::io(&last))?;
        folder.mark(depth)?;
        folder.forget(depth.checked_sub(1));
        Ok(())
    }

    /// Begins with the embedding.
    ///
    /// # Errors
    /// What embedding returns, or `Io`.
    pub(super) fn embed(
        &mut self,
        model: &Model,
        sequences: &Sequences,
        batches: &Batches,
    ) -> Result<()> {
        if let Some(folder) = &self.folder {
            folder.unmark()?;
        }
        let embedding = model.embedding()?;
        let mut last = Vec::new();
        for (index, (range, batch)) in batches.iter().enumerate() {
            let hidden = model.embed(&embedding, sequences, range.clone())?;
            last.extend(last_tokens(&hidden, batch)?);
            self.put(index, hidden)?;
        }
        self.last.push(last);
        self.save()
    }

    /// Loads the state folder; `None` if there is nothing to continue from or
    /// it is damaged, which costs time but nothing else.
    fn resume(&mut self) -> Option<()> {
        let folder = self.folder.as_ref()?;
        let depth = folder.depth()?;
        let last = (0..=depth)
            .map(|depth| {
                let path = folder.file("last", depth);
                let count = self.sequences * self.width;
                finite(holds_floats(&path, count).then(|| read_floats(&path, 0, count))?)
            })
            .collect::<Option<Vec<_>>>()?;
        let stats = Stats::read(folder.file("stats", depth)).ok()?;
        let shapes = |stats: &Stats| -> Vec<(String, Vec<usize>)> {
            let shape = |(name, table): (&String, &Table)| (name.clone(), table.shape.clone());
            stats.tables.iter().map(shape).collect()
        };
        if shapes(&stats) != shapes(&self.stats) {
            return None;
        }
        if depth < self.layers {
            self.hidden = self.resume_hidden(&folder.file("hidden", depth))?;
        }
        (self.last, self.stats.tables) = (last, stats.tables);
        Some(())
    }

    /// The residual stream of every batch, each `None` if it is spilled.
    fn resume_hidden(&self, path: &Path) -> Option<Vec<Option<Tensor>>> {
        let count = self.rows.iter().sum::<usize>() * self.width;
        if !holds_floats(path, count) {
            return None;
        }
        (0..self.rows.len())
            .map(|batch| {
                let values = finite(self.read(path, batch))?;
                Some(match self.spill {
                    true => None,
                    false => Some(self.tensor(batch, values).ok()?),
                })
            })
            .collect()
    }

    /// The residual stream of a batch from a file of hidden states.
    fn read(&self, path: &Path, batch: usize) -> Result<Vec<f32>> {
        let width = self.width;
        let first: usize = self.rows[..batch].iter().sum();
        read_floats(path, first * width, self.rows[batch] * width)
    }

    fn tensor(&self, batch: usize, values: Vec<f32>) -> Result<Tensor> {
        let shape = (self.rows[batch], self.width);
        Ok(Tensor::from_vec(values, shape, &self.device)?)
    }
}

/// What was read, if it is finite.
fn finite(read: Result<Vec<f32>>) -> Option<Vec<f32>> {
    read.ok()
        .filter(|values| values.iter().all(|value| value.is_finite()))
}

/// The last row of every sequence, flattened: S × H.
pub(super) fn last_tokens(hidden: &Tensor, batch: &Batch) -> Result<Vec<f32>> {
    let last: Vec<u32> = batch.sequences().map(|rows| rows.end as u32 - 1).collect();
    Ok(rows::gather(hidden, &last)?.flatten_all()?.to_vec1()?)
}
