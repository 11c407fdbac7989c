//! The files of a state folder: their names, the lock, the mark, removal.
//!
//! What the numbers in them mean is known to [`super::State`].

use std::fs::{self, File, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{atomic, Error, Result};

/// File that names the run and its last finished depth.
const MARK: &str = "run.json";

/// File that a run holds locked.
const LOCK: &str = "lock";

/// Files that there is one of for a depth.
const KINDS: [&str; 3] = ["hidden", "stats", "last"];

/// A folder that one run writes to and resumes from.
pub(super) struct Folder {
    path: PathBuf,
    /// Same key, same hidden states.
    key: String,
    /// Held until dropped; `None` on a file system without locks.
    _lock: Option<File>,
}

#[derive(Serialize, Deserialize)]
struct Mark {
    key: String,
    depth: usize,
}

impl Folder {
    /// Makes the folder and locks it.
    ///
    /// # Errors
    /// `StateInUse` if another run holds it, or `Io`.
    pub(super) fn open(path: PathBuf, key: String) -> Result<Self> {
        fs::create_dir_all(&path).map_err(Error::io(&path))?;
        let lock = lock(&path)?;
        Ok(Self {
            path,
            key,
            _lock: lock,
        })
    }

    pub(super) fn file(&self, kind: &str, depth: usize) -> PathBuf {
        self.path.join(format!("{kind}.{depth}"))
    }

    /// The last finished depth of the run with this key.
    pub(super) fn depth(&self) -> Option<usize> {
        let mark: Mark = serde_json::from_slice(&fs::read(self.path.join(MARK)).ok()?).ok()?;
        (mark.key == self.key).then_some(mark.depth)
    }

    /// Says that everything up to `depth` is there.
    pub(super) fn mark(&self, depth: usize) -> Result<()> {
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

    /// Says that nothing is there, before files are overwritten that another
    /// run's mark speaks of.
    pub(super) fn unmark(&self) -> Result<()> {
        remove(&self.path.join(MARK))
    }

    /// Removes what only an earlier depth needed; what cannot be removed is
    /// removed with the folder.
    pub(super) fn forget(&self, depth: Option<usize>) {
        let Some(depth) = depth else { return };
        for kind in ["hidden", "stats"] {
            let _ = fs::remove_file(self.file(kind, depth));
        }
    }
}

/// Removes what a run left in its state folder, and the folder if nothing else
/// is in it. To be called once the statistics are stored: until then, a rerun
/// has them at once from there. A folder that another run holds is left alone.
///
/// # Errors
/// `Io`, if something cannot be removed.
pub fn remove_state(state: &Path) -> Result<()> {
    let lock = match lock(state) {
        Ok(lock) => lock,
        Err(Error::StateInUse { .. }) => return Ok(()),
        Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    // The mark goes first, so that a kill in between leaves no folder that
    // looks like one to continue from.
    remove(&state.join(MARK))?;
    for entry in fs::read_dir(state).map_err(Error::io(state))? {
        let name = entry.map_err(Error::io(state))?.file_name();
        if name.to_str().is_some_and(is_of_a_run) {
            remove(&state.join(name))?;
        }
    }
    drop(lock);
    remove(&state.join(LOCK))?;
    match fs::remove_dir(state) {
        Err(error)
            if !matches!(
                error.kind(),
                ErrorKind::DirectoryNotEmpty | ErrorKind::NotFound
            ) =>
        {
            Err(Error::io(state)(error))
        }
        _ => Ok(()),
    }
}

/// `count` numbers of a file of f32, from number `first` on.
pub(super) fn read_floats(path: &Path, first: usize, count: usize) -> Result<Vec<f32>> {
    let mut values = vec![0f32; count];
    let mut read = || -> std::io::Result<()> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start((first * size_of::<f32>()) as u64))?;
        file.read_exact(bytemuck::cast_slice_mut(&mut values))
    };
    read().map_err(Error::io(path))?;
    Ok(values)
}

/// Whether `path` is a file of `count` numbers f32.
pub(super) fn holds_floats(path: &Path, count: usize) -> bool {
    fs::metadata(path).is_ok_and(|file| file.len() == (count * size_of::<f32>()) as u64)
}

fn lock(folder: &Path) -> Result<Option<File>> {
    let path = folder.join(LOCK);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(Error::io(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(Error::StateInUse {
            path: folder.to_path_buf(),
        }),
        Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => Ok(None),
        Err(TryLockError::Error(error)) => Err(Error::io(&path)(error)),
    }
}

/// Whether a run makes files of this name besides the mark and the lock.
fn is_of_a_run(name: &str) -> bool {
    let of_a_depth = |(kind, depth): (&str, &str)| {
        KINDS.contains(&kind) && !depth.is_empty() && depth.bytes().all(|b| b.is_ascii_digit())
    };
    name.starts_with(atomic::TEMPORARY) || name.split_once('.').is_some_and(of_a_depth)
}

fn remove(file: &Path) -> Result<()> {
    match fs::remove_file(file) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(file)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_one_runs_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        let held = Folder::open(state.clone(), "a".to_owned()).unwrap();
        let error = Folder::open(state.clone(), "a".to_owned()).err().unwrap();
        assert!(matches!(&error, Error::StateInUse { path } if *path == state));
        assert!(error.hint().is_some());
        held.mark(0).unwrap();
        remove_state(&state).unwrap();
        assert_eq!(held.depth(), Some(0));
        drop(held);
        Folder::open(state, "a".to_owned()).unwrap();
    }

    #[test]
    fn only_what_a_run_makes_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        remove_state(&state).unwrap();
        let fill = |names: &[&str]| {
            let folder = Folder::open(state.clone(), "a".to_owned()).unwrap();
            folder.mark(1).unwrap();
            for name in names {
                fs::write(state.join(name), "x").unwrap();
            }
        };
        let ours = ["hidden.1", "stats.1", "last.0", "last.12", ".partial-x"];
        fill(&ours);
        remove_state(&state).unwrap();
        assert!(!state.exists());

        let others = ["notes.1", "hidden.", "hidden.txt", "stats", "last.1.bak"];
        fill(&[&ours[..], &others].concat());
        remove_state(&state).unwrap();
        let mut left: Vec<_> = fs::read_dir(&state)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        let mut expected = others;
        expected.sort_unstable();
        assert_eq!(left, expected);
    }
}
