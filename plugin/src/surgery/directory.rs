//! A directory that appears complete or not at all.
//!
//! Files go to a hidden sibling, `.{name}.partial`, which one rename turns
//! into the result. A marker inside says that the sibling is ours, and a lock
//! on the marker that its run is alive: what a killed run left behind is
//! removed by the next one, and never anything else.
//!
//! A result that is replaced is first renamed to `.{name}.replaced` and removed
//! last. If the run is killed between the two renames, the next one puts the
//! old result back before it begins.
//!
//! What takes long to come is kept in a sibling that outlives its run, see
//! [`Kept`].

mod kept;

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use router_stats::Error as StatsError;

pub(crate) use kept::{Kept, Sibling};

use super::PLAN_FILE;
use crate::{Error, Result};

/// File that says a directory was made here and may be removed.
const MARKER: &str = ".mistralrs-prune";

/// The hidden sibling; removed when dropped, unless [finished](Self::finish).
#[derive(Debug)]
pub(super) struct Partial {
    path: PathBuf,
    place: Place,
    finished: bool,
    /// Open for its lock.
    _marker: File,
}

/// Where a result is to appear.
#[derive(Debug)]
struct Place {
    target: PathBuf,
    /// Where the result that is there goes meanwhile.
    aside: PathBuf,
    replaces: bool,
}

/// Fails if `target` cannot be written for another reason than that a run is
/// writing it.
///
/// # Errors
/// [`Error::OutputExists`], [`Error::NotReplaceable`] and I/O errors.
pub(super) fn check(target: &Path, source: &Path, force: bool) -> Result<()> {
    replaces(target, source, force).map(|_| ())
}

impl Partial {
    /// Makes the sibling of `target` after checking that `target` can be
    /// written: it is absent or empty or, with `force`, a pruned checkpoint
    /// that does not contain `source`.
    ///
    /// # Errors
    /// [`Error::OutputExists`], [`Error::NotReplaceable`],
    /// [`Error::OutputBusy`] and I/O errors.
    pub(super) fn create(target: &Path, source: &Path, force: bool) -> Result<Self> {
        let path = sibling(target, "partial")?;
        remove_stale(&path, target)?;
        let marker = claim(&path, target)?;
        let mut partial = Self {
            path,
            place: Place::new(target)?,
            finished: false,
            _marker: marker,
        };
        partial.place.prepare(source, force)?;
        Ok(partial)
    }

    /// Where to write.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Turns the sibling into the result.
    ///
    /// # Errors
    /// I/O errors; what was there before is then still there.
    pub(super) fn finish(mut self) -> Result<()> {
        self.place.fill(&self.path)?;
        self.finished = true;
        Ok(())
    }
}

impl Place {
    fn new(target: &Path) -> Result<Self> {
        Ok(Self {
            target: target.to_path_buf(),
            aside: sibling(target, "replaced")?,
            replaces: false,
        })
    }

    /// Puts right what a killed run left, and sees whether there is a result
    /// that is to be replaced.
    fn prepare(&mut self, source: &Path, force: bool) -> Result<()> {
        self.recover()?;
        self.replaces = replaces(&self.target, source, force)?;
        Ok(())
    }

    /// Makes the directory at `path` the result.
    fn fill(&self, path: &Path) -> Result<()> {
        if self.replaces {
            let marker = self.target.join(MARKER);
            File::create(&marker).map_err(StatsError::io(&marker))?;
            fs::rename(&self.target, &self.aside).map_err(StatsError::io(&self.aside))?;
        }
        if let Err(error) = fs::rename(path, &self.target) {
            self.recover()?;
            return Err(StatsError::io(&self.target)(error).into());
        }
        // The result is in place. What cannot be removed now, the next run removes.
        let _ = fs::remove_file(self.target.join(MARKER));
        if self.replaces {
            let _ = remove_marked(&self.aside);
        }
        Ok(())
    }

    /// Completes the replacement that a killed run began, or undoes it.
    fn recover(&self) -> Result<()> {
        if !self.aside.join(MARKER).is_file() {
            return Ok(());
        }
        if fs::symlink_metadata(&self.target).is_ok() {
            return remove_marked(&self.aside);
        }
        fs::rename(&self.aside, &self.target).map_err(StatsError::io(&self.aside))?;
        let marker = self.target.join(MARKER);
        Ok(fs::remove_file(&marker).map_err(StatsError::io(&marker))?)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        if !self.finished {
            // What cannot be removed now, the next run removes.
            let _ = remove_marked(&self.path);
        }
    }
}

/// The hidden sibling of `target` with this suffix; its folder is made.
fn sibling(target: &Path, suffix: &str) -> Result<PathBuf> {
    let Some(name) = target.file_name() else {
        let expected = "a path that ends in a name";
        return Err(not_replaceable(target, expected, "none"));
    };
    let parent = match target.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(StatsError::io(parent))?;
    Ok(parent.join(hidden(name, suffix)))
}

/// `.{name}.{suffix}`
fn hidden(name: &OsStr, suffix: &str) -> OsString {
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(".");
    hidden.push(suffix);
    hidden
}

