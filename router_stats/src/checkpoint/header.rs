//! The safetensors header: strict parsing and writing.
//!
//! `u64` length, that many bytes of JSON, then the tensors' bytes without gap
//! or overlap (<https://huggingface.co/docs/safetensors>). Nothing in a header
//! is trusted: every way it can lie is a named [`Malformed`].

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use safetensors::tensor::TensorInfo;
use safetensors::Dtype;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{json, Map, Value};

use crate::Error;

/// Longest header accepted, as in the reference implementation.
const MAX_HEADER_BYTES: u64 = 100_000_000;

/// Bytes of the length that precedes the header.
const LENGTH_BYTES: usize = 8;

/// What a file says about its tensors.
#[derive(Debug)]
pub(crate) struct Header {
    /// `__metadata__`.
    pub(crate) metadata: BTreeMap<String, String>,
    /// Name, dtype, shape and offsets from the first byte of the file, by offset.
    pub(crate) tensors: Vec<(String, TensorInfo)>,
}

/// What is wrong with a file.
#[derive(Debug, PartialEq)]
pub(crate) enum Malformed {
    /// The header lies or does not parse.
    Header(String),
    /// The file ends before this tensor does.
    Truncated {
        tensor: String,
        dtype: Dtype,
        shape: Vec<usize>,
        expected: u64,
        found: u64,
    },
}

impl Malformed {
    /// The public error about the file at `path`.
    pub(crate) fn at(self, path: &Path) -> Error {
        let path = path.to_path_buf();
        match self {
            Self::Header(reason) => Error::Header { path, reason },
            Self::Truncated {
                tensor,
                dtype,
                shape,
                expected,
                found,
            } => Error::Truncated {
                path,
                tensor,
                shape,
                dtype: dtype.to_string(),
                expected,
                found,
            },
        }
    }
}

fn header<T>(reason: impl Into<String>) -> Result<T, Malformed> {
    Err(Malformed::Header(reason.into()))
}

