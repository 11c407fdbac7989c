use proptest::prelude::*;

use super::*;

/// One value of every kind.
fn metadata() -> Metadata {
    let nested = Array::Array(vec![
        Array::F64(vec![0.5]),
        Array::String(vec!["é".to_owned(), String::new()]),
    ]);
    let entries = [
        ("u8", Value::U8(255)),
        ("i8", Value::I8(-1)),
        ("u16", Value::U16(65_535)),
        ("i16", Value::I16(-2)),
        ("u32", Value::U32(7)),
        ("i32", Value::I32(-3)),
        ("f32", Value::F32(1e-6)),
        ("bool", Value::Bool(true)),
        ("text", Value::from("naïve")),
        ("u64", Value::U64(u64::MAX)),
        ("i64", Value::I64(i64::MIN)),
        ("f64", Value::F64(-0.0)),
        ("nested", Value::Array(nested)),
        ("flags", Value::Array(Array::Bool(vec![true, false]))),
        ("empty", Value::Array(Array::U8(Vec::new()))),
    ];
    Metadata::new(entries.map(|(key, value)| (key.to_owned(), value)))
}

fn tensors() -> Vec<Info> {
    let mut tensors = vec![
        Info::new("a", GgmlDType::F32, vec![3]),
        Info::new("b", GgmlDType::Q8_0, vec![2, 32]),
        Info::new("c", GgmlDType::BF16, vec![2, 1, 2]),
    ];
    assert_eq!(place(&mut tensors, 32), Some(32 + 96 + 32));
    tensors
}

/// A whole file of these.
fn file(metadata: &Metadata, tensors: &[Info], data: usize) -> Vec<u8> {
    let mut file = Header::encode(metadata, tensors, DEFAULT_ALIGNMENT);
    file.resize(file.len() + data, 1);
    file
}

