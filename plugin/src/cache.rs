//! Where intermediate files are kept between runs.
//!
//! Owns the layout of the cache folder, the keys of its entries and the
//! advisory locks on them. It does not know how an entry is made; whoever
//! writes one does so atomically (a temporary sibling, then a rename), so an
//! entry that exists is whole.
//!
//! ```text
//! <root>/models/<hash>/demo/       the embedded model, unpacked
//! <root>/stats/<key>.stats         calibration statistics
//! <root>/stats/<key>.partial/      layers of an unfinished calibration
//! <root>/plans/<key>.plan.json     plans
//! <root>/evals/<key>.json          evaluation reports
//! <root>/searches/<key>.jsonl      candidates that searches measured
//! <root>/overheads/<key>.json      memory of the engine without a model
//! <root>/streams/<key>/            headers of a model on the hub, and shards that are used
//! <root>/limited/<key>/<name>/     links to a checkpoint, for shorter sequences
//! <root>/checkpoints/<key>/<name>/ pruned checkpoints
//! <root>/locks/<key>.lock          advisory locks
//! ```

mod key;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use router_stats::progress::{Progress, Update};
use serde::de::DeserializeOwned;

pub use key::Key;

use crate::{Error, Result};

/// Environment variable that chooses the cache folder.
pub const ENVIRONMENT: &str = "MISTRALRS_PRUNE_CACHE";

/// How often a held lock is tried again.
const LOCK_POLL: Duration = Duration::from_millis(200);

/// The cache folder.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// Uses `root`, which need not exist yet.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// The folder to use: `explicit`, else `MISTRALRS_PRUNE_CACHE`, else
    /// `XDG_CACHE_HOME/mistralrs-prune`, else `~/.cache/mistralrs-prune`.
    ///
    /// # Errors
    /// [`Error::NoCacheFolder`] if none of these is set and there is no home.
    pub fn locate(explicit: Option<&Path>) -> Result<Self> {
        locate_in(explicit, |name| {
            std::env::var_os(name).filter(|value| !value.is_empty())
        })
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Folder for an unpacked model whose content hashes to `hash`.
    pub fn model(&self, hash: &str, name: &str) -> PathBuf {
        self.root.join("models").join(hash).join(name)
    }

    /// Path of a statistics file.
    pub fn stats(&self, key: &str) -> PathBuf {
        self.root.join("stats").join(format!("{key}.stats"))
    }

    /// Folder in which a calibration leaves finished layers.
    pub fn partial(&self, key: &str) -> PathBuf {
        self.root.join("stats").join(format!("{key}.partial"))
    }

    /// Path of a plan.
    pub fn plan(&self, key: &str) -> PathBuf {
        self.root.join("plans").join(format!("{key}.plan.json"))
    }

    /// Path of an evaluation report.
    pub fn eval(&self, key: &str) -> PathBuf {
        self.root.join("evals").join(format!("{key}.json"))
    }

    /// Path of the candidates that searches measured.
    pub fn search(&self, key: &str) -> PathBuf {
        self.root.join("searches").join(format!("{key}.jsonl"))
    }

    /// Folder in which shards of a model come and go.
    pub fn stream(&self, key: &str) -> PathBuf {
        self.root.join("streams").join(key)
    }

    /// Directory of a pruned checkpoint, called `name`.
    pub fn checkpoint(&self, key: &str, name: &str) -> PathBuf {
        self.root.join("checkpoints").join(key).join(name)
    }

    /// Waits until no other process holds `key`, then holds it until the
    /// returned lock is dropped. Locks are advisory; on a file system without
    /// them nothing is held.
    ///
    /// # Errors
    /// If the lock file cannot be made, or the user asked to stop while
    /// another process held it.
    pub fn lock(&self, key: &str, progress: &dyn Progress) -> Result<Lock> {
        let path = self.root.join("locks").join(format!("{key}.lock"));
        make_parent(&path)?;
        let file = File::create(&path).map_err(router_stats::Error::io(&path))?;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) => progress.step(&Update {
                    stage: "Waiting",
                    detail: "another process is working on the same files",
                    unit: "",
                    done: 0,
                    total: 0,
                })?,
                Err(TryLockError::Error(error))
                    if error.kind() == std::io::ErrorKind::Unsupported =>
                {
                    break;
                }
                Err(TryLockError::Error(error)) => {
                    return Err(router_stats::Error::io(&path)(error).into());
                }
            }
            std::thread::sleep(LOCK_POLL);
        }
        Ok(Lock { _file: file })
    }
}