/// The length of the header of a file that begins with `file`, and the rest of
/// that.
fn length(file: &[u8]) -> Result<(u64, &[u8]), Malformed> {
    let Some((length, rest)) = file.split_first_chunk::<LENGTH_BYTES>() else {
        return header(format!(
            "expected at least {LENGTH_BYTES} bytes, found {}",
            file.len()
        ));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER_BYTES {
        return header(format!(
            "length of {length} bytes exceeds {MAX_HEADER_BYTES}"
        ));
    }
    Ok((length, rest))
}

/// Bytes before the data of a file of `size` bytes that begins with `first`.
pub(super) fn before_data(first: &[u8], size: u64) -> Result<u64, Malformed> {
    let (length, _) = length(first)?;
    let end = length + LENGTH_BYTES as u64;
    if end > size {
        let follow = size.saturating_sub(LENGTH_BYTES as u64);
        return header(format!(
            "length of {length} bytes, but only {follow} follow"
        ));
    }
    Ok(end)
}

/// Parses and validates the header of a file whose bytes are `file`.
pub(crate) fn parse(file: &[u8]) -> Result<Header, Malformed> {
    let (length, rest) = length(file)?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let Some((json, data)) = rest.split_at_checked(length) else {
        return header(format!(
            "length of {length} bytes, but only {} follow",
            rest.len()
        ));
    };
    let entries: UniqueMap<Value> = match serde_json::from_slice(json) {
        Ok(entries) => entries,
        Err(error) => return header(error.to_string()),
    };
    let mut metadata = BTreeMap::new();
    let mut tensors = Vec::with_capacity(entries.0.len());
    for (name, entry) in entries.0 {
        if name == "__metadata__" {
            metadata = from_entry(&name, entry)?;
        } else {
            tensors.push((name.clone(), from_entry(&name, entry)?));
        }
    }
    tensors.sort_by_key(|(_, info): &(String, TensorInfo)| info.data_offsets);
    check_layout(&mut tensors, data.len(), LENGTH_BYTES + length)?;
    Ok(Header { metadata, tensors })
}

fn from_entry<T: DeserializeOwned>(name: &str, entry: Value) -> Result<T, Malformed> {
    serde_json::from_value(entry).or_else(|error| header(format!("`{name}`: {error}")))
}

/// Checks that tensors follow each other without gap or overlap, have the size
/// that shape and dtype imply, and fill the file; then rebases their offsets to
/// the start of the file.
fn check_layout(
    tensors: &mut [(String, TensorInfo)],
    available: usize,
    base: usize,
) -> Result<(), Malformed> {
    let mut end = 0;
    for (name, info) in tensors.iter() {
        let (from, to) = info.data_offsets;
        if to < from {
            return header(format!("`{name}`: offsets {from}..{to} run backwards"));
        }
        if from < end {
            return header(format!(
                "`{name}`: starts at byte {from}, inside the tensor before it"
            ));
        }
        if from > end {
            return header(format!("`{name}`: {} unused bytes before it", from - end));
        }
        let Some(bytes) = byte_size(info) else {
            return header(format!(
                "`{name}`: {:?} {} is not a whole number of addressable bytes",
                info.shape, info.dtype
            ));
        };
        if bytes != to - from {
            return header(format!(
                "`{name}`: {:?} {} takes {bytes} bytes, but its offsets span {}",
                info.shape,
                info.dtype,
                to - from
            ));
        }
        end = to;
    }
    // Only after every offset has been checked is a short file a truncated one.
    if let Some((name, info)) = tensors
        .iter()
        .find(|(_, info)| info.data_offsets.1 > available)
    {
        let (from, to) = info.data_offsets;
        return Err(Malformed::Truncated {
            tensor: name.clone(),
            dtype: info.dtype,
            shape: info.shape.clone(),
            expected: (to - from) as u64,
            found: available.saturating_sub(from) as u64,
        });
    }
    if end < available {
        return header(format!("{} bytes after the last tensor", available - end));
    }
    for (_, info) in tensors {
        info.data_offsets.0 += base;
        info.data_offsets.1 += base;
    }
    Ok(())
}

/// Bytes of a tensor; `None` on overflow or if it ends inside a byte.
fn byte_size(info: &TensorInfo) -> Option<usize> {
    let elements = info
        .shape
        .iter()
        .try_fold(1usize, |n, &dim| n.checked_mul(dim))?;
    let bits = elements.checked_mul(info.dtype.bitsize())?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

/// Writes the length and JSON that precede tensors stored in this order. The
/// same arguments give the same bytes; padded so that data starts on 8 bytes.
pub(crate) fn encode<'a>(
    metadata: &BTreeMap<String, String>,
    tensors: impl IntoIterator<Item = (&'a str, Dtype, &'a [usize])>,
) -> Vec<u8> {
    let mut entries = Map::new();
    entries.insert("__metadata__".to_owned(), json!(metadata));
    let mut start = 0;
    for (name, dtype, shape) in tensors {
        let end = start + shape.iter().product::<usize>() * dtype.bitsize() / 8;
        let entry =
            json!({"dtype": dtype.to_string(), "shape": shape, "data_offsets": [start, end]});
        entries.insert(name.to_owned(), entry);
        start = end;
    }
    let mut json = Value::Object(entries).to_string().into_bytes();
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.append(&mut json);
    header
}

/// A JSON object whose keys differ.
#[derive(Debug)]
pub(super) struct UniqueMap<V>(pub(super) BTreeMap<String, V>);

impl<'de, V: Deserialize<'de>> Deserialize<'de> for UniqueMap<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Unique<V>(std::marker::PhantomData<V>);

        impl<'de, V: Deserialize<'de>> Visitor<'de> for Unique<V> {
            type Value = UniqueMap<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, V>()? {
                    if entries.contains_key(&key) {
                        let message = format!("duplicate name `{key}`");
                        return Err(serde::de::Error::custom(message));
                    }
                    entries.insert(key, value);
                }
                Ok(UniqueMap(entries))
            }
        }

        deserializer.deserialize_map(Unique(std::marker::PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn file(json: &str, data: usize) -> Vec<u8> {
        let mut file = (json.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(json.as_bytes());
        file.resize(file.len() + data, 1);
        file
    }

    fn reason(json: &str, data: usize) -> String {
        match parse(&file(json, data)) {
            Err(Malformed::Header(reason)) => reason,
            other => panic!("{other:?}"),
        }
    }

    const TWO: &str = r#"{"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]},
        "a":{"dtype":"BF16","shape":[2,1],"data_offsets":[0,4]},"__metadata__":{"format":"pt"}}"#;

    #[test]
    fn tensors_come_in_file_order_with_file_offsets() {
        let parsed = parse(&file(TWO, 12)).unwrap();
        let base = 8 + TWO.len();
        let found: Vec<_> = parsed
            .tensors
            .iter()
            .map(|(n, i)| (n.as_str(), i.dtype, i.data_offsets))
            .collect();
        let expected = [
            ("a", Dtype::BF16, (base, base + 4)),
            ("b", Dtype::F32, (base + 4, base + 12)),
        ];
        assert_eq!(found, expected);
        assert_eq!(parsed.metadata["format"], "pt");
    }

    #[test]
    fn encoding_is_what_the_reference_implementation_reads() {
        let metadata = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
        let tensors = [
            ("x", Dtype::F64, &[1, 2][..]),
            ("e", Dtype::BF16, &[0]),
            ("s", Dtype::U8, &[]),
        ];
        let mut bytes = encode(&metadata, tensors);
        assert_eq!(bytes.len() % 8, 0);
        bytes.extend_from_slice(&[7; 17]);
        let read = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(read.tensor("x").unwrap().shape(), [1, 2]);
        assert_eq!(read.tensor("s").unwrap().data(), [7]);
        assert_eq!(parse(&bytes).unwrap().metadata, metadata);
    }

    #[test]
    fn a_file_without_a_length_is_refused() {
        assert!(matches!(parse(&[]), Err(Malformed::Header(r)) if r.contains("found 0")));
        assert!(matches!(parse(&[1; 7]), Err(Malformed::Header(r)) if r.contains("found 7")));
    }

    #[test]
    fn an_absurd_length_is_refused() {
        let bytes = [u64::MAX.to_le_bytes(), [0; 8]].concat();
        assert!(matches!(parse(&bytes), Err(Malformed::Header(r)) if r.contains("exceeds")));
    }

    #[test]
    fn a_length_beyond_the_file_is_refused() {
        let bytes = [100u64.to_le_bytes(), [b' '; 8]].concat();
        assert!(matches!(parse(&bytes), Err(Malformed::Header(r)) if r.contains("only 8 follow")));
    }

    #[test]
    fn a_header_that_is_not_json_is_refused() {
        assert!(reason("not json", 0).contains("expected"));
        assert!(reason("[1]", 0).contains("an object"));
        assert!(reason("{} {}", 0).contains("trailing"));
        assert!(reason(&"[".repeat(100_000), 0).contains("an object"));
        assert!(reason(&format!("{{\"a\":{}", "[".repeat(100_000)), 0).contains("recursion"));
    }

    #[test]
    fn an_unknown_dtype_is_refused() {
        let json = r#"{"a":{"dtype":"F7","shape":[1],"data_offsets":[0,1]}}"#;
        assert!(reason(json, 1).contains("`a`: unknown variant `F7`"));
    }

    #[test]
    fn a_repeated_name_is_refused() {
        let json = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},
            "a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#;
        assert!(reason(json, 1).contains("duplicate name `a`"));
    }

    #[test]
    fn offsets_that_do_not_tile_the_file_are_refused() {
        let two = |second: &str| {
            format!(
                r#"{{"a":{{"dtype":"U8","shape":[4],"data_offsets":[0,4]}},
                "b":{{"dtype":"U8","shape":[4],"data_offsets":{second}}}}}"#
            )
        };
        assert!(reason(&two("[2,6]"), 8).contains("`b`: starts at byte 2, inside"));
        assert!(reason(&two("[5,9]"), 9).contains("`b`: 1 unused bytes"));
        assert!(reason(&two("[8,4]"), 8).contains("run backwards"));
        assert!(reason(&two("[4,7]"), 8).contains("takes 4 bytes, but its offsets span 3"));
        assert!(reason(&two("[4,8]"), 9).contains("1 bytes after the last tensor"));
        assert!(reason(&two("[-4,8]"), 9).contains("`b`: invalid value"));
        assert!(reason(&two("[4,99999999999999999999]"), 9).contains("`b`: invalid"));
    }

    #[test]
    fn sizes_that_overflow_or_end_inside_a_byte_are_refused() {
        let one = |dtype: &str, shape: &str| {
            let json =
                format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,1]}}}}"#);
            reason(&json, 1)
        };
        let whole = "not a whole number of addressable bytes";
        assert!(one("U8", "[18446744073709551615, 2]").contains(whole));
        assert!(one("F64", "[18446744073709551615]").contains(whole));
        assert!(one("F4", "[3]").contains(whole));
    }

    #[test]
    fn a_short_file_names_its_first_cut_tensor() {
        let truncated = |data| match parse(&file(TWO, data)) {
            Err(Malformed::Truncated {
                tensor,
                expected,
                found,
                ..
            }) => (tensor, expected, found),
            other => panic!("{other:?}"),
        };
        assert_eq!(truncated(11), ("b".to_owned(), 8, 7));
        assert_eq!(truncated(4), ("b".to_owned(), 8, 0));
        assert_eq!(truncated(3), ("a".to_owned(), 4, 3));
    }

    proptest! {
        #[test]
        fn damaged_files_never_panic(
            edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            length in any::<prop::sample::Index>(),
            cut in any::<bool>(),
        ) {
            let mut bytes = file(TWO, 12);
            for (index, value) in edits {
                let at = index.index(bytes.len());
                bytes[at] = value;
            }
            if cut {
                bytes.truncate(length.index(bytes.len()));
            }
            if let Ok(parsed) = parse(&bytes) {
                for (_, info) in parsed.tensors {
                    prop_assert!(bytes.get(info.data_offsets.0..info.data_offsets.1).is_some());
                }
            }
        }
    }
}
