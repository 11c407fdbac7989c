//! The model and the texts that ship inside the binary.
//!
//! The model is what is served when none is named; the texts are the default
//! calibration set and the default held-out set of every model. Owns unpacking
//! them into the cache; how they were made is told by `models/demo/README.md`.

use std::path::{Path, PathBuf};

use router_stats::calibration::Source;
use router_stats::progress::Progress;
use sha2::{Digest, Sha256};

use crate::cache::{self, Cache};
use crate::Result;

/// What the model is called.
pub const NAME: &str = "demo";

/// Files of both sets of texts, each a domain named after it.
const TEXTS: [&str; 5] = [
    "stories.txt",
    "textbook.txt",
    "python.txt",
    "math.txt",
    "chat.jsonl",
];

macro_rules! embedded {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_bytes!(concat!("../../models/demo/", $path)).as_slice())),*]
    };
}

/// Path inside the directory, and content.
const FILES: &[(&str, &[u8])] = embedded![
    "README.md",
    "LICENSE",
    "NOTICE",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "calibration/stories.txt",
    "calibration/textbook.txt",
    "calibration/python.txt",
    "calibration/math.txt",
    "calibration/chat.jsonl",
    "held-out/stories.txt",
    "held-out/textbook.txt",
    "held-out/python.txt",
    "held-out/math.txt",
    "held-out/chat.jsonl",
];

/// The unpacked model and texts.
#[derive(Debug, Clone)]
pub struct Demo {
    dir: PathBuf,
}

impl Demo {
    /// Unpacks into `cache` unless that was done before. The folder is named
    /// by its content, so every build finds its own.
    ///
    /// # Errors
    /// If the cache cannot be written.
    pub fn unpack(cache: &Cache, progress: &dyn Progress) -> Result<Self> {
        let hash = content_hash();
        let dir = cache.model(&hash, NAME);
        if !is_whole(&dir) {
            let _lock = cache.lock(&hash, progress)?;
            if !is_whole(&dir) {
                write(&dir)?;
            }
        }
        Ok(Self { dir })
    }

    /// Directory of the checkpoint.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The default calibration set, domains of equal weight.
    pub fn calibration(&self) -> Vec<Source> {
        self.sources("calibration")
    }

    /// The default held-out set, domains of equal weight. It shares no
    /// document with the calibration set.
    pub fn held_out(&self) -> Vec<Source> {
        self.sources("held-out")
    }

    fn sources(&self, folder: &str) -> Vec<Source> {
        TEXTS
            .iter()
            .map(|file| {
                let path = self.dir.join(folder).join(file);
                let domain = path
                    .file_stem()
                    .unwrap_or_default()
                    .to_string_lossy()
                    .into_owned();
                Source {
                    domain,
                    path,
                    weight: 1.0,
                }
            })
            .collect()
    }
}

/// First 32 hexadecimal digits of the SHA-256 of all names and contents.
fn content_hash() -> String {
    let mut hash = Sha256::new();
    for (path, content) in FILES {
        hash.update((path.len() as u64).to_le_bytes());
        hash.update(path.as_bytes());
        hash.update((content.len() as u64).to_le_bytes());
        hash.update(content);
    }
    cache::hex(&hash.finalize()[..16])
}

/// Whether every file is there with its full length.
fn is_whole(dir: &Path) -> bool {
    FILES.iter().all(|(path, content)| {
        std::fs::metadata(dir.join(path)).is_ok_and(|file| file.len() == content.len() as u64)
    })
}

/// Writes a sibling and renames it, replacing what is damaged.
fn write(dir: &Path) -> Result<()> {
    let parent = cache::make_parent(dir)?;
    let sibling = tempfile::tempdir_in(parent).map_err(router_stats::Error::io(parent))?;
    for (path, content) in FILES {
        let path = sibling.path().join(path);
        cache::make_parent(&path)?;
        std::fs::write(&path, content).map_err(router_stats::Error::io(&path))?;
    }
    if dir.exists() {
        std::fs::remove_dir_all(dir).map_err(router_stats::Error::io(dir))?;
    }
    std::fs::rename(sibling.keep(), dir).map_err(router_stats::Error::io(dir))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use router_stats::progress::Silent;

    use super::*;

    #[test]
    fn unpacks_once_and_repairs_damage() {
        let root = tempfile::tempdir().unwrap();
        let cache = Cache::new(root.path());
        let demo = Demo::unpack(&cache, &Silent).unwrap();
        assert!(is_whole(demo.dir()));
        assert_eq!(demo.dir().file_name().unwrap(), NAME);

        let weights = demo.dir().join("model.safetensors");
        let made = std::fs::metadata(&weights).unwrap().modified().unwrap();
        Demo::unpack(&cache, &Silent).unwrap();
        assert_eq!(
            std::fs::metadata(&weights).unwrap().modified().unwrap(),
            made
        );

        std::fs::write(&weights, b"short").unwrap();
        Demo::unpack(&cache, &Silent).unwrap();
        assert!(is_whole(demo.dir()));
    }

    #[test]
    fn licences_come_with_the_files() {
        let text = |name: &str| {
            let (_, content) = FILES.iter().find(|(path, _)| *path == name).unwrap();
            std::str::from_utf8(content).unwrap()
        };
        assert!(text("LICENSE").contains("Apache License"));
        for file in TEXTS {
            assert!(text("NOTICE").contains(file), "{file}");
        }
    }

    #[test]
    fn every_domain_has_a_file_in_both_sets() {
        let demo = Demo {
            dir: PathBuf::from("d"),
        };
        for source in demo.calibration().iter().chain(&demo.held_out()) {
            let path = source.path.strip_prefix("d").unwrap().to_str().unwrap();
            assert!(FILES.iter().any(|(name, _)| *name == path), "{path}");
        }
    }
}
