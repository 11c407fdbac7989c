//! A hidden sibling that stays until its work is done, whatever happens to the
//! run that began it: `.{name}.streaming`.
//!
//! Marked and locked as [`super::Partial`] is, so nothing else is ever taken for
//! it, and one run at a time has it. What lies in it is its owner's business.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use router_stats::Error as StatsError;

use super::{busy, claim, remove_content, remove_marked, remove_stale, sibling, Place, MARKER};
use crate::Result;

/// Directory in it that becomes the result.
const RESULT: &str = "result";

/// The sibling, held by this run. It stays unless it is [discarded](Self::discard).
#[derive(Debug)]
pub(crate) struct Sibling {
    path: PathBuf,
    /// Open for its lock.
    _marker: File,
}

impl Sibling {
    /// Takes up the sibling of `target`, or makes it.
    ///
    /// # Errors
    /// [`OutputBusy`](crate::Error::OutputBusy) if another run has it,
    /// [`NotReplaceable`](crate::Error::NotReplaceable) if it was not made here, and I/O errors.
    pub(crate) fn open(target: &Path) -> Result<Self> {
        let path = sibling(target, "streaming")?;
        let marker = match taken_up(&path, target)? {
            Some(marker) => marker,
            None => {
                remove_stale(&path, target)?;
                claim(&path, target)?
            }
        };
        Ok(Self {
            path,
            _marker: marker,
        })
    }

    /// The sibling.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Removes everything in it but the marker.
    ///
    /// # Errors
    /// I/O errors.
    pub(crate) fn empty(&self) -> Result<()> {
        remove_content(&self.path)
    }

    /// Removes it.
    ///
    /// # Errors
    /// I/O errors.
    pub(crate) fn discard(self) -> Result<()> {
        remove_marked(&self.path)
    }
}

/// A sibling in which a directory is made.
#[derive(Debug)]
pub(crate) struct Kept {
    sibling: Sibling,
    place: Place,
}

impl Kept {
    /// Takes up the sibling of `target`, or makes it, after checking that
    /// `target` can be written: it is absent or empty or, with `force`, a
    /// pruned checkpoint.
    ///
    /// # Errors
    /// Those of [`Sibling::open`]; [`OutputExists`](crate::Error::OutputExists) and
    /// [`NotReplaceable`](crate::Error::NotReplaceable).
    pub(crate) fn open(target: &Path, force: bool) -> Result<Self> {
        let sibling = Sibling::open(target)?;
        let mut place = Place::new(target)?;
        match place.prepare(sibling.path(), force) {
            Ok(()) => Ok(Self { sibling, place }),
            Err(error) => {
                // Nothing is left to be done by what has no result begun.
                if !sibling.path().join(RESULT).exists() {
                    sibling.discard()?;
                }
                Err(error)
            }
        }
    }

    /// The sibling.
    pub(crate) fn path(&self) -> &Path {
        self.sibling.path()
    }

    /// Where the result is written.
    pub(crate) fn result(&self) -> PathBuf {
        self.path().join(RESULT)
    }

    /// Removes everything in the sibling but the marker.
    ///
    /// # Errors
    /// I/O errors.
    pub(crate) fn empty(&self) -> Result<()> {
        self.sibling.empty()
    }

    /// Removes the sibling.
    ///
    /// # Errors
    /// I/O errors.
    pub(crate) fn discard(self) -> Result<()> {
        self.sibling.discard()
    }

    /// Makes [`result`](Self::result) appear, and removes the rest.
    ///
    /// # Errors
    /// I/O errors; what was there before is then still there.
    pub(crate) fn finish(self) -> Result<()> {
        self.place.fill(&self.result())?;
        // The result is in place. What cannot be removed now, the next run removes.
        let _ = self.discard();
        Ok(())
    }
}

/// The marker of the sibling that an earlier run left, locked.
fn taken_up(path: &Path, target: &Path) -> Result<Option<File>> {
    let marker = path.join(MARKER);
    let file = match OpenOptions::new().write(true).open(&marker) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StatsError::io(&marker)(error).into()),
    };
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => Err(busy(target)),
        // Without locks, as on some network file systems, a second run is not noticed.
        _ => Ok(Some(file)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::Error;

    #[test]
    fn what_a_run_left_is_taken_up_by_the_next_and_by_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("out");
        let kept = Kept::open(&target, false).unwrap();
        fs::write(kept.path().join("part"), "half").unwrap();
        assert!(matches!(
            Kept::open(&target, false),
            Err(Error::OutputBusy { .. })
        ));
        drop(kept);
        let kept = Kept::open(&target, false).unwrap();
        assert_eq!(fs::read(kept.path().join("part")).unwrap(), b"half");
        fs::create_dir(kept.result()).unwrap();
        fs::write(kept.result().join("config.json"), "{}").unwrap();
        kept.finish().unwrap();
        let names = |dir: &Path| -> Vec<_> {
            let entries = fs::read_dir(dir).unwrap();
            entries.map(|it| it.unwrap().file_name()).collect()
        };
        assert_eq!(names(dir.path()), ["out"]);
        assert_eq!(names(&target), ["config.json"]);
    }

    #[test]
    fn what_was_not_made_here_is_not_touched() {
        let dir = tempfile::tempdir().unwrap();
        let hidden = dir.path().join(".out.streaming");
        fs::create_dir(&hidden).unwrap();
        fs::write(hidden.join("mine"), "").unwrap();
        let refused = Kept::open(&dir.path().join("out"), true).unwrap_err();
        assert!(matches!(refused, Error::NotReplaceable { .. }));
        assert!(hidden.join("mine").exists());
    }
}
