//! Which file each tensor goes to, and the files' headers and index.
//!
//! Everything here is known before a byte of data is written. File names are
//! those that mistral.rs and transformers look for.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use router_stats::Error as StatsError;
use safetensors::tensor::{Metadata, TensorInfo};

use super::layout::Output;
use crate::Result;

/// File that maps tensors to shards; absent if there is one shard.
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// One weight file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shard {
    /// File name.
    pub(super) file: String,
    /// Tensors in the order of their data.
    pub(super) outputs: Vec<Output>,
    /// Bytes of all tensors.
    pub(super) bytes: u64,
    /// Header length and header, padded so that the data begins at a multiple
    /// of eight bytes.
    pub(super) header: Vec<u8>,
}

/// Fills shards in order, so that one holds consecutive blocks.
///
/// Inside a shard, wider dtypes come first (as the safetensors crate does), so
/// that every tensor is aligned.
///
/// # Errors
/// [`StatsError::Header`] if two tensors have one name or a header is too large.
pub(super) fn partition(outputs: Vec<Output>, max_bytes: u64) -> Result<Vec<Shard>> {
    partition_as(outputs, max_bytes, file_name)
}

/// As [`partition`], with names of files by their index and count.
///
/// # Errors
/// Those of [`partition`].
pub(super) fn partition_as(
    outputs: Vec<Output>,
    max_bytes: u64,
    file_name: impl Fn(usize, usize) -> String,
) -> Result<Vec<Shard>> {
    let mut groups: Vec<(Vec<Output>, u64)> = Vec::new();
    for output in outputs {
        match groups.last_mut() {
            Some((group, bytes)) if *bytes + output.bytes <= max_bytes => {
                *bytes += output.bytes;
                group.push(output);
            }
            _ => groups.push((vec![output.clone()], output.bytes)),
        }
    }
    let count = groups.len();
    groups
        .into_iter()
        .enumerate()
        .map(|(index, (mut outputs, bytes))| {
            outputs.sort_by_key(|output| Reverse(output.dtype));
            let file = file_name(index, count);
            let header = header(&file, &outputs)?;
            Ok(Shard {
                file,
                outputs,
                bytes,
                header,
            })
        })
        .collect()
}

/// The index of several shards: total size, and the file of each tensor.
pub(super) fn index(shards: &[Shard]) -> serde_json::Value {
    let weight_map: BTreeMap<&str, &str> = shards
        .iter()
        .flat_map(|shard| {
            shard
                .outputs
                .iter()
                .map(|output| (&*output.name, &*shard.file))
        })
        .collect();
    let total_size: u64 = shards.iter().map(|shard| shard.bytes).sum();
    serde_json::json!({ "metadata": { "total_size": total_size }, "weight_map": weight_map })
}

fn file_name(index: usize, count: usize) -> String {
    if count == 1 {
        "model.safetensors".to_owned()
    } else {
        format!("model-{:05}-of-{count:05}.safetensors", index + 1)
    }
}

fn header(file: &str, outputs: &[Output]) -> Result<Vec<u8>> {
    let invalid = |reason: String| StatsError::Header {
        path: file.into(),
        reason,
    };
    let mut end = 0;
    let tensors = outputs
        .iter()
        .map(|output| {
            let start = end;
            end += usize::try_from(output.bytes).map_err(|e| invalid(e.to_string()))?;
            let info = TensorInfo {
                dtype: output.dtype,
                shape: output.shape.clone(),
                data_offsets: (start, end),
            };
            Ok((output.name.clone(), info))
        })
        .collect::<Result<Vec<_>>>()?;
    // transformers refuses a file that does not say what wrote it.
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let metadata = Metadata::new(Some(format), tensors).map_err(|e| invalid(e.to_string()))?;
    let mut json = serde_json::to_vec(&metadata).map_err(|e| invalid(e.to_string()))?;
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.append(&mut json);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use safetensors::{Dtype, SafeTensors};

    use super::super::layout::Source;
    use super::*;
    use crate::Error;

    fn tensor(name: &str, dtype: Dtype, elements: usize) -> Output {
        Output {
            name: name.to_owned(),
            dtype,
            shape: vec![elements],
            bytes: (elements * dtype.bitsize() / 8) as u64,
            source: Source::Copy {
                tensor: name.to_owned(),
            },
        }
    }

    fn names(shard: &Shard) -> Vec<&str> {
        shard.outputs.iter().map(|output| &*output.name).collect()
    }

    #[test]
    fn one_shard_has_the_plain_name() {
        let shards = partition(
            vec![tensor("a", Dtype::BF16, 8), tensor("b", Dtype::BF16, 8)],
            32,
        )
        .unwrap();
        assert_eq!(shards.len(), 1);
        assert_eq!(shards[0].file, "model.safetensors");
        assert_eq!(shards[0].bytes, 32);
    }

    #[test]
    fn shards_are_filled_in_order_and_a_large_tensor_gets_its_own() {
        let outputs = vec![
            tensor("a", Dtype::BF16, 8),
            tensor("b", Dtype::BF16, 8),
            tensor("c", Dtype::BF16, 100),
            tensor("d", Dtype::BF16, 1),
        ];
        let shards = partition(outputs, 32).unwrap();
        let files: Vec<_> = shards.iter().map(|shard| &*shard.file).collect();
        assert_eq!(
            files,
            [
                "model-00001-of-00003.safetensors",
                "model-00002-of-00003.safetensors",
                "model-00003-of-00003.safetensors",
            ]
        );
        assert_eq!(names(&shards[0]), ["a", "b"]);
        assert_eq!(names(&shards[1]), ["c"]);
        assert_eq!(names(&shards[2]), ["d"]);
        let index = index(&shards);
        assert_eq!(index["metadata"]["total_size"], 2 * 117);
        assert_eq!(index["weight_map"]["c"], "model-00002-of-00003.safetensors");
    }

    #[test]
    fn the_header_is_what_safetensors_reads_with_wide_dtypes_first() {
        let outputs = vec![
            tensor("byte", Dtype::U8, 3),
            tensor("half", Dtype::BF16, 5),
            tensor("single", Dtype::F32, 7),
            tensor("other half", Dtype::BF16, 1),
        ];
        let shard = partition(outputs, 1000).unwrap().remove(0);
        assert_eq!(names(&shard), ["single", "half", "other half", "byte"]);
        assert_eq!(shard.header.len() % 8, 0);
        let mut file = shard.header.clone();
        file.extend((0..shard.bytes).map(|byte| byte as u8));
        let (_, metadata) = SafeTensors::read_metadata(&file).unwrap();
        assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "pt");
        let info = metadata.info("half").unwrap();
        assert_eq!(
            (info.dtype, &info.shape[..], info.data_offsets),
            (Dtype::BF16, &[5][..], (28, 38))
        );
        assert_eq!(
            SafeTensors::deserialize(&file)
                .unwrap()
                .tensor("byte")
                .unwrap()
                .data(),
            [40, 41, 42]
        );
    }

    #[test]
    fn a_header_that_contradicts_itself_is_refused() {
        let mut wrong = tensor("a", Dtype::BF16, 8);
        wrong.bytes = 15;
        assert!(matches!(
            partition(vec![wrong], 100),
            Err(Error::Stats(StatsError::Header { .. }))
        ));
    }
}
