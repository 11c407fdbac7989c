//! Law 5: statistics of shards, merged in any order, are those of one run
//! (relative 1e-9).

use prune_tests::{at_most, ragged, Golden};
use router_stats::calibration::{calibrate, CalibrateOptions, Sequences};
use router_stats::forward::Model;
use router_stats::progress::Silent;
use router_stats::stats::Stats;

const SHARDS: usize = 3;

const ORDERS: [[usize; SHARDS]; 6] = [
    [0, 1, 2],
    [0, 2, 1],
    [1, 0, 2],
    [1, 2, 0],
    [2, 0, 1],
    [2, 1, 0],
];

fn shard(model: &Model, sequences: &Sequences, shard: [usize; 2]) -> Stats {
    let options = CalibrateOptions {
        batch_tokens: 16,
        shard,
        ..CalibrateOptions::default()
    };
    calibrate(model, sequences, &options, &Silent).unwrap()
}

fn sequences() -> Sequences {
    let sequences = ragged(&[2, 9, 5, 13, 7, 3, 11, 4, 16], 259, 2);
    assert!(sequences.batches(16).len() > SHARDS);
    sequences
}

/// The largest difference relative to the entry.
fn relative(left: &Stats, right: &Stats) -> f64 {
    assert!(left.tables.keys().eq(right.tables.keys()));
    let mut worst = 0f64;
    for (name, table) in &left.tables {
        let other = &right.tables[name];
        assert_eq!((&table.shape, table.merge), (&other.shape, other.merge));
        for (&a, &b) in table.values.iter().zip(&other.values) {
            assert!(a.is_finite() && b.is_finite(), "{name}");
            if a != b {
                worst = worst.max((a - b).abs() / a.abs().max(b.abs()));
            }
        }
    }
    worst
}

#[test]
fn shards_merge_in_every_order() {
    for golden in Golden::all() {
        let sequences = sequences();
        let whole = shard(&golden.model, &sequences, [0, 1]);
        let shards: Vec<_> = (0..SHARDS)
            .map(|index| shard(&golden.model, &sequences, [index, SHARDS]))
            .collect();
        for order in ORDERS {
            let [a, b, c] = order.map(|index| shards[index].clone());
            let left = a
                .clone()
                .merge(b.clone())
                .unwrap()
                .merge(c.clone())
                .unwrap();
            let right = a.merge(b.merge(c).unwrap()).unwrap();
            for merged in [left, right] {
                assert_eq!(merged.provenance, whole.provenance);
                let what = format!("{} shards {order:?}", golden.name);
                at_most(1e-9, relative(&merged, &whole), &what);
            }
        }
    }
}

#[test]
fn shards_merge_from_files() {
    let directory = tempfile::tempdir().unwrap();
    for golden in Golden::all() {
        let sequences = sequences();
        let whole = shard(&golden.model, &sequences, [0, 1]);
        let mut merged: Option<Stats> = None;
        for index in 0..SHARDS {
            let path = directory.path().join(format!("{index}.stats"));
            let written = shard(&golden.model, &sequences, [index, SHARDS]);
            written.write(&path).unwrap();
            let read = Stats::read(&path).unwrap();
            assert_eq!(read, written);
            merged = Some(match merged {
                Some(merged) => merged.merge(read).unwrap(),
                None => read,
            });
        }
        let merged = merged.unwrap();
        assert_eq!(merged.provenance, whole.provenance);
        let what = format!("{} shards from files", golden.name);
        at_most(1e-9, relative(&merged, &whole), &what);
    }
}

#[test]
fn a_shard_counts_once() {
    for golden in Golden::all() {
        let sequences = sequences();
        let first = shard(&golden.model, &sequences, [0, SHARDS]);
        assert!(first.clone().merge(first.clone()).is_err());
        let whole = shard(&golden.model, &sequences, [0, 1]);
        assert!(whole.merge(first).is_err());
    }
}
