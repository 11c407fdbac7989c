//! Models in several shards, as the repository `org/name`.

use std::collections::BTreeMap;

use safetensors::SafeTensors;
use serde_json::json;

use super::journey;

pub(super) type Files = BTreeMap<String, Vec<u8>>;

const WHOLE: &str = "model.safetensors";

/// The name of a shard, from 1.
pub(super) fn shard(number: usize, count: usize) -> String {
    format!("model-{number:05}-of-{count:05}.safetensors")
}

/// The demo model in `count` shards.
pub(super) fn sharded(count: usize) -> Files {
    split(journey::files("models/demo"), count)
}

/// A model in `count` shards of about equal size: the embedding, the blocks in
/// order, the head. Blocks are cut where a shard is full.
pub(super) fn split(mut files: Files, count: usize) -> Files {
    let whole = files.remove(WHOLE).unwrap();
    let whole = SafeTensors::deserialize(&whole).unwrap();
    let mut tensors = whole.tensors();
    tensors.sort_by_key(|(name, _)| {
        let block = name.strip_prefix("model.layers.");
        let layer = block.and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
        let place = match (layer, name.contains("embed")) {
            (Some(layer), _) => layer + 1,
            (None, embedding) => usize::from(!embedding) * usize::MAX,
        };
        (place, name.clone())
    });
    let total: usize = tensors.iter().map(|(_, view)| view.data().len()).sum();
    let mut shards = vec![Vec::new(); count];
    let (mut before, mut map) = (0, BTreeMap::new());
    for (name, view) in tensors {
        let number = before * count / total;
        before += view.data().len();
        map.insert(name.clone(), shard(number + 1, count));
        shards[number].push((name, view));
    }
    let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
    files.insert(
        "model.safetensors.index.json".to_owned(),
        index.to_string().into_bytes(),
    );
    for (number, tensors) in shards.into_iter().enumerate() {
        let bytes = safetensors::serialize(tensors, None).unwrap();
        files.insert(shard(number + 1, count), bytes);
    }
    files
}

/// Bytes of the largest shard.
pub(super) fn largest(files: &Files) -> u64 {
    let shards = files
        .iter()
        .filter(|(name, _)| name.ends_with(".safetensors"));
    shards.map(|(_, bytes)| bytes.len() as u64).max().unwrap()
}
