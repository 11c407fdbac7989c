//! Whether there is room on a disk.

use std::path::Path;

/// Bytes of a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Space {
    /// That may still be written.
    pub(crate) free: u64,
    /// All.
    pub(crate) total: u64,
}

impl Space {
    /// The disk that `path` is on or will be; `None` if the system does not say.
    #[cfg(unix)]
    pub(crate) fn at(path: &Path) -> Option<Self> {
        let mut above = path.ancestors().filter(|path| !path.as_os_str().is_empty());
        let there = above.find(|path| path.exists()).unwrap_or(Path::new("."));
        let disk = rustix::fs::statvfs(there).ok()?;
        Some(Self {
            free: disk.f_bavail.saturating_mul(disk.f_frsize),
            total: disk.f_blocks.saturating_mul(disk.f_frsize),
        })
    }

    /// The disk that `path` is on or will be; `None` if the system does not say.
    #[cfg(not(unix))]
    pub(crate) fn at(_: &Path) -> Option<Self> {
        None
    }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_not_there_yet_is_on_the_disk_of_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let there = Space::at(dir.path()).unwrap();
        assert!(0 < there.free && there.free <= there.total);
        let later = Space::at(&dir.path().join("not/yet")).unwrap();
        assert_eq!(later.total, there.total);
        assert!(Space::at(Path::new("relative")).is_some());
    }
}
