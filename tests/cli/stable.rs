//! `calibrate --until-stable` and `stats stability`: as much text as the
//! decision needs, and what it still depends on.

use std::fs;
use std::path::Path;

use router_stats::stats::Stats;

use crate::program::{repository, Workshop};

fn stories() -> String {
    format!("stories={}", repository("models/demo/held-out/stories.txt"))
}

fn tokens(stats: &Stats) -> u64 {
    stats.provenance.domains.iter().map(|it| it.tokens).sum()
}

/// The largest difference of a table, summed and relative to its sum.
fn relative(left: &Stats, right: &Stats) -> f64 {
    assert!(left.tables.keys().eq(right.tables.keys()));
    let tables = left.tables.values().zip(right.tables.values());
    let differences = tables.map(|(left, right)| {
        assert_eq!(left.shape, right.shape);
        let sum = left.values.iter().map(|value| value.abs()).sum::<f64>();
        let entries = left.values.iter().zip(&right.values);
        entries.map(|(a, b)| (a - b).abs()).sum::<f64>() / sum
    });
    differences.fold(0.0, f64::max)
}

#[test]
fn it_stops_where_the_decision_is_stable() {
    let workshop = Workshop::new();
    let (text, settled) = (stories(), workshop.arg("settled.stats"));
    let args = ["calibrate", "--calibration", &text, "--held-out", "0"];
    let until = ["--until-stable", "--prune-experts", "0.25"];
    let until = [&until[..], &["--stability", "0.7", "-o", &settled]].concat();
    let run = workshop.succeed(&[&args[..], &until].concat());
    assert!(
        run.stderr.contains("Round 1     16,384 tokens: Jaccard 0."),
        "{}",
        run.stderr
    );
    assert!(!run.stderr.contains("Round 2"), "{}", run.stderr);
    assert!(!run.stderr.contains("hint:"), "{}", run.stderr);

    // Of as many tokens as it took, the statistics are those of one run, but
    // for the rounding of batches that are cut elsewhere.
    let once = workshop.arg("once.stats");
    let all = ["--calibration-tokens", "16384", "-o", &once];
    workshop.succeed(&[&args[..], &all].concat());
    let [settled, once] = [&settled, &once].map(|path| Stats::read(path).unwrap());
    assert_eq!(settled.provenance, once.provenance);
    let difference = relative(&settled, &once);
    assert!(difference < 1e-4, "{difference}");
    for left in ["settled.stats.chunks", "settled.stats.partial"] {
        assert!(!workshop.path(left).exists(), "{left}");
    }
}

/// Never stable, and small enough to run to its end.
fn restless<'a>(model: &'a str, text: &'a str, output: &'a str) -> Vec<&'a str> {
    let mut args = vec!["calibrate", "-m", model, "--calibration", text];
    args.extend(["--held-out", "0", "--seq-len", "64", "-o", output]);
    args.extend(["--calibration-tokens", "20000", "--until-stable"]);
    args.extend(["--keep-experts", "4", "--stability", "1"]);
    args
}

#[test]
fn it_stops_at_the_limit_and_says_so() {
    let workshop = Workshop::new();
    let (model, text) = (repository("tests/golden/qwen3_moe"), stories());
    let output = workshop.arg("out.stats");
    let run = workshop.succeed(&restless(&model, &text, &output));
    for said in [
        "Round 1     16,384 tokens: Jaccard 0.",
        "Round 2     20,000 tokens: Jaccard 0.",
        "hint: --calibration-tokens was reached before --stability 1: Jaccard 0.",
    ] {
        assert!(run.stderr.contains(said), "no `{said}`\n{}", run.stderr);
    }
    assert_eq!(tokens(&Stats::read(&output).unwrap()), 20_000);
    let plan = ["plan", &output, "-m", &model, "--keep-experts", "4"];
    workshop.succeed(&plan);
}

fn chunks(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, |entries| {
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        names.filter(|name| name.ends_with(".stats")).count()
    })
}

