use std::collections::BTreeMap;
use std::path::PathBuf;

use proptest::prelude::*;

use super::testing::sample;
use super::*;
use crate::observer::{block, expert, routing, TOKENS};

/// Written by version 1 of the format from [`sample`].
const GOLDEN: &[u8] = include_bytes!("testdata/v1.safetensors");

fn in_file(bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("stats.safetensors");
    std::fs::write(&path, bytes).unwrap();
    (dir, path)
}

/// Why a file that was written from changed statistics, metadata included, is
/// refused. `write` itself refuses most, so the bytes are put together here.
fn refusal(stats: &Stats, change: impl FnOnce(&mut BTreeMap<String, String>)) -> String {
    let header = crate::checkpoint::header::parse(GOLDEN).unwrap();
    let mut metadata = header.metadata;
    metadata.insert(
        "provenance".to_owned(),
        serde_json::to_string(&stats.provenance).unwrap(),
    );
    change(&mut metadata);
    let entries = stats
        .tables
        .iter()
        .map(|(n, t)| (&n[..], safetensors::Dtype::F64, &t.shape[..]));
    let mut bytes = crate::checkpoint::header::encode(&metadata, entries);
    stats
        .tables
        .values()
        .flat_map(|t| &t.values)
        .for_each(|v| bytes.extend(v.to_le_bytes()));
    let (_dir, path) = in_file(&bytes);
    match Stats::read(&path).unwrap_err() {
        Error::StatsFile { reason, .. } => reason,
        other => panic!("{other}"),
    }
}

fn changed(change: impl FnOnce(&mut Stats)) -> Stats {
    let mut stats = sample();
    change(&mut stats);
    stats
}

#[test]
fn version_1_is_read_and_written_unchanged() {
    let (dir, path) = in_file(GOLDEN);
    let read = Stats::read(&path).unwrap();
    assert_eq!(read, sample());
    let again = dir.path().join("again.safetensors");
    read.write(&again).unwrap();
    assert_eq!(std::fs::read(again).unwrap(), GOLDEN);
}

#[test]
fn the_hash_is_that_of_the_file() {
    use sha2::Digest;
    assert_eq!(
        sample().hash(),
        crate::checkpoint::hex(&sha2::Sha256::digest(GOLDEN))
    );
    let other = changed(|stats| stats.provenance.seed += 1);
    assert_ne!(other.hash(), sample().hash());
}

