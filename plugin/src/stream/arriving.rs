//! The shards of a model on the hub, as they come and go.
//!
//! ```text
//! <root>/models--org--name/…   see hub::Stage
//! <root>/seen/<shard>.json     digests of its tensors, once it has been here
//! ```
//!
//! Every shard is verified before it is used, must have the header that it was
//! planned with, and is sampled for the fingerprint while it is here.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

use router_stats::checkpoint::Checkpoint;
use router_stats::progress::Progress;
use router_stats::Error as StatsError;

use super::overall::Overall;
use crate::cache::{make_parent, read_json};
use crate::hub::{Listed, Stage};
use crate::space::Space;
use crate::{format, Error, Result};

/// Shards that come and go.
#[derive(Debug)]
pub(super) struct Arriving {
    stage: Stage,
    seen: PathBuf,
    /// Names and bytes of all shards.
    sizes: BTreeMap<String, u64>,
}

impl Arriving {
    /// Prepares `root` and opens what it has of the model.
    ///
    /// # Errors
    /// Those of [`Listed::stage`] and of opening a checkpoint.
    pub(super) fn open(
        listed: &Listed,
        root: &Path,
        progress: &dyn Progress,
    ) -> Result<(Self, Checkpoint)> {
        let stage = listed.stage(root, progress)?;
        let shards = stage.shards().map(|(file, bytes)| (file.to_owned(), bytes));
        let sizes: BTreeMap<String, u64> = shards.collect();
        let files = sizes.keys().map(String::as_str);
        let elsewhere: Vec<&str> = files.filter(|file| !stage.is_here(file)).collect();
        let checkpoint = Checkpoint::open_stand_ins(stage.dir(), &elsewhere)?;
        let arriving = Self {
            seen: root.join("seen"),
            sizes,
            stage,
        };
        Ok((arriving, checkpoint))
    }

    /// Names and bytes of all shards.
    pub(super) fn sizes(&self) -> &BTreeMap<String, u64> {
        &self.sizes
    }

    /// What tells this content from any other.
    pub(super) fn identity(&self) -> String {
        self.stage.identity()
    }

    /// Whether the shard called `file` is here.
    pub(super) fn is_here(&self, file: &str) -> bool {
        self.stage.is_here(file)
    }

    /// Takes the values of `tensors` ahead of their shards, which are compared
    /// with them when they come.
    ///
    /// # Errors
    /// [`Error::Hub`], and those of opening files.
    pub(super) fn look_at(&self, checkpoint: &mut Checkpoint, tensors: &[String]) -> Result<()> {
        type Wanted<'a> = (Vec<Range<u64>>, Vec<&'a str>);
        let mut wanted: BTreeMap<String, Wanted<'_>> = BTreeMap::new();
        for tensor in tensors {
            let (file, range) = checkpoint.place(tensor)?;
            if !self.is_here(file) {
                let (ranges, names) = wanted.entry(file.to_owned()).or_default();
                ranges.push(range);
                names.push(tensor);
            }
        }
        for (file, (ranges, names)) in wanted {
            self.stage.reveal(&file, &ranges)?;
            checkpoint.withdraw(&file, &names)?;
        }
        Ok(())
    }

    /// Makes the shard called `file` part of `checkpoint`, and samples it if it
    /// has not been here before.
    ///
    /// # Errors
    /// [`Error::Hub`], [`StatsError::Replaced`], I/O errors,
    /// or an interruption.
    pub(super) fn bring(
        &self,
        checkpoint: &mut Checkpoint,
        file: &str,
        progress: &dyn Progress,
    ) -> Result<()> {
        if !checkpoint.is_here(file) {
            self.stage.fetch(file, progress)?;
            checkpoint.replace(file)?;
        }
        let seen = self.seen(file);
        if seen.exists() {
            return Ok(());
        }
        let digests = checkpoint.digests(file)?;
        make_parent(&seen)?;
        let json = serde_json::to_vec(&digests).map_err(Error::Serialize)?;
        Ok(router_stats::atomic::write(&seen, |out| {
            out.write_all(&json)
        })?)
    }

    /// Gives back the disk space of the shard called `file`.
    ///
    /// # Errors
    /// I/O errors.
    pub(super) fn let_go(&self, checkpoint: &mut Checkpoint, file: &str) -> Result<()> {
        if self.is_here(file) {
            self.stage.let_go(file)?;
            checkpoint.withdraw(file, &[])?;
        }
        Ok(())
    }

    /// Lets go of all shards but those that `keeps` says.
    ///
    /// # Errors
    /// I/O errors.
    pub(super) fn keep(
        &self,
        checkpoint: &mut Checkpoint,
        keeps: impl Fn(&str) -> bool,
    ) -> Result<()> {
        let mut others = self.sizes.keys().filter(|file| !keeps(file));
        others.try_for_each(|file| self.let_go(checkpoint, file))
    }

    /// Fails if `most` bytes in all have no room where `root` is.
    ///
    /// # Errors
    /// [`Error::Space`]
    pub(super) fn expect_room(&self, root: &Path, most: u64) -> Result<()> {
        let missing = most.saturating_sub(taken(root)?);
        match Space::at(root) {
            Some(Space { free, .. }) if free < missing => Err(Error::Space {
                path: root.to_path_buf(),
                expected: format::bytes(missing),
                found: format::bytes(free),
            }),
            _ => Ok(()),
        }
    }

    /// The fingerprint of all shards. Those that have not been here come.
    ///
    /// # Errors
    /// Those of [`bring`](Self::bring).
    pub(super) fn fingerprint(
        &self,
        checkpoint: &mut Checkpoint,
        progress: &dyn Progress,
    ) -> Result<String> {
        let mut digests = BTreeMap::new();
        for file in self.sizes.keys() {
            let seen = match self.digests(file) {
                Some(seen) => seen,
                None => {
                    let was_here = self.is_here(file);
                    let overall = Overall::new("Reading", &self.sizes, file, progress);
                    self.bring(checkpoint, file, &overall)?;
                    if !was_here {
                        self.let_go(checkpoint, file)?;
                    }
                    self.digests(file).unwrap_or_default()
                }
            };
            digests.extend(seen);
        }
        Ok(checkpoint.fingerprint_of(&digests)?)
    }

    fn seen(&self, file: &str) -> PathBuf {
        self.seen.join(format!("{file}.json"))
    }

    fn digests(&self, file: &str) -> Option<BTreeMap<String, String>> {
        read_json(&self.seen(file))
    }
}

/// Bytes of the disk that a folder takes, holes not counted.
fn taken(root: &Path) -> Result<u64> {
    let mut bytes = 0;
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(StatsError::io(root)(error).into()),
    };
    for entry in entries {
        let entry = entry.map_err(StatsError::io(root))?;
        let meta = entry.metadata().map_err(StatsError::io(entry.path()))?;
        bytes += match meta.is_dir() {
            true => taken(&entry.path())?,
            false => blocks(&meta),
        };
    }
    Ok(bytes)
}

/// Bytes of the blocks of a file.
#[cfg(unix)]
fn blocks(meta: &std::fs::Metadata) -> u64 {
    use std::os::unix::fs::MetadataExt;
    meta.blocks() * 512
}

/// Bytes of a file, where systems do not say which of them are holes.
#[cfg(not(unix))]
fn blocks(meta: &std::fs::Metadata) -> u64 {
    meta.len()
}
