//! `model.safetensors.index.json`: which shard holds which tensor.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde::Deserialize;

use super::header::UniqueMap;
use crate::{Error, Result};

#[derive(Deserialize)]
struct Index {
    weight_map: UniqueMap<String>,
}

/// Reads the index at `path`: tensor name → name of a file beside the index.
///
/// # Errors
/// [`Error::Io`], [`Error::Json`], or [`Error::Index`] if it is empty or names
/// a file outside its own directory.
pub(super) fn read(path: &Path) -> Result<BTreeMap<String, String>> {
    let text = std::fs::read(path).map_err(Error::io(path))?;
    let index: Index = serde_json::from_slice(&text).map_err(|source| Error::Json {
        path: path.to_path_buf(),
        source,
    })?;
    let weights = index.weight_map.0;
    let error = |reason| Error::Index {
        path: path.to_path_buf(),
        reason,
    };
    if weights.is_empty() {
        return Err(error(
            "expected tensors in `weight_map`, found none".to_owned(),
        ));
    }
    match weights.iter().find(|(_, shard)| !is_file_name(shard)) {
        Some((tensor, shard)) => Err(error(format!(
            "tensor `{tensor}`: expected the name of a file in this directory, found {shard:?}"
        ))),
        None => Ok(weights),
    }
}

/// Whether `name` can only mean a file in the directory it is looked up in, on
/// any system.
fn is_file_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    matches!(components.next(), Some(Component::Normal(first)) if first == name)
        && components.next().is_none()
        && !name.contains(['/', '\\', ':', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_beside_the_index_are_followed() {
        assert!(is_file_name("model-00001-of-00002.safetensors"));
        for name in [
            "",
            ".",
            "..",
            "../a",
            "a/b",
            "/etc/passwd",
            "a\\b",
            "C:a",
            "a/",
            "./a",
            "a\0",
        ] {
            assert!(!is_file_name(name), "{name:?}");
        }
    }
}