/// Whether `target` holds a checkpoint that is to be replaced.
fn replaces(target: &Path, source: &Path, force: bool) -> Result<bool> {
    const REPLACEABLE: &str = "nothing, or a checkpoint that was pruned here";
    let kind = match fs::symlink_metadata(target) {
        Ok(metadata) => metadata.file_type(),
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(StatsError::io(target)(e).into()),
    };
    if !kind.is_dir() {
        let found = if kind.is_symlink() {
            "a link"
        } else {
            "a file"
        };
        return Err(not_replaceable(target, REPLACEABLE, found));
    }
    if is_empty(target)? {
        return Ok(false);
    }
    if contains(target, source)? {
        return Err(not_replaceable(
            target,
            "another directory than the model's",
            "the model itself",
        ));
    }
    if !target.join(PLAN_FILE).is_file() {
        return Err(not_replaceable(target, REPLACEABLE, "another directory"));
    }
    if !force {
        return Err(Error::OutputExists {
            path: target.to_path_buf(),
        });
    }
    Ok(true)
}

/// Removes what a killed run left at `path`.
fn remove_stale(path: &Path, target: &Path) -> Result<()> {
    let marker = path.join(MARKER);
    match File::open(&marker) {
        Ok(file) => {
            if let Err(TryLockError::WouldBlock) = file.try_lock() {
                return Err(busy(target));
            }
            remove_marked(path)
        }
        Err(e) if e.kind() != ErrorKind::NotFound => Err(StatsError::io(&marker)(e).into()),
        // A run that is killed before it marks its directory leaves it empty.
        Err(_) => match fs::remove_dir(path) {
            Err(e) if e.kind() == ErrorKind::DirectoryNotEmpty => Err(not_replaceable(
                path,
                "a directory that was made here",
                "another directory",
            )),
            Err(e) if e.kind() != ErrorKind::NotFound => Err(StatsError::io(path)(e).into()),
            _ => Ok(()),
        },
    }
}

/// Makes the directory `path`, marks it and locks the marker.
fn claim(path: &Path, target: &Path) -> Result<File> {
    fs::create_dir(path).map_err(StatsError::io(path))?;
    let marker = path.join(MARKER);
    let owner = format!("{} {:?}\n", std::process::id(), std::thread::current().id());
    let locked = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&marker)
        .and_then(|mut file| {
            file.write_all(owner.as_bytes())?;
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => Err(ErrorKind::WouldBlock.into()),
                // Without locks, as on some network file systems, a second run is not noticed.
                _ => Ok(file),
            }
        });
    match locked {
        // Between making the marker and locking it, another run may have taken
        // it for stale; then what is there now is not what was written.
        Ok(file) if fs::read(&marker).is_ok_and(|bytes| bytes == owner.as_bytes()) => Ok(file),
        Ok(_) => Err(busy(target)),
        Err(e)
            if matches!(
                e.kind(),
                ErrorKind::WouldBlock | ErrorKind::NotFound | ErrorKind::AlreadyExists
            ) =>
        {
            Err(busy(target))
        }
        Err(e) => {
            let _ = fs::remove_file(&marker);
            let _ = fs::remove_dir(path);
            Err(StatsError::io(&marker)(e).into())
        }
    }
}

/// Removes a marked directory, the marker last, so that a removal that is
/// interrupted leaves a marked directory.
fn remove_marked(path: &Path) -> Result<()> {
    remove_content(path)?;
    let marker = path.join(MARKER);
    fs::remove_file(&marker).map_err(StatsError::io(&marker))?;
    Ok(fs::remove_dir(path).map_err(StatsError::io(path))?)
}

/// Removes all of a marked directory but the marker.
fn remove_content(path: &Path) -> Result<()> {
    for entry in fs::read_dir(path).map_err(StatsError::io(path))? {
        let entry = entry.map_err(StatsError::io(path))?;
        if entry.file_name() == MARKER {
            continue;
        }
        let removed = match entry.file_type() {
            Ok(kind) if kind.is_dir() => fs::remove_dir_all(entry.path()),
            _ => fs::remove_file(entry.path()),
        };
        removed.map_err(StatsError::io(entry.path()))?;
    }
    Ok(())
}

fn is_empty(directory: &Path) -> Result<bool> {
    Ok(fs::read_dir(directory)
        .map_err(StatsError::io(directory))?
        .next()
        .is_none())
}

/// Whether `inner` is `outer` or lies in it.
fn contains(outer: &Path, inner: &Path) -> Result<bool> {
    let real = |path: &Path| fs::canonicalize(path).map_err(StatsError::io(path));
    Ok(real(inner)?.starts_with(real(outer)?))
}

fn busy(target: &Path) -> Error {
    Error::OutputBusy {
        path: target.to_path_buf(),
    }
}

fn not_replaceable(path: &Path, expected: &'static str, found: &'static str) -> Error {
    Error::NotReplaceable {
        path: path.to_path_buf(),
        expected,
        found,
    }
}

#[cfg(test)]
mod tests;
