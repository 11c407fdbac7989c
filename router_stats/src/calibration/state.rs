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
//! key, and is overwritten.

use std::fs::{self, File};
use std::io::{BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use serde::{Deserialize, Serialize};

use super::run::{Batches, CalibrateOptions};
use super::Sequences;
use crate::forward::{rows, Batch, Model};
use crate::stats::Stats;
use crate::{atomic, Error, Result};

/// File that names the run and its last finished depth.
const MARK: &str = "run.json";

/// Statistics and hidden states between two blocks. Depth 0 is the embedding,
/// depth d is after d blocks.
pub(super) struct State<'a> {
    model: &'a Model,
    /// What the observers saw so far.
    pub stats: Stats,
    /// Last-token states at every finished depth, S × H each.
    pub last: Vec<Vec<f32>>,
    /// Rows of each batch.
    rows: Vec<usize>,
    /// Residual stream of each batch [N, H]; all `None` when spilled.
    hidden: Vec<Option<Tensor>>,
    spill: bool,
    folder: Option<Folder>,
    /// Residual stream after the running block, being written.
    next: Option<BufWriter<File>>,
}

impl<'a> State<'a> {
    /// Continues the run that `key` names if the state folder holds it, else
    /// begins with the embedding and `empty` statistics.
    ///
    /// # Errors
    /// `Structure` if spilling is asked for without a state folder, `Io`, or
    /// what embedding returns.
    pub(super) fn open(
        model: &'a Model,
        sequences: &Sequences,
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
        let mut state = Self {
            model,
            stats: empty,
            last: Vec::new(),
            rows: batches.iter().map(|(_, batch)| batch.rows()).collect(),
            hidden: vec![None; batches.len()],
            spill: options.spill,
            folder: options.state.clone().map(|path| Folder { path, key }),
            next: None,
        };
        if !state.resume()? {
            state.embed(sequences, batches)?;
        }
        Ok(state)
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
                let first = self.rows[..batch].iter().sum();
                self.read(
                    &folder.file("hidden", self.depth()),
                    first,
                    self.rows[batch],
                )
            }
            (None, None) => unreachable!("a batch is taken once per block and put back"),
        }
    }

    /// Gives back the residual stream of a batch after the running block.
    /// Batches come in order.
    pub(super) fn put(&mut self, batch: usize, hidden: Tensor) -> Result<()> {
        if let Some(folder) = &self.folder {
            let path = folder.file("hidden", self.last.len());
            let next = match &mut self.next {
                Some(next) => next,
                None => self.next.insert(BufWriter::new(
                    File::create(&path).map_err(Error::io(&path))?,
                )),
            };
            let values: Vec<f32> = hidden.flatten_all()?.to_vec1()?;
            next.write_all(bytemuck::cast_slice(&values))
                .map_err(Error::io(&path))?;
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

    /// Removes the state folder and returns the statistics.
    pub(super) fn finish(self) -> Result<Stats> {
        if let Some(folder) = &self.folder {
            // The mark goes first, so that a kill in between leaves no folder
            // that looks like one to continue from.
            let mark = folder.path.join(MARK);
            fs::remove_file(&mark).map_err(Error::io(&mark))?;
            fs::remove_dir_all(&folder.path).map_err(Error::io(&folder.path))?;
        }
        Ok(self.stats)
    }

    fn embed(&mut self, sequences: &Sequences, batches: &Batches) -> Result<()> {
        if let Some(folder) = &self.folder {
            fs::create_dir_all(&folder.path).map_err(Error::io(&folder.path))?;
        }
        let embedding = self.model.embedding()?;
        let mut last = Vec::new();
        for (index, (range, batch)) in batches.iter().enumerate() {
            let hidden = self.model.embed(&embedding, sequences, range.clone())?;
            last.extend(last_tokens(&hidden, batch)?);
            self.put(index, hidden)?;
        }
        self.last.push(last);
        self.save()
    }

    /// Loads the state folder; false if there is nothing to continue from.
    fn resume(&mut self) -> Result<bool> {
        let Some(folder) = &self.folder else {
            return Ok(false);
        };
        let Some(depth) = folder.depth() else {
            return Ok(false);
        };
        let hidden = folder.file("hidden", depth);
        let width = self.model.topology().hidden;
        let expected = (self.rows.iter().sum::<usize>() * width * size_of::<f32>()) as u64;
        if fs::metadata(&hidden).map_or(0, |file| file.len()) != expected {
            return Ok(false);
        }
        let mut last = Vec::with_capacity(depth + 1);
        for earlier in 0..=depth {
            let path = folder.file("last", earlier);
            let bytes = fs::read(&path).map_err(Error::io(&path))?;
            last.push(bytemuck::allocation::pod_collect_to_vec(&bytes));
        }
        let stats = Stats::read(folder.file("stats", depth))?;
        if !self.spill {
            let mut first = 0;
            for batch in 0..self.rows.len() {
                self.hidden[batch] = Some(self.read(&hidden, first, self.rows[batch])?);
                first += self.rows[batch];
            }
        }
        (self.last, self.stats) = (last, stats);
        Ok(true)
    }

    /// Rows `first..first + rows` of a file of hidden states.
    fn read(&self, path: &Path, first: usize, rows: usize) -> Result<Tensor> {
        let width = self.model.topology().hidden;
        let mut values = vec![0f32; rows * width];
        let mut read = || -> std::io::Result<()> {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start((first * width * size_of::<f32>()) as u64))?;
            file.read_exact(bytemuck::cast_slice_mut(&mut values))
        };
        read().map_err(Error::io(path))?;
        Ok(Tensor::from_vec(
            values,
            (rows, width),
            self.model.device(),
        )?)
    }
}

/// The last row of every sequence, flattened: S × H.
pub(super) fn last_tokens(hidden: &Tensor, batch: &Batch) -> Result<Vec<f32>> {
    let last: Vec<u32> = batch.sequences().map(|rows| rows.end as u32 - 1).collect();
    Ok(rows::gather(hidden, &last)?.flatten_all()?.to_vec1()?)
}

/// The folder a run resumes from.
struct Folder {
    path: PathBuf,
    /// Same key, same hidden states.
    key: String,
}

#[derive(Serialize, Deserialize)]
struct Mark {
    key: String,
    depth: usize,
}

impl Folder {
    fn file(&self, kind: &str, depth: usize) -> PathBuf {
        self.path.join(format!("{kind}.{depth}"))
    }

    /// The last finished depth of the run with this key.
    fn depth(&self) -> Option<usize> {
        let mark: Mark = serde_json::from_slice(&fs::read(self.path.join(MARK)).ok()?).ok()?;
        (mark.key == self.key).then_some(mark.depth)
    }

    fn mark(&self, depth: usize) -> Result<()> {
        let path = self.path.join(MARK);
        let mark = Mark {
            key: self.key.clone(),
            depth,
        };
        let json = serde_json::to_vec(&mark).map_err(|source| Error::Json {
            path: path.clone(),
            source,
        })?;
        atomic::write(&path, |file| file.write_all(&json))
    }

    /// Removes what only an earlier depth needed; what cannot be removed is
    /// removed with the folder.
    fn forget(&self, depth: Option<usize>) {
        let Some(depth) = depth else { return };
        for kind in ["hidden", "stats"] {
            let _ = fs::remove_file(self.file(kind, depth));
        }
    }
}
