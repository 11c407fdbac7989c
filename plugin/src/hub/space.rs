//! Whether there is room on a disk.

use std::path::Path;

/// Bytes that may still be written where `path` is or will be; `None` if the
/// system does not say.
#[cfg(unix)]
pub fn free(path: &Path) -> Option<u64> {
    let there = path.ancestors().find(|path| path.exists())?;
    let stat = rustix::fs::statvfs(there).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Bytes that may still be written where `path` is or will be; `None` if the
/// system does not say.
#[cfg(not(unix))]
pub fn free(_: &Path) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_path_that_is_not_there_yet_is_on_the_disk_of_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let there = free(dir.path()).unwrap();
        assert!(there > 0);
        let later = free(&dir.path().join("not/yet")).unwrap();
        // Others write meanwhile.
        assert!(later.abs_diff(there) < there / 2 + (1 << 30));
    }
}
