//! The objective and its journal, on a golden checkpoint.

mod laws;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use candle_core::Device;
use router_stats::calibration::{Corpus, PackOptions, Source};
use router_stats::family::Keep;
use router_stats::progress::{Progress, Silent, Update};

use super::*;
use crate::cache::Cache;
use crate::pipeline::{read, sequences, Model};
use crate::Error;

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The golden Mixtral: three layers of six experts, top 2.
fn model() -> Model {
    let dir = repository("tests/golden/mixtral");
    Model::open(&dir, "model".to_owned(), &Device::Cpu).unwrap()
}

/// Two domains.
fn corpus(model: &Model) -> Corpus {
    let source = |domain: &str| Source {
        domain: domain.to_owned(),
        path: repository("models/demo/calibration").join(format!("{domain}.txt")),
        weight: 1.0,
    };
    read(&[source("stories"), source("python")], model).unwrap()
}

fn text(model: &Model) -> SearchText<'_> {
    let options = PackOptions {
        seq_len: 32,
        tokens: 128,
        seed: 0,
    };
    let sequences = sequences(&corpus(model), model, &options).unwrap();
    SearchText::new(&model.forward, sequences, &model.companions)
}

fn objective<'a>(
    text: &'a SearchText<'a>,
    cache: &Cache,
    limit: Option<Duration>,
) -> Objective<'a> {
    let journal = Journal::open(cache, &text.header().unwrap(), &Silent).unwrap();
    Objective::new(text, journal, limit, &Silent)
}

/// What is left without one expert of the first layer.
fn without(model: &Model, expert: usize) -> Keep {
    let mut keep = Keep::all(model.topology());
    keep.experts[0].retain(|&other| other != expert);
    keep
}

fn file(cache: &Cache, text: &SearchText<'_>) -> PathBuf {
    let header = text.header().unwrap();
    let journal = Journal::open(cache, &header, &Silent).unwrap();
    journal.path().to_path_buf()
}

#[test]
fn the_model_itself_is_perfect_and_a_part_of_it_is_not() {
    let (place, model) = (tempfile::tempdir().unwrap(), model());
    let (text, cache) = (text(&model), Cache::new(place.path()));
    let mut objective = objective(&text, &cache, None);
    let all = objective.measure(&Keep::all(model.topology())).unwrap();
    assert!((all.overlap - 1.0).abs() < 1e-5, "{all:?}");
    let part = objective.measure(&without(&model, 0)).unwrap();
    assert!(part.overlap < all.overlap && part.overlap > 0.0, "{part:?}");
    assert_ne!(part.nll, all.nll);
    // The same mean as an evaluation of the same text reports.
    let variant = prune_eval::Variant {
        name: "part".to_owned(),
        model: &model.forward,
        keep: Some(without(&model, 0)),
    };
    let (reference, options) = (&text.reference, &text.options);
    let report =
        prune_eval::evaluate(reference, &[variant], &text.sequences, options, &Silent).unwrap();
    for (metric, found) in [("overlap", part.overlap), ("nll", part.nll)] {
        let expected = report.variants[0].estimate(metric, None).unwrap().value;
        assert!(
            (expected - found).abs() < 1e-9,
            "{metric}: {expected} {found}"
        );
    }
}

#[test]
fn what_was_measured_is_read_and_not_run() {
    let (place, model) = (tempfile::tempdir().unwrap(), model());
    let (text, cache) = (text(&model), Cache::new(place.path()));
    let kept = [without(&model, 0), without(&model, 1)];
    let mut first = objective(&text, &cache, None);
    let found = kept.each_ref().map(|keep| first.measure(keep).unwrap());
    assert_eq!(first.measure(&kept[0]).unwrap(), found[0]);
    assert_eq!((first.measured(), first.asked()), (2, 2));
    drop(first);
    let mut again = objective(&text, &cache, None);
    for (keep, expected) in kept.iter().zip(&found) {
        assert_eq!(again.measure(keep).unwrap(), *expected);
    }
    assert_eq!((again.measured(), again.asked()), (0, 2));
}

