//! A snapshot of which only some shards are here.
//!
//! ```text
//! <root>/models--org--name/blobs/<digest>             a shard that is here, verified
//! <root>/models--org--name/snapshots/<commit>/<file>  link to a blob, or a stand-in
//! ```
//!
//! A stand-in has the header that the hub sent and the length of its shard, and
//! no data: it takes a few blocks of disk, whatever its length. Which of the two
//! a file is follows from the blobs alone, so that a run that was killed leaves
//! nothing that could be taken for what it is not. What a header says, and that
//! a shard has the header of its stand-in, is checked by whoever opens the
//! files.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64};

use hf_hub::{Repo, RepoType};
use router_stats::checkpoint::header_bytes;
use router_stats::progress::{Progress, Update};
use router_stats::Error;

use super::listing::{Entry, Listing};
use super::store::Store;
use super::transfer::Transfer;
use super::wire::Wire;
use super::{entries, needed, ranged, several, Failure, Hub, MAIN};
use crate::cache::Key;
use crate::space::Space;
use crate::{format, Result};

/// Bytes of a shard that are asked for first: most headers are shorter.
const FIRST: u64 = 64 << 10;

type Outcome<T> = std::result::Result<T, Failure>;

/// What a repository holds, of which nothing is here yet.
#[derive(Debug)]
pub struct Listed {
    wire: Wire,
    id: String,
    revision: String,
    listing: Listing,
}

/// A snapshot, some of whose shards are stand-ins.
#[derive(Debug)]
pub struct Stage {
    wire: Wire,
    store: Store,
    id: String,
    commit: String,
    shards: Vec<Shard>,
}

/// A shard that can be checked once it has come.
#[derive(Debug, Clone)]
struct Shard {
    entry: Entry,
    size: u64,
    /// Name of its blob: what it hashes to.
    digest: String,
}

impl Hub {
    /// Asks what there is of `id`.
    ///
    /// # Errors
    /// [`Error::Hub`](crate::Error::Hub)
    pub fn list(&self, id: &str, revision: Option<&str>) -> Result<Listed> {
        let revision = revision.unwrap_or(MAIN);
        let listed = || {
            if self.offline {
                return Err(Failure::Offline(format!("{id} that could be streamed")));
            }
            let wire = Wire::new(self.endpoint.as_deref(), &self.token)?;
            let listing = Listing::get(&wire, id, revision, true)?;
            Ok(Listed {
                wire,
                id: id.to_owned(),
                revision: revision.to_owned(),
                listing,
            })
        };
        listed().map_err(|failure: Failure| failure.about(id, revision))
    }
}

impl Listed {
    /// `org/name`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The commit.
    pub fn commit(&self) -> &str {
        &self.listing.commit
    }

    /// Names what is kept of it between runs.
    pub fn key(&self) -> String {
        let key = Key::new("hub").with(&self.id);
        key.with(&self.listing.commit).finish()
    }

    /// Downloads the small files to `root`, and for every shard that is not
    /// there a header.
    ///
    /// # Errors
    /// [`Error::Hub`](crate::Error::Hub), or [`router_stats::Error::Interrupted`]; what has come
    /// stays and is continued next time.
    pub fn stage(&self, root: &Path, progress: &dyn Progress) -> Result<Stage> {
        self.staged(root, progress)
            .map_err(|failure| failure.about(&self.id, &self.revision))
    }

    fn staged(&self, root: &Path, progress: &dyn Progress) -> Outcome<Stage> {
        let (wire, id, listing) = (&self.wire, &self.id, &self.listing);
        let folder = Repo::new(id.clone(), RepoType::Model).folder_name();
        let store = Store::new(root, &folder, &listing.commit);
        let mut small = needed::small(listing)?.into_iter();
        let small = entries(listing, &mut small)?;
        several::fetch(wire, &store, id, &listing.commit, &small, progress)?;
        let weights = needed::weights(store.snapshot(), |name| listing.has(name));
        let weights = weights.map_err(Failure::Malformed)?;
        let weights = entries(listing, &mut weights.iter().map(String::as_str))?;
        store.create()?;
        let mut stage = Stage {
            wire: wire.clone(),
            store,
            id: id.clone(),
            commit: listing.commit.clone(),
            shards: Vec::new(),
        };
        for entry in &weights {
            stage.shards.push(stage.describe(entry)?);
        }
        stage.expect_room()?;
        stage.show_all(progress)?;
        Ok(stage)
    }
}