#[test]
fn other_formats_and_versions_are_named() {
    let format = refusal(&sample(), |metadata| drop(metadata.remove("format")));
    assert!(format.contains("expected format `router-stats`, found `none`"));
    let version = br#""version":"1""#;
    let start = GOLDEN
        .windows(version.len())
        .position(|bytes| bytes == version)
        .unwrap();
    let mut newer = GOLDEN.to_vec();
    newer[start + version.len() - 2] = b'2';
    let (_dir, path) = in_file(&newer);
    match Stats::read(&path) {
        Err(Error::StatsVersion {
            found, supported, ..
        }) => {
            assert_eq!((&found[..], supported), ("2", 1));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn damaged_files_are_named() {
    for (bytes, expected) in [
        (&b"{}"[..], "expected at least 8 bytes"),
        (&GOLDEN[..100], "length of"),
        (&GOLDEN[..GOLDEN.len() - 3], "is cut short"),
    ] {
        let (_dir, path) = in_file(bytes);
        match Stats::read(&path) {
            Err(Error::StatsFile { reason, .. }) => assert!(reason.contains(expected), "{reason}"),
            other => panic!("{other:?}"),
        }
    }
    assert!(matches!(Stats::read("no/such/file"), Err(Error::Io { .. })));
}

#[test]
fn metadata_must_describe_the_tables() {
    let provenance = refusal(&sample(), |m| {
        m.insert("provenance".to_owned(), "{}".to_owned());
    });
    assert!(provenance.contains("provenance: missing field"));
    let merge = refusal(&sample(), |m| drop(m.remove("merge.tokens")));
    assert!(merge.contains("`merge.tokens`: expected `sum` or `max`, found `none`"));
    let shape = refusal(&changed(|s| s.provenance.experts[0] = 4), |_| {});
    assert!(shape.contains("expected shape [2, 3, 4"), "{shape}");
    let unknown = changed(|s| {
        let table = Table::zeros(vec![3], Merge::Sum);
        s.tables.insert("new".to_owned(), table);
    });
    let unknown = refusal(&unknown, |m| {
        m.insert("merge.new".to_owned(), "sum".to_owned());
    });
    assert!(unknown.contains("table `new`: expected shape [2]"));
    let shards = refusal(&changed(|s| s.provenance.shards = vec![[2, 2]]), |_| {});
    assert!(shards.contains("shards"));
    let twice = refusal(
        &changed(|s| s.provenance.domains[1].name = "code".to_owned()),
        |_| {},
    );
    assert!(twice.contains("domain `code` is there twice"));
}

#[test]
fn values_that_no_run_produces_are_refused_on_both_sides() {
    for (table, value, expected) in [
        (routing::COUNT, -1.0, "expected counts, found -1 at entry 4"),
        (routing::COUNT, f64::NAN, "expected counts, found NaN"),
        (
            expert::NORM,
            f64::INFINITY,
            "expected finite numbers, found inf",
        ),
        (block::COS, f64::NAN, "expected finite numbers, found NaN"),
    ] {
        let stats = changed(|stats| stats.tables.get_mut(table).unwrap().values[4] = value);
        assert!(refusal(&stats, |_| {}).contains(expected));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stats.safetensors");
        assert!(matches!(stats.write(&path), Err(Error::StatsFile { .. })));
        assert!(!path.exists());
    }
    let negative = changed(|stats| stats.tables.get_mut(block::COS).unwrap().values[4] = -1.0);
    let (_dir, path) = in_file(&[]);
    negative.write(&path).unwrap();
    assert_eq!(Stats::read(&path).unwrap(), negative);
}

#[test]
fn statistics_with_other_tables_do_not_merge() {
    let shard = |index| changed(|stats| stats.provenance.shards = vec![[index, 2]]);
    let mut other = shard(1);
    other.tables.remove(TOKENS);
    match shard(0).merge(other) {
        Err(Error::StatsMismatch { what, .. }) => assert_eq!(what, "tables"),
        other => panic!("{other:?}"),
    }
    let twice = shard(0).merge(shard(0)).unwrap_err();
    assert!(twice.to_string().contains("must not overlap"));
}

const SHARDS: usize = 5;

/// Shard `index` with values drawn by `draw`.
fn shard(index: usize, draw: &[f64]) -> Stats {
    changed(|stats| {
        stats.provenance.shards = vec![[index, SHARDS]];
        let values = stats
            .tables
            .values_mut()
            .flat_map(|table| &mut table.values);
        values
            .zip(draw.iter().cycle().skip(index * 7))
            .for_each(|(value, drawn)| *value = *drawn);
    })
}

fn close(left: &Stats, right: &Stats) -> bool {
    let values = |stats: &Stats| -> Vec<f64> {
        stats
            .tables
            .values()
            .flat_map(|table| table.values.clone())
            .collect()
    };
    left.provenance == right.provenance
        && values(left)
            .iter()
            .zip(values(right))
            .all(|(a, b)| (a - b).abs() <= 1e-9 * a.abs().max(b.abs()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn shards_merge_to_one_run_in_any_order_and_grouping(
        draw in prop::collection::vec(1e-3..1e6f64, 31..97),
        order in Just((0..SHARDS).collect::<Vec<_>>()).prop_shuffle(),
        groups in prop::collection::vec(any::<prop::sample::Index>(), SHARDS),
    ) {
        let in_turn = (1..SHARDS)
            .fold(shard(0, &draw), |merged, index| merged.merge(shard(index, &draw)).unwrap());
        prop_assert_eq!(&in_turn.provenance.shards, &vec![[0, 1]]);
        prop_assert_eq!(in_turn.provenance.domains[0].tokens, 64 * SHARDS as u64);
        let mut parts: Vec<Stats> = order.iter().map(|&index| shard(index, &draw)).collect();
        for group in groups.iter().take(SHARDS - 1) {
            let right = parts.swap_remove(group.index(parts.len()));
            let left = parts.swap_remove(group.index(parts.len()));
            parts.push(left.merge(right).unwrap());
        }
        prop_assert!(close(&in_turn, &parts[0]));
    }

    #[test]
    fn what_is_written_is_read_back(draw in prop::collection::vec(0.0..1e300f64, 31..97)) {
        let stats = shard(3, &draw);
        let (_dir, path) = in_file(&[]);
        stats.write(&path).unwrap();
        prop_assert_eq!(Stats::read(&path).unwrap(), stats);
    }

    #[test]
    fn damaged_statistics_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5),
        kept in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let mut bytes = GOLDEN.to_vec();
        for (index, value) in edits {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        if cut {
            bytes.truncate(kept.index(bytes.len()));
        }
        let (_dir, path) = in_file(&bytes);
        if let Ok(stats) = Stats::read(&path) {
            let weights = stats.weights();
            for layer in 0..stats.provenance.experts.len() {
                let _ = stats.layer(layer, &weights);
                let _ = stats.output_deviation(layer, &weights);
            }
            let _ = (stats.block_influence(&weights), stats.spans(&weights));
        }
    }
}
