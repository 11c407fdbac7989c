//! The verbs one after another, and that their JSON is JSON.

use std::fs;
use std::path::Path;

use router_stats::stats::Stats;

use crate::program::{repository, Workshop};

#[test]
fn from_statistics_to_a_smaller_checkpoint() {
    for (family, before, after) in [("qwen3_moe", 8, 4), ("mixtral", 6, 3)] {
        let workshop = Workshop::new();
        let model = repository(&format!("tests/golden/{family}"));

        let stats = workshop.calibrate(family, &[]).display().to_string();
        let shown = workshop.succeed(&["inspect", &stats, "--json"]).json();
        assert_eq!(shown["kind"], "stats");
        assert_eq!(shown["provenance"]["domains"][0]["tokens"], 1024);
        let table = workshop.succeed(&["inspect", &stats]).stdout;
        assert!(table.contains("stories"), "{table}");

        let plan = workshop.arg("half.plan.json");
        let asked = ["--prune-experts", "0.5", "--json", "-o", &plan];
        let args = [&["plan", &stats, "-m", &model][..], &asked].concat();
        let printed = workshop.succeed(&args).json();
        assert_eq!(printed["after"]["experts_per_layer"][0], after);
        let read: serde_json::Value = serde_json::from_slice(&fs::read(&plan).unwrap()).unwrap();
        assert_eq!(printed, read);
        assert_eq!(workshop.succeed(&["inspect", &plan, "--json"]).json(), read);

        let out = workshop.arg("half");
        let args = ["prune", "-m", &model, "--plan", &plan, "-o", &out];
        let written = workshop.succeed(&[&args[..], &["--no-eval", "--json"]].concat());
        assert_eq!(written.json()["bytes"], printed["after"]["bytes"]);
        for (directory, experts) in [(&model, before), (&out, after)] {
            let shown = workshop.succeed(&["inspect", directory, "--json"]).json();
            assert_eq!(shown["kind"], "checkpoint");
            assert_eq!(shown["family"], family);
            assert_eq!(shown["size"]["experts_per_layer"][0], experts);
        }
        // A second time, only when asked for.
        let again = [&args[..], &["--no-eval"]].concat();
        let refused = workshop.run(&again);
        refused.expect_failure(1, &["already exists", "hint: --force"]);
        workshop.succeed(&[&again[..], &["--force"]].concat());
    }
}

#[test]
fn a_plan_costs_what_its_checkpoint_costs() {
    let workshop = Workshop::new();
    let model = repository("tests/golden/qwen3_moe");
    // A report names plans and checkpoints by their files.
    let plan = workshop.arg("masked.plan.json");
    fs::rename(workshop.plan("qwen3_moe"), &plan).unwrap();
    let out = workshop.arg("sliced");
    workshop.succeed(&[
        "prune",
        "-m",
        &model,
        "--plan",
        &plan,
        "-o",
        &out,
        "--no-eval",
    ]);
    let text = format!("stories={}", repository("models/demo/held-out/stories.txt"));
    let mut args = vec!["eval", "-m", &model, "--plan", &plan, "--checkpoint", &out];
    args.extend([
        "--text",
        &text,
        "--eval-tokens",
        "512",
        "--seq-len",
        "64",
        "--json",
    ]);
    let evaluated = workshop.succeed(&args);
    let report = evaluated.json();
    let perplexity = |index: usize| {
        let variant = &report["variants"][index]["all"]["perplexity"];
        variant["value"].as_f64().unwrap()
    };
    assert!(perplexity(0) > 1.0);
    assert!((perplexity(0) / perplexity(1) - 1.0).abs() < 1e-5);
    let path = workshop.path("report.json");
    fs::write(&path, &evaluated.stdout).unwrap();
    let shown = workshop.succeed(&["inspect", &workshop.arg("report.json"), "--json"]);
    assert_eq!(shown.json(), report);
}

#[test]
fn a_measured_loss_stays_with_the_checkpoint() {
    let workshop = Workshop::new();
    let model = repository("tests/golden/qwen3_moe");
    let plan = workshop.plan("qwen3_moe").display().to_string();
    let text = repository("models/demo/held-out/stories.txt");
    let (out, report) = (
        workshop.arg("half"),
        workshop.path("half/pruning_report.json"),
    );
    let args = ["prune", "-m", &model, "--plan", &plan, "-o", &out, "--json"];
    let measured = ["--text", &text, "--eval-tokens", "512"];
    let written = workshop.succeed(&[&args[..], &measured].concat()).json();
    let stored: serde_json::Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    assert!(stored["variants"][0]["all"]["perplexity_change"].is_object());
    assert_eq!(written["evaluation"], stored);
    // Another checkpoint in its place has its own loss, or none.
    workshop.succeed(&[&args[..], &["--no-eval", "--force"]].concat());
    assert!(!report.exists());
}

#[test]
fn merged_shards_are_one_run() {
    let workshop = Workshop::new();
    let small = ["--batch-tokens", "128"];
    let shard = |part: &str| {
        let path = workshop.calibrate("mixtral", &[&small[..], &["--shard", part]].concat());
        let kept = workshop.path(&part.replace('/', "of"));
        fs::rename(path, &kept).unwrap();
        kept.display().to_string()
    };
    let (first, second) = (shard("1/2"), shard("2/2"));
    let merged = workshop.arg("merged.stats");
    workshop.succeed(&["stats", "merge", &second, &first, "-o", &merged]);
    let merged = Stats::read(Path::new(&merged)).unwrap();
    let whole = Stats::read(workshop.calibrate("mixtral", &small)).unwrap();
    assert_eq!(merged.provenance, whole.provenance);
    for (name, table) in &whole.tables {
        for (a, b) in table.values.iter().zip(&merged.tables[name].values) {
            let close = (a - b).abs() <= 1e-9 * a.abs().max(b.abs());
            assert!(close, "{name}: {a} and {b}");
        }
    }
    let twice = workshop.run(&[
        "stats",
        "merge",
        &first,
        &first,
        "-o",
        &workshop.arg("twice"),
    ]);
    twice.expect_failure(1, &["overlap", "hint:"]);
    assert!(!workshop.path("twice").exists());
}