impl Stage {
    /// The directory of the snapshot.
    pub fn dir(&self) -> &Path {
        self.store.snapshot()
    }

    /// Names and bytes of the shards, by name.
    pub fn shards(&self) -> impl Iterator<Item = (&str, u64)> {
        let shards = self.shards.iter();
        shards.map(|shard| (shard.entry.name.as_str(), shard.size))
    }

    /// What tells this content from any other: the commit and what the shards
    /// hash to.
    pub fn identity(&self) -> String {
        let key = Key::new("content").with(&self.commit);
        let shards = self.shards.iter();
        shards
            .fold(key, |key, shard| {
                key.with(&shard.entry.name).with(&shard.digest)
            })
            .finish()
    }

    /// Whether the shard called `file` is here.
    pub fn is_here(&self, file: &str) -> bool {
        let mut shards = self.shards.iter();
        shards.any(|shard| shard.entry.name == file && self.holds(shard))
    }

    /// Downloads the shard called `file` unless it is here, and shows it in
    /// place of its stand-in once it has been checked.
    ///
    /// # Errors
    /// [`Error::Hub`](crate::Error::Hub), or [`router_stats::Error::Interrupted`].
    pub fn fetch(&self, file: &str, progress: &dyn Progress) -> Result<()> {
        self.about(|| {
            let shard = self.shard(file)?;
            if !self.holds(shard) {
                let entries = vec![shard.entry.clone()];
                let (id, commit) = (&self.id, &self.commit);
                several::fetch_all(&self.wire, &self.store, id, commit, entries, progress)?;
            }
            self.store.show(&shard.digest, file)
        })
    }

    /// Puts a stand-in in the place of the shard called `file` and gives its
    /// disk space back.
    ///
    /// # Errors
    /// I/O errors.
    pub fn let_go(&self, file: &str) -> Result<()> {
        self.about(|| {
            let shard = self.shard(file)?;
            if self.holds(shard) {
                let header = self.header_of_file(shard)?;
                self.write_stand_in(shard, &header, &[])?;
            }
            self.store.remove(&shard.digest)
        })
    }

    /// Takes bytes `ranges` of the shard called `file` into its stand-in. They
    /// are checked when the shard comes.
    ///
    /// # Errors
    /// [`Error::Hub`](crate::Error::Hub), and I/O errors.
    pub fn reveal(&self, file: &str, ranges: &[Range<u64>]) -> Result<()> {
        self.about(|| {
            let shard = self.shard(file)?;
            let header = self.header_of_file(shard)?;
            let path = self.path(shard);
            let part = |range: &Range<u64>| {
                let bytes = ranged::get(&self.wire, &path, range, shard.size)?;
                Ok((range.start, bytes))
            };
            let parts = ranges.iter().map(part).collect::<Outcome<Vec<_>>>()?;
            self.write_stand_in(shard, &header, &parts)
        })
    }

    fn about<T>(&self, work: impl FnOnce() -> Outcome<T>) -> Result<T> {
        work().map_err(|failure| failure.about(&self.id, &self.commit))
    }

    fn shard(&self, file: &str) -> Outcome<&Shard> {
        let mut shards = self.shards.iter();
        shards
            .find(|shard| shard.entry.name == file)
            .ok_or_else(|| Failure::Malformed(format!("{file} is no shard of the model")))
    }

    fn holds(&self, shard: &Shard) -> bool {
        self.store.holds(&shard.digest, shard.size)
    }

    fn path(&self, shard: &Shard) -> String {
        format!("{}/resolve/{}/{}", self.id, self.commit, shard.entry.name)
    }

