use proptest::prelude::*;
use safetensors::Dtype;

use super::testing::{file, tensor, write, write_sharded, Stored};
use super::*;

fn stored() -> Vec<Stored> {
    vec![
        tensor("b", Dtype::BF16, &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        tensor("a", Dtype::F32, &[2], &[0.5, -0.5]),
        tensor("c", Dtype::F16, &[3, 1], &[1.0, 2.0, 4.0]),
    ]
}

fn opened(tensors: &[Stored]) -> (tempfile::TempDir, Checkpoint) {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), r#"{"b": 1, "a": {"y": 1, "x": 2}}"#, tensors);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    (dir, checkpoint)
}

fn open_error(prepare: impl FnOnce(&Path)) -> Error {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "{}", &stored());
    prepare(dir.path());
    Checkpoint::open(dir.path()).unwrap_err()
}

#[test]
fn names_are_sorted_and_tensors_are_views() {
    let (_dir, checkpoint) = opened(&stored());
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(checkpoint.bytes(), 12 + 8 + 6);
    let b = checkpoint
        .tensor("b")
        .unwrap()
        .expect_shape(&[2, 3])
        .unwrap();
    assert_eq!(
        (b.element, b.elements(), b.data().unwrap()),
        (Dtype::BF16.into(), 6, &stored()[0].3[..])
    );
    let mut out = [0.0; 6];
    b.read_f32(&mut out).unwrap();
    assert_eq!(out, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    b.release();
    b.rows(1..2).read_f32(&mut out[..3]).unwrap();
    assert_eq!(out[..3], [4.0, 5.0, 6.0]);
    assert!(b.rows(2..2).data().unwrap().is_empty());
}

#[test]
fn shards_are_one_checkpoint() {
    let (_dir, whole) = opened(&stored());
    let dir = tempfile::tempdir().unwrap();
    let stored = stored();
    write_sharded(
        dir.path(),
        r#"{"a": {"x": 2, "y": 1}, "b": 1}"#,
        &[&stored[1..], &stored[..1]],
    );
    let sharded = Checkpoint::open(dir.path()).unwrap();
    assert!(whole.names().eq(sharded.names()));
    for (left, right) in whole.tensors().zip(sharded.tensors()) {
        assert_eq!(
            (left.element, left.shape, left.data().unwrap()),
            (right.element, right.shape, right.data().unwrap())
        );
    }
    assert_eq!(whole.fingerprint().unwrap(), sharded.fingerprint().unwrap());
}

#[test]
fn the_fingerprint_depends_on_everything_it_names() {
    let print = |tensors: &[Stored]| opened(tensors).1.fingerprint().unwrap();
    let original = print(&stored());
    assert_eq!(original.len(), 64);
    assert_eq!(
        original,
        print(&stored().into_iter().rev().collect::<Vec<_>>())
    );
    let changed = |change: fn(&mut Vec<Stored>)| {
        let mut tensors = stored();
        change(&mut tensors);
        print(&tensors)
    };
    for other in [
        changed(|tensors| tensors[0].0 = "bb".to_owned()),
        changed(|tensors| tensors[0].1 = Dtype::F16),
        changed(|tensors| tensors[0].2 = vec![3, 2]),
        changed(|tensors| tensors[0].3[11] ^= 1),
        changed(|tensors| drop(tensors.pop())),
    ] {
        assert_ne!(original, other);
    }
    let (dir, _) = opened(&stored());
    std::fs::write(dir.path().join("config.json"), "{}").unwrap();
    assert_ne!(
        original,
        Checkpoint::open(dir.path()).unwrap().fingerprint().unwrap()
    );
}

#[test]
fn the_fingerprint_is_computed_once() {
    let (_dir, checkpoint) = opened(&stored());
    assert_eq!(checkpoint.fingerprint.get(), None);
    let print = checkpoint.fingerprint().unwrap();
    assert_eq!(checkpoint.fingerprint.get(), Some(&print));
    assert_eq!(checkpoint.fingerprint().unwrap(), print);
}

#[test]
fn what_is_no_checkpoint_is_refused() {
    let missing = open_error(|dir| std::fs::remove_file(dir.join(CONFIG)).unwrap());
    assert!(matches!(
        missing,
        Error::NotACheckpoint {
            missing: "config.json",
            ..
        }
    ));
    let missing = open_error(|dir| std::fs::remove_file(dir.join(SINGLE)).unwrap());
    assert!(matches!(missing, Error::NotACheckpoint { .. }));
    let absent = Checkpoint::open(Path::new("no/such/directory")).unwrap_err();
    assert!(matches!(absent, Error::Io { .. }));
}

#[test]
fn malformed_files_are_named() {
    let config = |text: &str| open_error(|dir| std::fs::write(dir.join(CONFIG), text).unwrap());
    assert!(matches!(config("{"), Error::Json { .. }));
    assert!(matches!(config("[]"), Error::Config { .. }));
    let empty = open_error(|dir| std::fs::write(dir.join(SINGLE), "").unwrap());
    assert!(matches!(empty, Error::Header { .. }));
    let directory = open_error(|dir| {
        std::fs::remove_file(dir.join(SINGLE)).unwrap();
        std::fs::create_dir(dir.join(SINGLE)).unwrap();
    });
    assert!(matches!(directory, Error::Io { .. }));
}

#[test]
fn a_short_shard_names_the_tensor_that_is_cut() {
    let error = open_error(|dir| {
        let bytes = file(&stored());
        std::fs::write(dir.join(SINGLE), &bytes[..bytes.len() - 7]).unwrap();
    });
    match error {
        Error::Truncated {
            path,
            tensor,
            shape,
            dtype,
            expected,
            found,
        } => {
            assert!(path.ends_with(SINGLE));
            assert_eq!(
                (&tensor[..], &shape[..], &dtype[..]),
                ("a", &[2][..], "F32")
            );
            assert_eq!((expected, found), (8, 7));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn absent_tensors_and_other_shapes_are_named() {
    let (_dir, checkpoint) = opened(&stored());
    assert!(!checkpoint.contains("d"));
    assert!(
        matches!(checkpoint.tensor("d"), Err(Error::MissingTensor { tensor, .. }) if tensor == "d")
    );
    let missing = checkpoint.tensor_of_shape("d", &[7]).unwrap_err();
    assert!(missing.to_string().contains("expected [7]"));
    match checkpoint.tensor("b").unwrap().expect_shape(&[3, 2]) {
        Err(Error::Shape {
            expected, found, ..
        }) => {
            assert_eq!((expected, found), (vec![3, 2], vec![2, 3]));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn values_that_cannot_be_computed_with_are_named() {
    let mut tensors = stored();
    tensors[0].3[8..10].copy_from_slice(&[0xc0, 0x7f]);
    tensors.push(("i".to_owned(), Dtype::I64, vec![1], vec![0; 8]));
    let (_dir, checkpoint) = opened(&tensors);
    let b = checkpoint.tensor("b").unwrap();
    let mut out = [0.0; 6];
    let bad = |error: Error| match error {
        Error::NonFinite {
            tensor,
            index,
            value,
            ..
        } => (tensor, index, value.is_nan()),
        other => panic!("{other}"),
    };
    assert_eq!(
        bad(b.read_f32(&mut out).unwrap_err()),
        ("b".to_owned(), 4, true)
    );
    assert_eq!(
        bad(b.rows(1..2).read_f32(&mut out[..3]).unwrap_err()),
        ("b".to_owned(), 4, true)
    );
    b.rows(0..1).read_f32(&mut out[..3]).unwrap();
    assert!(matches!(
        b.read_f32(&mut out[..5]),
        Err(Error::Shape { .. })
    ));
    let integer = checkpoint.tensor("i").unwrap().read_f32(&mut out[..1]);
    assert!(matches!(integer, Err(Error::Dtype { found, .. }) if found == "I64"));
}

fn index_error(index: &str) -> Error {
    open_error(|dir| {
        std::fs::rename(dir.join(SINGLE), dir.join("shard.safetensors")).unwrap();
        std::fs::write(dir.join(INDEX), index).unwrap();
    })
}

#[test]
fn an_index_that_leads_out_of_its_directory_is_refused() {
    for shard in [
        "../shard.safetensors",
        "/shard.safetensors",
        "x/shard.safetensors",
        "..",
    ] {
        let error = index_error(&format!(r#"{{"weight_map": {{"a": "{shard}"}}}}"#));
        assert!(
            matches!(&error, Error::Index { reason, .. } if reason.contains("`a`")),
            "{error}"
        );
    }
}

#[test]
fn an_index_that_does_not_match_its_shards_is_refused() {
    assert!(matches!(index_error("[]"), Error::Json { .. }));
    assert!(matches!(
        index_error(r#"{"weight_map": {}}"#),
        Error::Index { .. }
    ));
    let twice = r#"{"weight_map": {"a": "shard.safetensors", "a": "shard.safetensors"}}"#;
    assert!(index_error(twice)
        .to_string()
        .contains("duplicate name `a`"));
    match index_error(r#"{"weight_map": {"a": "shard.safetensors", "z": "shard.safetensors"}}"#) {
        Error::MissingTensor { path, tensor, .. } => {
            assert!(path.ends_with("shard.safetensors"));
            assert_eq!(tensor, "z");
        }
        other => panic!("{other}"),
    }
    let absent = index_error(r#"{"weight_map": {"a": "other.safetensors"}}"#);
    assert!(matches!(absent, Error::Io { path, .. } if path.ends_with("other.safetensors")));
}

#[cfg(unix)]
#[test]
fn a_snapshot_in_the_hub_cache_is_followed_and_named() {
    let root = tempfile::tempdir().unwrap();
    let (blobs, snapshot) = (
        root.path().join("blobs"),
        root.path().join("models--org--name/snapshots/0123abcd"),
    );
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::create_dir_all(&snapshot).unwrap();
    write(&blobs, "{}", &stored());
    for name in [CONFIG, SINGLE] {
        std::os::unix::fs::symlink(blobs.join(name), snapshot.join(name)).unwrap();
    }
    assert_eq!(Checkpoint::open(&snapshot).unwrap().name(), "org/name");
    assert_eq!(Checkpoint::open(&blobs).unwrap().name(), "blobs");
}

#[test]
fn tokenizers_are_absent_broken_or_read() {
    let (dir, checkpoint) = opened(&stored());
    assert!(matches!(
        checkpoint.tokenizer(),
        Err(Error::NoTokenizer { .. })
    ));
    let path = dir.path().join(TOKENIZER);
    std::fs::write(&path, "{}").unwrap();
    assert!(
        matches!(checkpoint.tokenizer(), Err(Error::Tokenizer { path: named, .. }) if named == path)
    );
    let model = r#"{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"x": 0}, "unk_token": "x"}}"#;
    std::fs::write(&path, model).unwrap();
    assert_eq!(checkpoint.tokenizer().unwrap().get_vocab_size(true), 1);
}

#[test]
fn the_data_of_a_stand_in_is_not_read_as_zeros() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "{}", &stored());
    let shard = Shard::open(dir.path().join(SINGLE), true).unwrap();
    let b = TensorView::new(&shard, 0);
    assert_eq!((b.name, b.bytes(), b.rows(1..2).bytes()), ("b", 12, 6));
    for error in [
        b.data().unwrap_err(),
        b.rows(1..2).data().unwrap_err(),
        b.read_f32(&mut [0.0; 6]).unwrap_err(),
    ] {
        assert!(matches!(error, Error::NotHere { tensor, .. } if tensor == "b"));
    }
}

/// Resident bytes of files this process has mapped, from `/proc/self/statm`.
#[cfg(target_os = "linux")]
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(2).unwrap().parse::<usize>().unwrap() * 4096
}

#[cfg(target_os = "linux")]
#[test]
fn released_pages_are_not_resident() {
    let elements = 32 << 20;
    let big = (
        "big".to_owned(),
        Dtype::U8,
        vec![elements],
        vec![3; elements],
    );
    let (_dir, checkpoint) = opened(&[big]);
    let view = checkpoint.tensor("big").unwrap();
    let sum = || {
        view.data()
            .unwrap()
            .iter()
            .map(|&byte| u64::from(byte))
            .sum::<u64>()
    };
    assert_eq!(sum(), 3 * elements as u64);
    let before = resident();
    view.release();
    let after = resident();
    assert!(
        before.saturating_sub(after) > elements / 2,
        "{before} → {after}"
    );
    assert_eq!(sum(), 3 * elements as u64);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn damaged_checkpoints_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        kept in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "{}", &stored());
        let mut bytes = file(&stored());
        for (index, value) in edits {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        if cut {
            bytes.truncate(kept.index(bytes.len()));
        }
        std::fs::write(dir.path().join(SINGLE), bytes).unwrap();
        if let Ok(checkpoint) = Checkpoint::open(dir.path()) {
            for view in checkpoint.tensors() {
                let _ = view.read_f32(&mut vec![0.0; view.elements()]);
            }
            prop_assert_eq!(checkpoint.fingerprint().unwrap().len(), 64);
        }
    }
}
