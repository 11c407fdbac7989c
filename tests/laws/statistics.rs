//! Law 4, measured: statistics are those of a float64 run in transformers.

use std::collections::BTreeSet;

use candle_core::Tensor;
use prune_tests::{at_most, Golden};
use router_stats::calibration::{calibrate, CalibrateOptions};
use router_stats::observer::{routing, SEQUENCES, TOKENS};
use router_stats::progress::Silent;
use router_stats::stats::{Stats, Table};

/// Sums of whole numbers.
const EXACT: [&str; 4] = [TOKENS, SEQUENCES, routing::COUNT, routing::PAIRS];

#[test]
fn every_table_is_the_reference() {
    for golden in Golden::all() {
        let reference = golden.file("stats");
        // All in one batch, and every sequence in its own.
        for batch_tokens in [8192, 24] {
            let options = CalibrateOptions {
                batch_tokens,
                ..CalibrateOptions::default()
            };
            let stats = calibrate(&golden.model, &golden.sequences(), &options, &Silent).unwrap();
            let names: BTreeSet<_> = stats.tables.keys().collect();
            assert_eq!(names, reference.keys().collect());
            for (name, table) in &stats.tables {
                compare(golden.name, name, table, &reference[name]);
            }
        }
    }
}

fn compare(family: &str, name: &str, table: &Table, reference: &Tensor) {
    let what = format!("{family} {name}");
    assert_eq!(table.shape, reference.dims(), "{what}");
    let reference: Vec<f64> = reference.flatten_all().unwrap().to_vec1().unwrap();
    if EXACT.contains(&name) {
        assert_eq!(table.values, reference, "{what}");
        return;
    }
    // Sums of terms that cancel are as exact as their terms, so an entry is
    // not asked for more than the mean entry is.
    let filled = reference.iter().filter(|value| **value != 0.0).count();
    let mean = reference.iter().map(|value| value.abs()).sum::<f64>() / filled as f64;
    let pairs = table.values.iter().zip(&reference);
    let worst = pairs
        .map(|(a, b)| (a - b).abs() / b.abs().max(mean))
        .fold(0.0, f64::max);
    at_most(1e-4, worst, &what);
}

#[test]
fn provenance_says_what_was_measured() {
    for golden in Golden::all() {
        let Stats { provenance, .. } = crate::cut::measure(&golden.model, &golden.sequences());
        assert_eq!(provenance.family, golden.model.family().model_type());
        assert_eq!(provenance.experts, golden.model.topology().experts());
        assert_eq!(
            provenance.fingerprint,
            golden.model.checkpoint().fingerprint().unwrap()
        );
        let tokens: Vec<_> = provenance.domains.iter().map(|d| d.tokens).collect();
        assert_eq!(tokens, [48, 24]);
    }
}