/// Holds an entry of the cache until dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Hexadecimal digits of `bytes`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a JSON file; `None` if it is absent or of another shape.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

/// Makes the folder that `path` lies in and returns it.
///
/// # Errors
/// If it cannot be made.
pub(crate) fn make_parent(path: &Path) -> Result<&Path> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(parent).map_err(router_stats::Error::io(parent))?;
    Ok(parent)
}

fn locate_in(
    explicit: Option<&Path>,
    variable: impl Fn(&str) -> Option<std::ffi::OsString>,
) -> Result<Cache> {
    let root = explicit
        .map(Path::to_path_buf)
        .or_else(|| variable(ENVIRONMENT).map(PathBuf::from))
        .or_else(|| variable("XDG_CACHE_HOME").map(|home| Path::new(&home).join("mistralrs-prune")))
        .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".cache/mistralrs-prune")))
        .ok_or(Error::NoCacheFolder)?;
    Ok(Cache::new(root))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use router_stats::progress::Silent;

    use super::*;

    #[test]
    fn the_most_specific_choice_of_folder_wins() {
        let set = |names: &'static [&'static str]| {
            move |name: &str| names.contains(&name).then(|| format!("/{name}").into())
        };
        let root = |explicit: Option<&str>, names| {
            locate_in(explicit.map(Path::new), set(names))
                .unwrap()
                .root()
                .to_path_buf()
        };
        assert_eq!(root(Some("/x"), &[ENVIRONMENT, "HOME"]), Path::new("/x"));
        assert_eq!(
            root(None, &[ENVIRONMENT, "XDG_CACHE_HOME"]),
            Path::new("/MISTRALRS_PRUNE_CACHE")
        );
        assert_eq!(
            root(None, &["XDG_CACHE_HOME", "HOME"]),
            Path::new("/XDG_CACHE_HOME/mistralrs-prune")
        );
        assert_eq!(
            root(None, &["HOME"]),
            Path::new("/HOME/.cache/mistralrs-prune")
        );
        assert!(matches!(
            locate_in(None, set(&[])),
            Err(Error::NoCacheFolder)
        ));
    }

    #[test]
    fn a_held_lock_makes_others_wait_until_it_is_dropped() {
        struct Impatient(AtomicBool);
        impl Progress for Impatient {
            fn update(&self, update: &Update<'_>) {
                assert_eq!(update.stage, "Waiting");
                self.0.store(true, Ordering::Relaxed);
            }
            fn cancelled(&self) -> bool {
                true
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path());
        let held = cache.lock("k", &Silent).unwrap();
        let other = Impatient(AtomicBool::new(false));
        assert!(matches!(
            cache.lock("k", &other),
            Err(Error::Stats(router_stats::Error::Interrupted))
        ));
        assert!(other.0.load(Ordering::Relaxed));
        drop(held);
        cache.lock("k", &Silent).unwrap();
    }

    #[test]
    fn json_that_is_absent_or_of_another_shape_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("entry.json");
        assert_eq!(read_json::<u32>(&path), None);
        std::fs::write(&path, "7").unwrap();
        assert_eq!(read_json::<u32>(&path), Some(7));
        assert_eq!(read_json::<String>(&path), None);
    }
}
