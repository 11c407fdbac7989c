//! Writes tensors to their places in the files of the result.
//!
//! All shards one after the other, or, where the source comes in pieces (see
//! [`super::streamed`]), whatever its pieces suffice for. What the bytes are is
//! [`super::write`]'s business.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::Path;

use router_stats::progress::{Progress, Update};
use router_stats::Error as StatsError;

use super::shard::{self, Shard};
use super::write::{Reader, Take};
use super::{Cut, Layout};
use crate::Result;

/// Writes all shards, and their index if there are several, to `directory`.
///
/// # Errors
/// I/O errors, a missing tensor, or an interruption.
pub(super) fn weights(
    cut: &Cut<'_>,
    shards: &[Shard],
    directory: &Path,
    progress: &dyn Progress,
) -> Result<()> {
    let total = shards.iter().map(|shard| shard.bytes).sum();
    let mut writer = Writer::new(cut, directory, progress, total);
    for shard in shards {
        begin(shard, directory)?;
        writer.place(shard, 0..shard.outputs.len())?;
    }
    index(cut, shards, directory)
}

/// Makes the file of `shard`, which has its header and no data yet.
///
/// # Errors
/// I/O errors.
pub(super) fn begin(shard: &Shard, directory: &Path) -> Result<File> {
    let path = directory.join(&shard.file);
    let begun = File::create(&path).and_then(|mut file| {
        file.write_all(&shard.header)?;
        Ok(file)
    });
    Ok(begun.map_err(StatsError::io(&path))?)
}

/// Writes the index of `shards`, if the layout has one of several.
///
/// # Errors
/// I/O errors.
pub(super) fn index(cut: &Cut<'_>, shards: &[Shard], directory: &Path) -> Result<()> {
    let is_uqff = matches!(cut.layout, Layout::Uqff(_));
    if shards.len() > 1 && !is_uqff {
        super::companion::write_json(&directory.join(shard::INDEX), &shard::index(shards))?;
    }
    Ok(())
}

/// Writes tensors to their places in the files of a directory.
pub(super) struct Writer<'a> {
    source: Reader<'a>,
    directory: &'a Path,
    progress: &'a dyn Progress,
    /// Bytes written, and all that are to be.
    done: u64,
    total: u64,
}

impl<'a> Writer<'a> {
    /// A writer of `total` bytes of data.
    pub(super) fn new(
        cut: &'a Cut<'a>,
        directory: &'a Path,
        progress: &'a dyn Progress,
        total: u64,
    ) -> Self {
        Self {
            source: Reader::new(cut),
            directory,
            progress,
            done: 0,
            total,
        }
    }

    /// Writes some `outputs` of `shard`, ascending, whose file has been
    /// [begun](begin).
    ///
    /// # Errors
    /// I/O errors, a missing tensor, or an interruption.
    pub(super) fn place(
        &mut self,
        shard: &Shard,
        outputs: impl IntoIterator<Item = usize>,
    ) -> Result<()> {
        let path = self.directory.join(&shard.file);
        let file = OpenOptions::new().write(true).open(&path);
        let mut sink = Sink {
            file: file.map_err(StatsError::io(&path))?,
            path: &path,
            progress: self.progress,
            detail: &shard.file,
            done: self.done,
            total: self.total,
        };
        let (mut place, mut next) = (shard.header.len() as u64, 0);
        for index in outputs {
            let passed = &shard.outputs[next..index];
            place += passed.iter().map(|output| output.bytes).sum::<u64>();
            next = index;
            sink.seek(place)?;
            self.source.write(&shard.outputs[index], &mut sink)?;
        }
        self.done = sink.done;
        Ok(())
    }
}

/// A shard being written, and the progress of all of them.
struct Sink<'a> {
    file: File,
    path: &'a Path,
    progress: &'a dyn Progress,
    detail: &'a str,
    done: u64,
    total: u64,
}

impl Sink<'_> {
    /// Goes to byte `place` of the file.
    fn seek(&mut self, place: u64) -> Result<()> {
        let sought = self.file.seek(SeekFrom::Start(place));
        Ok(sought.map(|_| ()).map_err(StatsError::io(self.path))?)
    }
}

impl Take for Sink<'_> {
    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        self.file
            .write_all(bytes)
            .map_err(StatsError::io(self.path))?;
        self.done += bytes.len() as u64;
        let Self {
            detail,
            done,
            total,
            ..
        } = *self;
        Ok(self.progress.step(&Update {
            stage: "Pruning",
            detail,
            unit: "B",
            done,
            total,
        })?)
    }
}