#[test]
fn killed_it_continues_after_the_last_finished_chunk() {
    let workshop = Workshop::new();
    let (model, text) = (repository("tests/golden/qwen3_moe"), stories());
    let whole = workshop.arg("whole.stats");
    workshop.succeed(&restless(&model, &text, &whole));

    let (output, folder) = (
        workshop.path("killed.stats"),
        workshop.path("killed.stats.chunks"),
    );
    let output_arg = workshop.arg("killed.stats");
    let args = restless(&model, &text, &output_arg);
    let run = {
        let mut run = workshop.start(&args);
        assert!(run.watch(|| chunks(&folder) >= 5));
        run
    };
    run.kill();
    assert!(!output.exists(), "it ended before the kill");
    let finished = chunks(&folder);
    // One that is not whole is run again.
    let first = fs::read_dir(&folder).unwrap().next().unwrap().unwrap();
    let bytes = fs::read(first.path()).unwrap();
    fs::write(first.path(), &bytes[..bytes.len() / 2]).unwrap();

    let written = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).unwrap();
    let others = || -> Vec<_> {
        let entries = fs::read_dir(&folder).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let mut others: Vec<_> = paths
            .filter(|path| *path != first.path())
            .filter(|path| path.extension().is_some_and(|suffix| suffix == "stats"))
            .map(|path| (written(&path), path))
            .collect();
        others.sort();
        others
    };
    let before = others();
    let mut run = workshop.start(&args);
    assert!(run.watch(|| chunks(&folder) > finished));
    assert_eq!(others()[..before.len()], before[..]);
    let (code, said) = run.finish();
    assert_eq!(code, Some(0), "{said}");
    assert!(fs::read(output).unwrap() == fs::read(whole).unwrap());
    assert!(!folder.exists());
    assert!(!workshop.path("killed.stats.partial").exists());
}

#[test]
fn parts_of_a_calibration_tell_how_stable_it_is() {
    let workshop = Workshop::new();
    let (model, text) = (repository("tests/golden/qwen3_moe"), stories());
    let shards: Vec<String> = (1..=4)
        .map(|index| {
            let (output, shard) = (
                workshop.arg(&format!("{index}.stats")),
                format!("{index}/4"),
            );
            let mut args = vec!["calibrate", "-m", &model, "--calibration", &text];
            args.extend(["--calibration-tokens", "2048", "--batch-tokens", "64"]);
            args.extend(["--seq-len", "64", "--shard", &shard, "-o", &output]);
            workshop.succeed(&args);
            output
        })
        .collect();
    let mut args = vec!["stats", "stability", "-m", &model, "--prune-experts", "0.5"];
    args.extend(shards.iter().map(String::as_str));
    let shown = workshop.succeed(&args);
    assert!(
        shown.stdout.contains("2,048 tokens in 4 parts"),
        "{}",
        shown.stdout
    );
    assert!(
        shown.stderr.contains("hint: 4 parts are few"),
        "{}",
        shown.stderr
    );

    let found = workshop.succeed(&[&args[..], &["--json"]].concat()).json();
    assert_eq!((&found["parts"], &found["draws"]), (&4.into(), &200.into()));
    let index = found["jaccard"].as_f64().unwrap();
    assert!(index > 0.3 && index <= 1.0, "{index}");
    let layers = found["layers"].as_array().unwrap();
    assert!(layers.iter().all(|layer| layer["kept"] == 4), "{layers:?}");
    let undecided = layers
        .iter()
        .map(|layer| layer["undecided"].as_u64().unwrap());
    assert_eq!(found["undecided"].as_u64().unwrap(), undecided.sum::<u64>());

    // One part twice would look more stable than it is.
    let mut twice = args[..6].to_vec();
    twice.extend([shards[0].as_str(), &shards[0]]);
    workshop
        .run(&twice)
        .expect_failure(1, &["must not overlap", "hint:"]);
}
