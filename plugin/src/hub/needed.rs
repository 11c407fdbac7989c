//! Which files of a repository make a checkpoint.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::listing::Listing;
use super::Failure;

pub(super) const CONFIG: &str = "config.json";
pub(super) const WEIGHTS: &str = "model.safetensors";
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// Small files that a checkpoint carries if they exist.
const OPTIONAL: [&str; 9] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
];

/// Whether the weights are the shards of the index. One file with all of them
/// goes before an index, as it does when a checkpoint is opened.
pub(super) fn is_sharded(has: impl Fn(&str) -> bool) -> bool {
    has(INDEX) && !has(WEIGHTS)
}

/// The files beside the weights, the index included.
///
/// # Errors
/// [`Failure::NoCheckpoint`] if there is no configuration or no weights, and
/// [`Failure::OnlyGguf`] if there are weights in GGUF instead.
pub(super) fn small(listing: &Listing) -> Result<Vec<&'static str>, Failure> {
    let mut names = listing.files.iter().map(|file| &file.name);
    let weights = listing.has(WEIGHTS) || listing.has(INDEX);
    if let Some(file) = names.find(|name| !weights && name.ends_with(".gguf")) {
        return Err(Failure::OnlyGguf(file.clone()));
    }
    if !listing.has(CONFIG) {
        return Err(Failure::NoCheckpoint(CONFIG));
    }
    let sharded = is_sharded(|name| listing.has(name));
    if !sharded && !listing.has(WEIGHTS) {
        return Err(Failure::NoCheckpoint(
            "model.safetensors, nor an index with shards",
        ));
    }
    let mut names = vec![CONFIG];
    names.extend(OPTIONAL.iter().filter(|name| listing.has(name)));
    names.extend(sharded.then_some(INDEX));
    Ok(names)
}

/// The files that hold the weights, once `dir` holds the small ones. `has` says
/// what there is.
///
/// # Errors
/// What is wrong with the index.
pub(super) fn weights(dir: &Path, has: impl Fn(&str) -> bool) -> Result<BTreeSet<String>, String> {
    if is_sharded(has) {
        shards(&dir.join(INDEX))
    } else {
        Ok(BTreeSet::from([WEIGHTS.to_owned()]))
    }
}

/// Names of the shards in an index. A name with a separator would leave the
/// snapshot, so it is refused.
fn shards(index: &Path) -> Result<BTreeSet<String>, String> {
    let text = std::fs::read(index).map_err(|error| error.to_string())?;
    let index: Value =
        serde_json::from_slice(&text).map_err(|error| format!("{INDEX}: {error}"))?;
    let map = index["weight_map"]
        .as_object()
        .ok_or_else(|| format!("{INDEX}: no `weight_map`"))?;
    map.values()
        .map(|name| match name.as_str() {
            Some(name) if name.ends_with(".safetensors") && !name.contains(['/', '\\']) => {
                Ok(name.to_owned())
            }
            _ => Err(format!("{INDEX}: {name} is not the name of a shard")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_cannot_name_files_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let index = dir.path().join(INDEX);
        for name in ["../x.safetensors", "a/b.safetensors", "x.bin", ""] {
            let map = serde_json::json!({ "weight_map": { "t": name } });
            std::fs::write(&index, map.to_string()).unwrap();
            assert!(shards(&index).is_err(), "{name}");
        }
        let map =
            serde_json::json!({ "weight_map": { "a": "x.safetensors", "b": "x.safetensors" } });
        std::fs::write(&index, map.to_string()).unwrap();
        assert_eq!(shards(&index).unwrap().len(), 1);
    }
}