fn reason(file: &[u8]) -> String {
    match Header::parse(file) {
        Err(Malformed::Header(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_written_is_read() {
    let file = file(&metadata(), &tensors(), 160);
    let header = Header::parse(&file).unwrap();
    assert_eq!(header.metadata, metadata());
    assert_eq!(header.tensors, tensors());
    assert_eq!((header.data + 160, header.alignment), (file.len(), 32));
    assert_eq!(
        Header::encode(&header.metadata, &header.tensors, header.alignment),
        file[..header.data]
    );
}

#[test]
fn candle_reads_the_same() {
    let bytes = file(&metadata_without_nesting(), &tensors(), 160);
    let header = Header::parse(&bytes).unwrap();
    let mut reader = std::io::Cursor::new(&bytes);
    let content = candle_core::quantized::gguf_file::Content::read(&mut reader).unwrap();
    assert_eq!(content.tensor_data_offset, header.data as u64);
    for info in &header.tensors {
        let theirs = &content.tensor_infos[&info.name];
        assert_eq!(theirs.shape.dims(), info.shape);
        assert_eq!(
            (theirs.ggml_dtype, theirs.offset),
            (info.element, info.offset)
        );
    }
    assert_eq!(content.metadata["u32"].to_u32().unwrap(), 7);
    assert_eq!(content.metadata["text"].to_string().unwrap(), "naïve");
}

fn metadata_without_nesting() -> Metadata {
    let mut metadata = metadata();
    metadata.remove("nested");
    metadata
}

#[test]
fn another_alignment_is_kept() {
    let mut tensors = tensors();
    let data = place(&mut tensors, 64).unwrap();
    let metadata = Metadata::new([(ALIGNMENT.to_owned(), Value::U32(64))]);
    let mut file = Header::encode(&metadata, &tensors, 64);
    file.resize(file.len() + data as usize, 0);
    let header = Header::parse(&file).unwrap();
    assert_eq!((header.alignment, header.data % 64), (64, 0));
    assert_eq!(header.tensors[2].offset, 64 + 128);
    for bad in [
        Value::U32(0),
        Value::U32(48),
        Value::U32(1 << 30),
        Value::U64(32),
    ] {
        let metadata = Metadata::new([(ALIGNMENT.to_owned(), bad)]);
        let file = Header::encode(&metadata, &[], 32);
        assert!(reason(&file).contains("expected a power of two"));
    }
}

#[test]
fn what_is_not_gguf_is_said() {
    assert!(reason(b"").contains("`magic`: needs 4 bytes at byte 0, but only 0 follow"));
    assert!(reason(b"PK\x03\x04").contains("expected the magic `GGUF`"));
    let version = |version: u32| [MAGIC.to_vec(), version.to_le_bytes().to_vec()].concat();
    assert!(reason(&version(1)).contains("expected version 2 or 3, found 1"));
    assert!(reason(&version(3u32.swap_bytes())).contains("big-endian"));
    assert!(reason(&version(3)).contains("`tensors`: needs 8 bytes"));
    let mut second = file(&metadata(), &tensors(), 160);
    second[4] = 2;
    assert_eq!(Header::parse(&second).unwrap().tensors, tensors());
}

#[test]
fn counts_beyond_the_file_are_refused() {
    let bytes = file(&Metadata::default(), &tensors(), 160);
    let with = |at: usize, value: u64| {
        let mut bytes = bytes.clone();
        bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        reason(&bytes)
    };
    assert!(with(8, u64::MAX).contains("`tensors`: a count of 18446744073709551615"));
    assert!(with(16, 1 << 40).contains("`keys`: a count of 1099511627776"));
    // The name of the first tensor.
    assert!(with(24, 1 << 50).contains("`tensor name`: a count of"));
    assert!(with(24, 0).contains("expected a tensor name of 1 to 65535 bytes, found 0"));
    // Its one dimension.
    assert!(with(24 + 8 + 1 + 4, 0).contains("`a`: a dimension of 0"));
    assert!(with(24 + 8 + 1 + 4, 1 << 63).contains("`a`: [9223372036854775808] F32 is not"));
}

#[test]
fn arrays_beyond_the_file_or_too_deep_are_refused() {
    let mut array = Array::U8(vec![1]);
    for _ in 0..8 {
        array = Array::Array(vec![array]);
    }
    let deep = Metadata::new([("k".to_owned(), Value::Array(array))]);
    assert!(reason(&file(&deep, &[], 0)).contains("`k`: arrays nested deeper than 8"));
    let flat = Metadata::new([("k".to_owned(), Value::Array(Array::String(Vec::new())))]);
    let mut bytes = file(&flat, &[], 0);
    let count = 24 + 9 + 4 + 4;
    bytes[count..count + 8].copy_from_slice(&(1u64 << 60).to_le_bytes());
    assert!(reason(&bytes).contains("`k`: a count of 1152921504606846976"));
    bytes[24 + 9] = 13;
    assert!(reason(&bytes).contains("`k`: unknown kind of value 13"));
}

#[test]
fn what_is_said_twice_is_refused() {
    let twice = Metadata::distinct(vec![("k".to_owned(), Value::U8(0)); 2]);
    assert!(reason(&file(&twice, &[], 0)).contains("duplicate key `k`"));
    let mut two = vec![Info::new("a", GgmlDType::F32, vec![8]); 2];
    place(&mut two, 32);
    assert!(reason(&file(&Metadata::default(), &two, 64)).contains("duplicate tensor `a`"));
}

#[test]
fn texts_and_flags_are_what_they_say() {
    let text = Metadata::new([("k".to_owned(), Value::from("ab"))]);
    let mut bytes = file(&text, &[], 0);
    bytes[24 + 9 + 4 + 8] = 0xff;
    assert!(reason(&bytes).contains("`k`: text that is not UTF-8"));
    let flag = Metadata::new([("k".to_owned(), Value::Bool(true))]);
    let mut bytes = file(&flag, &[], 0);
    bytes[24 + 9 + 4] = 2;
    assert!(reason(&bytes).contains("`k`: expected a flag of 0 or 1, found 2"));
}

#[test]
fn tensors_that_do_not_tile_the_file_are_refused() {
    let metadata = Metadata::default();
    let mut moved = tensors();
    moved[1].offset = 64;
    let found = reason(&file(&metadata, &moved, 160));
    assert!(found.contains("`b`: expected offset 32"), "{found}");
    let mut ragged = tensors();
    ragged[1].shape = vec![2, 48];
    assert!(reason(&file(&metadata, &ragged, 160)).contains("`b`: [2, 48] Q8_0 is not a whole"));
    assert!(reason(&file(&metadata, &tensors(), 161)).contains("1 bytes after the last tensor"));
    let cut = Header::parse(&file(&metadata, &tensors(), 135)).unwrap_err();
    let Malformed::Truncated {
        tensor,
        expected,
        found,
        ..
    } = cut
    else {
        panic!("{cut:?}");
    };
    assert_eq!((tensor.as_str(), expected, found), ("c", 8, 7));
    // The padding after the last tensor may be missing.
    assert!(Header::parse(&file(&metadata, &tensors(), 136)).is_ok());
}

#[test]
fn types_that_are_not_read_are_named() {
    let mut bytes = file(&Metadata::default(), &tensors(), 160);
    let code = 24 + 8 + 1 + 4 + 8;
    bytes[code] = 23;
    let expected = Malformed::Element {
        tensor: "a".to_owned(),
        found: "IQ4_XS (type 23)".to_owned(),
    };
    assert_eq!(Header::parse(&bytes), Err(expected));
}

#[test]
fn keys_keep_their_places() {
    let mut metadata = metadata();
    let before = metadata.clone();
    metadata.set("u32", 9u32);
    metadata.set("new", "x");
    assert_eq!(metadata.entries().len(), before.entries().len() + 1);
    for (old, new) in before.entries().iter().zip(metadata.entries()) {
        assert_eq!(old.0, new.0);
        assert_eq!(old.1 == new.1, old.0 != "u32");
    }
    assert_eq!(metadata.entries().last().unwrap().0, "new");
    assert_eq!(metadata.count("u32"), Ok(9));
    assert_eq!(metadata.number("f32"), Ok(1e-6));
    let error = metadata.count("i8").unwrap_err();
    assert_eq!((error.key.as_str(), error.found.as_str()), ("i8", "-1"));
    assert_eq!(metadata.count("absent").unwrap_err().found, "nothing");
}

proptest! {
    #[test]
    fn damaged_files_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        length in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = file(&metadata(), &tensors(), 160);
        for (index, value) in edits {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        if cut {
            bytes.truncate(length.index(bytes.len()));
        }
        if let Ok(header) = Header::parse(&bytes) {
            for tensor in &header.tensors {
                let start = header.data + tensor.offset as usize;
                let end = start + tensor.bytes().unwrap();
                prop_assert!(bytes.get(start..end).is_some());
            }
        }
    }
}
