//! Where files lie in the hub's own cache, which other tools share.
//!
//! ```text
//! <cache>/models--org--name/blobs/<digest>             a file's content
//! <cache>/models--org--name/blobs/<digest>.incomplete  what has come of it
//! <cache>/models--org--name/snapshots/<commit>/<path>  link to a blob
//! <cache>/models--org--name/refs/<revision>            a commit
//! <cache>/.locks/models--org--name/<digest>.lock       who downloads it
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use router_stats::Error;

use super::listing::Entry;
use super::wire::stopped;
use super::Failure;

/// How often a lock that another program holds is tried again.
const POLL: Duration = Duration::from_millis(200);

/// The folder of one repository in the cache.
#[derive(Debug, Clone)]
pub(super) struct Store {
    blobs: PathBuf,
    snapshot: PathBuf,
    locks: PathBuf,
}

impl Store {
    /// The folders of the repository that the cache at `cache` calls `folder`,
    /// at `commit`.
    pub(super) fn new(cache: &Path, folder: &str, commit: &str) -> Self {
        let repository = cache.join(folder);
        Self {
            blobs: repository.join("blobs"),
            snapshot: repository.join("snapshots").join(commit),
            locks: cache.join(".locks").join(folder),
        }
    }

    /// The directory of the snapshot.
    pub(super) fn snapshot(&self) -> &Path {
        &self.snapshot
    }

    /// The content called `name`, and what has come of it.
    pub(super) fn blob(&self, name: &str) -> (PathBuf, PathBuf) {
        let whole = self.blobs.join(name);
        (whole, self.blobs.join(format!("{name}.incomplete")))
    }

    /// Bytes of `entry` that are not here; `None` if its size or name is not
    /// known.
    pub(super) fn missing(&self, entry: &Entry) -> Option<u64> {
        let size = entry.size?;
        if self.snapshot.join(&entry.name).exists() {
            return Some(0);
        }
        let (whole, part) = self.blob(entry.digest.as_ref()?.name());
        let length = |path: &Path| fs::metadata(path).map_or(0, |meta| meta.len());
        Some(size.saturating_sub(length(&whole).max(length(&part))))
    }

    /// Whether the content called `name`, of `size` bytes, is here. It is
    /// only once all of it has been checked.
    pub(super) fn holds(&self, name: &str, size: u64) -> bool {
        fs::metadata(self.blobs.join(name)).is_ok_and(|blob| blob.len() == size)
    }

    /// Shows the content called `name` as `file` of the snapshot, in place of
    /// what is there; at any moment one of the two is.
    ///
    /// # Errors
    /// [`Failure::Local`]
    pub(super) fn show(&self, name: &str, file: &str) -> Result<(), Failure> {
        let path = self.snapshot.join(file);
        let beside = self.snapshot.join(format!(".{file}.next"));
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Error::io(&beside)(error).into());
            }
            _ => {}
        }
        let target: PathBuf = ["..", "..", "blobs", name].iter().collect();
        place(&target, &self.blobs.join(name), &beside).map_err(Error::io(&beside))?;
        Ok(fs::rename(&beside, &path).map_err(Error::io(&path))?)
    }

    /// Removes the content called `name`, whole or not.
    ///
    /// # Errors
    /// [`Failure::Local`]
    pub(super) fn remove(&self, name: &str) -> Result<(), Failure> {
        let (whole, part) = self.blob(name);
        for path in [whole, part] {
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(Error::io(&path)(error).into());
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Makes the folders.
    ///
    /// # Errors
    /// [`Failure::Local`]
    pub(super) fn create(&self) -> Result<(), Failure> {
        for folder in [&self.blobs, &self.snapshot, &self.locks] {
            fs::create_dir_all(folder).map_err(Error::io(folder))?;
        }
        Ok(())
    }

    /// Waits until no other program downloads the content called `name`. On a
    /// file system without locks nothing is held.
    ///
    /// # Errors
    /// [`Failure::Local`]
    pub(super) fn lock(&self, name: &str, stop: &AtomicBool) -> Result<File, Failure> {
        let path = self.locks.join(format!("{name}.lock"));
        let file = File::create(&path).map_err(Error::io(&path))?;
        loop {
            stopped(stop)?;
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => std::thread::sleep(POLL),
                Err(TryLockError::Error(error)) if error.kind() == ErrorKind::Unsupported => {
                    return Ok(file);
                }
                Err(TryLockError::Error(error)) => return Err(Error::io(&path)(error).into()),
            }
        }
    }

    /// Puts the content called `name` into the snapshot as `file`.
    ///
    /// # Errors
    /// [`Failure::Local`], or [`Failure::Malformed`] for a `file` that would
    /// leave the snapshot.
    pub(super) fn link(&self, name: &str, file: &str) -> Result<(), Failure> {
        let inside = Path::new(file)
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if file.is_empty() || !inside {
            return Err(Failure::Malformed(format!("a file called `{file}`")));
        }
        let path = self.snapshot.join(file);
        if path.exists() {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(Error::io(parent))?;
        }
        // What is there points nowhere.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(Error::io(&path)(error).into());
            }
            _ => {}
        }
        // From snapshots/<commit>/, one further up for every folder.
        let depth = 2 + file.matches('/').count();
        let target: PathBuf = std::iter::repeat_n("..", depth)
            .chain(["blobs", name])
            .collect();
        match place(&target, &self.blobs.join(name), &path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            placed => Ok(placed.map_err(Error::io(&path))?),
        }
    }
}

/// Makes `path` show the content: by a link to `target`, which is relative to it.
#[cfg(unix)]
fn place(target: &Path, _: &Path, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

/// Makes `path` show the content of `blob`: links are not for everyone here.
#[cfg(not(unix))]
fn place(_: &Path, blob: &Path, path: &Path) -> io::Result<()> {
    fs::hard_link(blob, path).or_else(|_| fs::copy(blob, path).map(|_| ()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_show_blobs_and_nothing_is_placed_outside() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path(), "models--o--n", "c0ffee");
        store.create().unwrap();
        fs::write(store.blob("abc").0, "content").unwrap();
        for file in ["config.json", "sub/folder/file.txt"] {
            store.link("abc", file).unwrap();
            store.link("abc", file).unwrap();
            assert_eq!(
                fs::read_to_string(store.snapshot().join(file)).unwrap(),
                "content"
            );
        }
        for file in ["", "../x", "/etc/x", "a/../../x", "./x"] {
            assert!(
                matches!(store.link("abc", file), Err(Failure::Malformed(_))),
                "{file}"
            );
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_points_nowhere_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path(), "models--o--n", "c0ffee");
        store.create().unwrap();
        std::os::unix::fs::symlink("../../blobs/gone", store.snapshot().join("x")).unwrap();
        fs::write(store.blob("abc").0, "content").unwrap();
        store.link("abc", "x").unwrap();
        assert_eq!(
            fs::read_to_string(store.snapshot().join("x")).unwrap(),
            "content"
        );
    }

    #[test]
    fn one_program_at_a_time_downloads_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::new(dir.path(), "models--o--n", "c0ffee");
        store.create().unwrap();
        let stop = AtomicBool::new(false);
        let held = store.lock("abc", &stop).unwrap();
        store.lock("def", &stop).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| store.lock("abc", &stop));
            std::thread::sleep(POLL);
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            assert!(matches!(waiting.join().unwrap(), Err(Failure::Local(_))));
        });
        drop(held);
    }
}
