//! The cache: where it is, what is in it, what room there is.

use std::path::{Path, PathBuf};

use super::Finding;
use crate::cli::Global;
use crate::format;
use crate::space::Space;

/// Folders of the cache, in the order in which they fill.
const FOLDERS: [&str; 5] = ["models", "stats", "plans", "evals", "checkpoints"];

/// Free bytes on disk below which a pruned checkpoint may not fit.
const LITTLE_ROOM: u64 = 5_000_000_000;

/// Answers about the cache.
pub(super) fn findings(global: &Global) -> Vec<Finding> {
    let cache = match global.cache() {
        Ok(cache) => cache,
        Err(error) => return vec![Finding::error("cache", &error)],
    };
    let mut findings = vec![contents(cache.root())];
    findings.extend(room(cache.root()));
    findings
}

/// What is in the cache, and whether more can be.
fn contents(root: &Path) -> Finding {
    let sizes = FOLDERS.map(|folder| (folder, entries(&root.join(folder))));
    let total: u64 = sizes.iter().map(|(_, (_, bytes))| bytes).sum();
    let held = sizes.iter().filter(|(_, (count, _))| *count > 0);
    let held: Vec<String> = held
        .map(|(folder, (count, bytes))| format!("{folder}: {count}, {}", format::bytes(*bytes)))
        .collect();
    let what = match held.is_empty() {
        true => "empty".to_owned(),
        false => format!("{} ({})", format::bytes(total), held.join("; ")),
    };
    let found = format!("{}: {what}", root.display());
    let place = existing(root);
    match tempfile::tempfile_in(&place) {
        Ok(_) => Finding::ok("cache", found),
        Err(source) => Finding {
            hint: Some(
                "choose another folder with --cache-dir or MISTRALRS_PRUNE_CACHE".to_owned(),
            ),
            ..Finding::error("cache", &router_stats::Error::io(&place)(source).into())
        },
    }
}

/// Room on the disk that the cache is on.
fn room(root: &Path) -> Option<Finding> {
    let Space { free, total } = Space::at(root)?;
    let found = format!("{} free of {}", format::bytes(free), format::bytes(total));
    Some(match free < LITTLE_ROOM {
        false => Finding::ok("disk", found),
        true => Finding::warning(
            "disk",
            found,
            format!(
                "everything in {} can be made again: delete what is old, or choose another disk with --cache-dir",
                root.display()
            ),
        ),
    })
}

/// `path`, or the nearest folder above it that exists.
fn existing(path: &Path) -> PathBuf {
    let mut above = path.ancestors().filter(|path| !path.as_os_str().is_empty());
    above
        .find(|path| path.is_dir())
        .unwrap_or(Path::new("."))
        .to_path_buf()
}

/// Entries of a folder and the bytes of all files under it. What cannot be read
/// counts nothing.
fn entries(folder: &Path) -> (usize, u64) {
    let Ok(read) = std::fs::read_dir(folder) else {
        return (0, 0);
    };
    let mut all = (0, 0);
    for entry in read.flatten() {
        all.0 += 1;
        all.1 += match entry.file_type() {
            Ok(kind) if kind.is_dir() => entries(&entry.path()).1,
            Ok(kind) if kind.is_file() => entry.metadata().map_or(0, |file| file.len()),
            _ => 0,
        };
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_counted_and_weighed_with_all_under_them() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a/b");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::write(inner.join("x"), [0; 10]).unwrap();
        std::fs::write(folder.path().join("y"), [0; 5]).unwrap();
        assert_eq!(entries(folder.path()), (2, 15));
        assert_eq!(entries(&folder.path().join("none")), (0, 0));
        assert_eq!(existing(&folder.path().join("none/at/all")), folder.path());
    }
}
