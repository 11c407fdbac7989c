//! Checkpoints for this crate's tests.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::Dtype;

use super::header;

/// A tensor to be written.
pub(crate) type Stored = (String, Dtype, Vec<usize>, Vec<u8>);

/// A tensor of f32 values in `dtype` (bf16, f16 or f32).
pub(crate) fn tensor(name: &str, dtype: Dtype, shape: &[usize], values: &[f32]) -> Stored {
    let bytes = |&value: &f32| match dtype {
        Dtype::BF16 => half::bf16::from_f32(value).to_le_bytes().to_vec(),
        Dtype::F16 => half::f16::from_f32(value).to_le_bytes().to_vec(),
        _ => value.to_le_bytes().to_vec(),
    };
    (
        name.to_owned(),
        dtype,
        shape.to_vec(),
        values.iter().flat_map(bytes).collect(),
    )
}

/// Bytes of a safetensors file that holds `tensors` in this order.
pub(crate) fn file(tensors: &[Stored]) -> Vec<u8> {
    let entries = tensors
        .iter()
        .map(|(name, dtype, shape, _)| (&name[..], *dtype, &shape[..]));
    let mut bytes = header::encode(&BTreeMap::new(), entries);
    tensors
        .iter()
        .for_each(|(_, _, _, data)| bytes.extend_from_slice(data));
    bytes
}

/// Writes a checkpoint of one shard into `dir`.
pub(crate) fn write(dir: &Path, config: &str, tensors: &[Stored]) {
    std::fs::write(dir.join("config.json"), config).unwrap();
    std::fs::write(dir.join("model.safetensors"), file(tensors)).unwrap();
}

/// Writes a checkpoint with one shard per entry of `shards` into `dir`.
pub(crate) fn write_sharded(dir: &Path, config: &str, shards: &[&[Stored]]) {
    std::fs::write(dir.join("config.json"), config).unwrap();
    let mut weights = serde_json::Map::new();
    for (number, tensors) in shards.iter().enumerate() {
        let name = format!("model-{:05}-of-{:05}.safetensors", number + 1, shards.len());
        std::fs::write(dir.join(&name), file(tensors)).unwrap();
        weights.extend(
            tensors
                .iter()
                .map(|(tensor, ..)| (tensor.clone(), name.clone().into())),
        );
    }
    let index = serde_json::json!({"metadata": {}, "weight_map": weights});
    std::fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
}
