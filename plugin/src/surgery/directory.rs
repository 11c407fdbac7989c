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

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use router_stats::Error as StatsError;

use super::PLAN_FILE;
use crate::{Error, Result};

/// File that says a directory was made here and may be removed.
const MARKER: &str = ".mistralrs-prune";

/// The hidden sibling; removed when dropped, unless [finished](Self::finish).
#[derive(Debug)]
pub(super) struct Partial {
    path: PathBuf,
    target: PathBuf,
    aside: PathBuf,
    replaces: bool,
    finished: bool,
    /// Open for its lock.
    _marker: File,
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
        let Some(name) = target.file_name() else {
            return Err(not_replaceable(target, "a path that ends in a name", "none"));
        };
        let parent = match target.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).map_err(StatsError::io(parent))?;
        let path = parent.join(hidden(name, "partial"));
        let aside = parent.join(hidden(name, "replaced"));

        remove_stale(&path, target)?;
        let marker = claim(&path, target)?;
        let mut partial =
            Self { path, target: target.to_path_buf(), aside, replaces: false, finished: false, _marker: marker };
        partial.recover()?;
        partial.replaces = replaces(target, source, force)?;
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
        if self.replaces {
            let marker = self.target.join(MARKER);
            File::create(&marker).map_err(StatsError::io(&marker))?;
            fs::rename(&self.target, &self.aside).map_err(StatsError::io(&self.aside))?;
        }
        if let Err(error) = fs::rename(&self.path, &self.target) {
            self.recover()?;
            return Err(StatsError::io(&self.target)(error).into());
        }
        self.finished = true;
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
        let found = if kind.is_symlink() { "a link" } else { "a file" };
        return Err(not_replaceable(target, REPLACEABLE, found));
    }
    if is_empty(target)? {
        return Ok(false);
    }
    if contains(target, source)? {
        return Err(not_replaceable(target, "another directory than the model's", "the model itself"));
    }
    if !target.join(PLAN_FILE).is_file() {
        return Err(not_replaceable(target, REPLACEABLE, "another directory"));
    }
    if !force {
        return Err(Error::OutputExists { path: target.to_path_buf() });
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
            Err(e) if e.kind() == ErrorKind::DirectoryNotEmpty => {
                Err(not_replaceable(path, "a directory that was made here", "another directory"))
            }
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
    let locked = OpenOptions::new().write(true).create_new(true).open(&marker).and_then(|mut file| {
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
        Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::NotFound | ErrorKind::AlreadyExists) => {
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
    let marker = path.join(MARKER);
    fs::remove_file(&marker).map_err(StatsError::io(&marker))?;
    Ok(fs::remove_dir(path).map_err(StatsError::io(path))?)
}

fn is_empty(directory: &Path) -> Result<bool> {
    Ok(fs::read_dir(directory).map_err(StatsError::io(directory))?.next().is_none())
}

/// Whether `inner` is `outer` or lies in it.
fn contains(outer: &Path, inner: &Path) -> Result<bool> {
    let real = |path: &Path| fs::canonicalize(path).map_err(StatsError::io(path));
    Ok(real(inner)?.starts_with(real(outer)?))
}

fn busy(target: &Path) -> Error {
    Error::OutputBusy { path: target.to_path_buf() }
}

fn not_replaceable(path: &Path, expected: &'static str, found: &'static str) -> Error {
    Error::NotReplaceable { path: path.to_path_buf(), expected, found }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with a source checkpoint, where outputs go beside it.
    struct Place(tempfile::TempDir);

    impl Place {
        fn new() -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            fs::create_dir(place.path("source")).unwrap();
            place
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn create(&self, force: bool) -> Result<Partial> {
            Partial::create(&self.path("out"), &self.path("source"), force)
        }

        fn write(&self, content: &str) {
            let partial = self.create(true).unwrap();
            fs::write(partial.path().join(PLAN_FILE), content).unwrap();
            partial.finish().unwrap();
        }

        fn content(&self) -> String {
            fs::read_to_string(self.path("out").join(PLAN_FILE)).unwrap()
        }

        fn listing(&self) -> Vec<String> {
            let mut names: Vec<_> = fs::read_dir(self.0.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        }
    }

    #[test]
    fn the_result_appears_only_when_finished() {
        let place = Place::new();
        let partial = place.create(false).unwrap();
        fs::write(partial.path().join(PLAN_FILE), "new").unwrap();
        assert_eq!(place.listing(), [".out.partial", "source"]);
        partial.finish().unwrap();
        assert_eq!(place.listing(), ["out", "source"]);
        assert_eq!(fs::read_dir(place.path("out")).unwrap().count(), 1, "the marker is gone");
    }

    #[test]
    fn an_abandoned_result_leaves_nothing() {
        let place = Place::new();
        let partial = place.create(false).unwrap();
        fs::write(partial.path().join("model.safetensors"), "half").unwrap();
        drop(partial);
        assert_eq!(place.listing(), ["source"]);
    }

    #[test]
    fn an_empty_directory_may_be_filled() {
        let place = Place::new();
        fs::create_dir(place.path("out")).unwrap();
        let partial = place.create(false).unwrap();
        fs::write(partial.path().join(PLAN_FILE), "new").unwrap();
        partial.finish().unwrap();
        assert_eq!(place.content(), "new");
    }

    #[test]
    fn only_force_replaces_and_the_old_one_goes() {
        let place = Place::new();
        place.write("old");
        let error = place.create(false).unwrap_err();
        assert!(matches!(error, Error::OutputExists { .. }), "{error}");
        assert!(error.hint().unwrap().contains("--force"));
        assert_eq!((place.content().as_str(), place.listing().len()), ("old", 2));
        place.write("new");
        assert_eq!((place.content().as_str(), place.listing().len()), ("new", 2));
    }

    #[test]
    fn force_replaces_nothing_but_a_pruned_checkpoint() {
        let place = Place::new();
        fs::create_dir(place.path("out")).unwrap();
        fs::write(place.path("out").join("thesis.tex"), "").unwrap();
        assert!(matches!(place.create(true), Err(Error::NotReplaceable { found: "another directory", .. })));

        let source = place.path("source");
        fs::write(source.join(PLAN_FILE), "").unwrap();
        let itself = Partial::create(&source, &source, true);
        assert!(matches!(itself, Err(Error::NotReplaceable { found: "the model itself", .. })));

        let file = place.path("file");
        fs::write(&file, "").unwrap();
        let over_a_file = Partial::create(&file, &source, true);
        assert!(matches!(over_a_file, Err(Error::NotReplaceable { found: "a file", .. })));
        assert!(matches!(Partial::create(Path::new("/"), &source, true), Err(Error::NotReplaceable { .. })));
        assert_eq!(place.listing(), ["file", "out", "source"]);
    }

    #[test]
    fn two_runs_do_not_write_one_directory() {
        let place = Place::new();
        let first = place.create(false).unwrap();
        assert!(matches!(place.create(false), Err(Error::OutputBusy { .. })));
        drop(first);
        place.create(false).unwrap();
    }

    #[test]
    fn what_a_killed_run_left_is_removed_and_nothing_else() {
        let place = Place::new();
        let stale = place.path(".out.partial");
        fs::create_dir(&stale).unwrap();
        drop(place.create(false).unwrap());

        fs::create_dir(&stale).unwrap();
        fs::write(stale.join(MARKER), "").unwrap();
        fs::write(stale.join("model.safetensors"), "half").unwrap();
        let partial = place.create(false).unwrap();
        assert!(!stale.join("model.safetensors").exists());
        drop(partial);

        fs::create_dir(&stale).unwrap();
        fs::write(stale.join("mine"), "").unwrap();
        assert!(matches!(place.create(false), Err(Error::NotReplaceable { .. })));
        assert!(stale.join("mine").exists());
    }

    #[test]
    fn a_run_killed_between_the_renames_is_undone() {
        let place = Place::new();
        place.write("old");
        fs::write(place.path("out").join(MARKER), "").unwrap();
        fs::rename(place.path("out"), place.path(".out.replaced")).unwrap();
        assert!(matches!(place.create(false), Err(Error::OutputExists { .. })));
        assert_eq!((place.content().as_str(), place.listing().len()), ("old", 2));
        assert!(!place.path("out").join(MARKER).exists());
    }

    #[test]
    fn a_run_killed_after_the_renames_is_completed() {
        let place = Place::new();
        place.write("new");
        fs::create_dir(place.path(".out.replaced")).unwrap();
        fs::write(place.path(".out.replaced").join(MARKER), "").unwrap();
        fs::write(place.path(".out.replaced").join(PLAN_FILE), "old").unwrap();
        assert!(matches!(place.create(false), Err(Error::OutputExists { .. })));
        assert_eq!((place.content().as_str(), place.listing().len()), ("new", 2));
    }
}
