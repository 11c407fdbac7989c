//! A longest sequence that is shorter than the model's.
//!
//! mistral.rs 0.8.1 refuses prompts that are longer than
//! `max_position_embeddings` of `config.json` and ends answers there, makes its
//! rotary tables as long, and has no other setting for it. So it is given a
//! directory of links to the checkpoint's files, beside another configuration.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::cache::{make_parent, Cache, Key};
use crate::{Error, Result};

/// The field of `config.json`.
const FIELD: &str = "max_position_embeddings";

/// The checkpoint in `dir` with sequences of at most `tokens` tokens: `dir`
/// itself if it says so, or a directory in the cache that links to its files.
///
/// # Errors
/// If the cache cannot be written.
pub(super) fn limited(dir: &Path, tokens: usize, cache: &Cache) -> Result<PathBuf> {
    let path = dir.join("config.json");
    let text = std::fs::read(&path).map_err(router_stats::Error::io(&path))?;
    let mut config: Value = serde_json::from_slice(&text).map_err(|source| {
        let path = path.clone();
        router_stats::Error::Json { path, source }
    })?;
    let fields = match config.get_mut("text_config") {
        Some(inner) => inner,
        None => &mut config,
    };
    if fields[FIELD].as_u64() == Some(tokens as u64) {
        return Ok(dir.to_path_buf());
    }
    fields[FIELD] = tokens.into();
    let dir = dir.canonicalize().map_err(router_stats::Error::io(dir))?;
    let key = Key::new("limited")
        .with(&dir.display().to_string())
        .with(&tokens.to_string())
        .finish();
    let name = dir
        .file_name()
        .map_or_else(|| "model".into(), ToOwned::to_owned);
    let links = cache.root().join("limited").join(key).join(name);
    make_parent(&links)?;
    std::fs::create_dir_all(&links).map_err(router_stats::Error::io(&links))?;
    for entry in std::fs::read_dir(&dir).map_err(router_stats::Error::io(&dir))? {
        let file = entry.map_err(router_stats::Error::io(&dir))?;
        let at = links.join(file.file_name());
        if file.file_name() != "config.json" && !at.exists() {
            link(&file.path(), &at).map_err(router_stats::Error::io(&at))?;
        }
    }
    let path = links.join("config.json");
    let text = serde_json::to_vec_pretty(&config).map_err(Error::Serialize)?;
    router_stats::atomic::write(&path, |file| file.write_all(&text))?;
    Ok(links)
}

#[cfg(unix)]
fn link(file: &Path, at: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(file, at)
}

#[cfg(not(unix))]
fn link(file: &Path, at: &Path) -> std::io::Result<()> {
    std::fs::hard_link(file, at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture::{model, Stored};

    #[test]
    fn a_limited_checkpoint_has_the_same_files() {
        let fixture = model(Stored::PerExpert);
        let place = tempfile::tempdir().unwrap();
        let cache = Cache::new(place.path());
        let dir = fixture.checkpoint.dir();
        let made = limited(dir, 512, &cache).unwrap();
        assert_ne!(made, dir);
        // A second start finds it.
        assert_eq!(limited(dir, 512, &cache).unwrap(), made);
        assert_eq!(limited(&made, 512, &cache).unwrap(), made);
        let config = std::fs::read_to_string(made.join("config.json")).unwrap();
        assert!(
            config.contains("\"max_position_embeddings\": 512"),
            "{config}"
        );
        let read = |dir: &Path| std::fs::read(dir.join("model.safetensors")).unwrap();
        assert_eq!(read(&made), read(dir));
    }
}