    /// Size and digest of a file, without which what comes could not be checked.
    fn describe(&self, entry: &Entry) -> Outcome<Shard> {
        let transfer = Transfer {
            wire: &self.wire,
            store: &self.store,
            id: &self.id,
            commit: &self.commit,
            entry,
            stop: &AtomicBool::new(false),
            here: &AtomicU64::new(0),
        };
        let content = transfer.content()?;
        let Some(digest) = content.digest else {
            let name = &entry.name;
            return Err(Failure::Malformed(format!(
                "{name}: no digest to check it by"
            )));
        };
        Ok(Shard {
            entry: Entry {
                size: Some(content.size),
                digest: Some(digest),
                ..entry.clone()
            },
            size: content.size,
            digest: content.name,
        })
    }

    /// Fails unless there is room for any shard that is missing, one at a time.
    fn expect_room(&self) -> Outcome<()> {
        let missing = self
            .shards
            .iter()
            .filter_map(|it| self.store.missing(&it.entry));
        let largest = missing.max().unwrap_or(0);
        match Space::at(self.dir()) {
            Some(Space { free, .. }) if free < largest => Err(Failure::Space {
                path: self.dir().display().to_string(),
                expected: format::bytes(largest),
                found: format::bytes(free),
            }),
            _ => Ok(()),
        }
    }

    /// Makes the snapshot show what is here, and stand-ins for the rest.
    fn show_all(&self, progress: &dyn Progress) -> Outcome<()> {
        for (index, shard) in self.shards.iter().enumerate() {
            let (name, path) = (&shard.entry.name, self.dir().join(&shard.entry.name));
            progress.step(&Update {
                stage: "Reading",
                detail: &format!("header {}/{}", index + 1, self.shards.len()),
                unit: "",
                done: 0,
                total: 0,
            })?;
            let shown = fs::symlink_metadata(&path).ok();
            let is_stand_in = |meta: &fs::Metadata| meta.is_file() && meta.len() == shard.size;
            if self.holds(shard) {
                self.store.show(&shard.digest, name)?;
            } else if !shown.as_ref().is_some_and(is_stand_in) {
                let header = self.header(shard)?;
                self.write_stand_in(shard, &header, &[])?;
            }
        }
        Ok(())
    }

    /// Length and header of a shard, from the hub.
    fn header(&self, shard: &Shard) -> Outcome<Vec<u8>> {
        let path = self.path(shard);
        let first = 0..FIRST.min(shard.size);
        let mut bytes = ranged::get(&self.wire, &path, &first, shard.size)?;
        let length = header_bytes(Path::new(&shard.entry.name), &bytes, shard.size)?;
        let rest = first.end..length;
        if rest.is_empty() {
            bytes.truncate(length as usize);
        } else {
            bytes.extend(ranged::get(&self.wire, &path, &rest, shard.size)?);
        }
        Ok(bytes)
    }

    /// Length and header of what the snapshot shows.
    fn header_of_file(&self, shard: &Shard) -> Outcome<Vec<u8>> {
        let path = self.dir().join(&shard.entry.name);
        let file = File::open(&path).map_err(Error::io(&path))?;
        let mut bytes = Vec::new();
        let take = |bytes: &mut Vec<u8>, count: u64| {
            let read = (&file).take(count).read_to_end(bytes);
            read.map_err(Error::io(&path))
        };
        take(&mut bytes, FIRST)?;
        let length = header_bytes(&path, &bytes, shard.size)?;
        take(&mut bytes, length.saturating_sub(FIRST))?;
        bytes.truncate(length as usize);
        Ok(bytes)
    }

    /// Writes a stand-in in place of what the snapshot shows.
    fn write_stand_in(
        &self,
        shard: &Shard,
        header: &[u8],
        parts: &[(u64, Vec<u8>)],
    ) -> Outcome<()> {
        let path = self.dir().join(&shard.entry.name);
        let written = router_stats::atomic::write(&path, |file| {
            file.write_all(header)?;
            for (start, bytes) in parts {
                file.seek(SeekFrom::Start(*start))?;
                file.write_all(bytes)?;
            }
            file.flush()?;
            file.get_ref().set_len(shard.size)
        });
        Ok(written?)
    }
}
