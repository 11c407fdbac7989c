//! Finished chunks of a calibration in rounds, on disk.
//!
//! A folder of statistics files, each named by all that it depends on, so that
//! one that is there and whole is the right one. What is half-written belongs
//! to the state folder of the running chunk.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use router_stats::calibration::{remove_state, Sequences};
use router_stats::stats::{Parts, Stats};

use crate::cache::{self, Key};
use crate::pipeline::{Calibration, Model};
use crate::Result;

/// Where chunks are kept.
#[derive(Debug)]
pub struct Chunks {
    folder: PathBuf,
    state: PathBuf,
}

impl Chunks {
    /// Finished chunks in `folder`, the running one in the state folder
    /// `state`. Neither has to be there.
    pub fn new(folder: PathBuf, state: PathBuf) -> Self {
        Self { folder, state }
    }

    /// State folder of the running chunk.
    pub(super) fn state(&self) -> &Path {
        &self.state
    }

    /// Statistics of a chunk, if it was finished.
    pub(super) fn read(
        &self,
        model: &Model,
        chunk: &Sequences,
        calibration: &Calibration,
    ) -> Option<Stats> {
        Stats::read(self.path(model, chunk, calibration)).ok()
    }

    /// Keeps the statistics of a chunk, whose state is needed no more.
    pub(super) fn write(
        &self,
        model: &Model,
        chunk: &Sequences,
        calibration: &Calibration,
        stats: &Stats,
    ) -> Result<()> {
        let path = self.path(model, chunk, calibration);
        cache::make_parent(&path)?;
        stats.write(&path)?;
        Ok(remove_state(&self.state)?)
    }

    /// The sum of finished chunks, with every table.
    pub(super) fn together(
        &self,
        model: &Model,
        chunks: &[Sequences],
        calibration: &Calibration,
    ) -> Result<Stats> {
        let mut sum: Option<Stats> = None;
        // One at a time: with the mean outputs of every expert they are large.
        for chunk in chunks {
            let stats = Stats::read(self.path(model, chunk, calibration))?;
            sum = Some(match sum {
                Some(sum) => Parts::new(vec![sum, stats])?.together(),
                None => stats,
            });
        }
        sum.map_or_else(|| Ok(Parts::new(Vec::new())?.together()), Ok)
    }

    /// Removes all chunks and the state, and the folder if nothing else is in
    /// it. To be called once the result is stored.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub fn remove(&self) -> Result<()> {
        remove_state(&self.state)?;
        let io = |path: &Path| router_stats::Error::io(path.to_path_buf());
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(io(&self.folder))?,
        };
        for entry in entries {
            let path = entry.map_err(io(&self.folder))?.path();
            if is_chunk(&path) {
                fs::remove_file(&path).map_err(io(&path))?;
            }
        }
        match fs::remove_dir(&self.folder) {
            Err(error) if error.kind() != ErrorKind::DirectoryNotEmpty => {
                Err(io(&self.folder)(error).into())
            }
            _ => Ok(()),
        }
    }

    fn path(&self, model: &Model, chunk: &Sequences, calibration: &Calibration) -> PathBuf {
        let key = Key::new("chunk")
            .with(&model.fingerprint)
            .with(&chunk.hash)
            .with(&format!("{:?} {}", chunk.weights, calibration.batch_tokens))
            .with(env!("CARGO_PKG_VERSION"))
            .finish();
        self.folder.join(format!("{key}.stats"))
    }
}

/// Whether a run makes files of this name.
fn is_chunk(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| {
        let key = name.strip_suffix(".stats");
        let is_key = |key: &str| key.len() == 32 && key.bytes().all(|b| b.is_ascii_hexdigit());
        name.starts_with(".partial-") || key.is_some_and(is_key)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_chunks_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("q.stats.chunks");
        let chunks = Chunks::new(folder.clone(), dir.path().join("state"));
        chunks.remove().unwrap();
        fs::create_dir(&folder).unwrap();
        let key = Key::new("chunk").finish();
        fs::write(folder.join(format!("{key}.stats")), "x").unwrap();
        fs::write(folder.join(".partial-1"), "x").unwrap();
        fs::write(folder.join("mine.stats"), "x").unwrap();
        chunks.remove().unwrap();
        let left: Vec<_> = fs::read_dir(&folder).unwrap().collect();
        assert_eq!(left.len(), 1);
        fs::remove_file(folder.join("mine.stats")).unwrap();
        chunks.remove().unwrap();
        assert!(!folder.exists());
    }
}