#[test]
fn time_counts_as_it_was_spent() {
    let (place, model) = (tempfile::tempdir().unwrap(), model());
    let (text, cache) = (text(&model), Cache::new(place.path()));
    let limit = Some(Duration::from_nanos(1));
    for passes in [1, 0] {
        let mut objective = objective(&text, &cache, limit);
        assert!(!objective.expired());
        objective.measure(&without(&model, 0)).unwrap();
        assert!(objective.expired());
        assert_eq!(objective.measured(), passes);
    }
    let mut longer = objective(&text, &cache, Some(Duration::from_secs(3600)));
    longer.measure(&without(&model, 0)).unwrap();
    assert!(!longer.expired());
}

#[test]
fn half_a_line_is_cut_off_wherever_it_was_killed() {
    let (place, model) = (tempfile::tempdir().unwrap(), model());
    let (text, cache) = (text(&model), Cache::new(place.path()));
    let mut whole = objective(&text, &cache, None);
    let expected = whole.measure(&without(&model, 0)).unwrap();
    let cut_off = whole.measure(&without(&model, 1)).unwrap();
    drop(whole);
    let path = file(&cache, &text);
    let bytes = fs::read(&path).unwrap();
    let ends: Vec<usize> = (0..bytes.len()).filter(|&at| bytes[at] == b'\n').collect();
    for cut in [ends[1] + 1, ends[1] + 2, bytes.len() - 1] {
        fs::write(&path, &bytes[..cut]).unwrap();
        let mut objective = objective(&text, &cache, None);
        assert_eq!(objective.measure(&without(&model, 0)).unwrap(), expected);
        assert_eq!(objective.measured(), 0);
        assert_eq!(objective.measure(&without(&model, 1)).unwrap(), cut_off);
        assert_eq!(objective.measured(), 1);
        drop(objective);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 3);
    }
}

#[test]
fn what_is_no_journal_of_this_search_is_refused_and_left_alone() {
    let (place, model) = (tempfile::tempdir().unwrap(), model());
    let (text, cache) = (text(&model), Cache::new(place.path()));
    let mut whole = objective(&text, &cache, None);
    whole.measure(&without(&model, 0)).unwrap();
    drop(whole);
    let (path, header) = (file(&cache, &text), text.header().unwrap());
    let content = fs::read_to_string(&path).unwrap();
    let other = content.replacen(&header.text, "another", 1);
    for (content, line) in [
        ("{}\n", 1),
        ("no header", 1),
        ("", 1),
        (&other, 1),
        (&format!("{content}{{}}\n"), 3),
    ] {
        fs::write(&path, content).unwrap();
        let error = Journal::open(&cache, &header, &Silent).unwrap_err();
        assert!(
            matches!(error, Error::Journal { line: at, .. } if at == line),
            "{error}"
        );
        assert!(error.hint().unwrap().contains("move"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), content);
    }
}

#[test]
fn other_weights_have_another_journal() {
    let model = model();
    let mut text = text(&model);
    let before = text.header().unwrap();
    text.sequences.weights[0] = 3.0;
    assert_ne!(text.header().unwrap(), before);
}

#[test]
fn an_interruption_keeps_what_is_finished() {
    struct Stop;
    impl Progress for Stop {
        fn update(&self, _: &Update<'_>) {}
        fn cancelled(&self) -> bool {
            true
        }
    }
    let (place, model) = (tempfile::tempdir().unwrap(), model());
    let (text, cache) = (text(&model), Cache::new(place.path()));
    let mut first = objective(&text, &cache, None);
    first.measure(&without(&model, 0)).unwrap();
    drop(first);
    let journal = Journal::open(&cache, &text.header().unwrap(), &Silent).unwrap();
    let mut stopped = Objective::new(&text, journal, None, &Stop);
    stopped.measure(&without(&model, 0)).unwrap();
    let error = stopped.measure(&without(&model, 1)).unwrap_err();
    assert!(error.to_string().contains("interrupted"), "{error}");
    drop(stopped);
    assert_eq!(
        fs::read_to_string(file(&cache, &text))
            .unwrap()
            .lines()
            .count(),
        2
    );
}
