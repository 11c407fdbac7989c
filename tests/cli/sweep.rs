//! `eval sweep`: a file of results that grows, goes on after any end, and is
//! read again without a model.

use std::fs;
use std::path::Path;

use crate::program::{repository, Workshop};

/// A sweep of the demo model on a little text.
fn sweep<'a>(text: &'a str, output: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["eval", "sweep", "--calibration", text, "--text", text];
    args.extend(["--calibration-tokens", "2048", "--eval-tokens", "2048"]);
    args.extend(["--seq-len", "128", "--batch-tokens", "512", "-o", output]);
    args.extend(more);
    args
}

fn stories() -> String {
    format!("stories={}", repository("models/demo/held-out/stories.txt"))
}

/// Whole lines of a file; none if it is absent.
fn lines(path: &Path) -> usize {
    let text = fs::read(path).unwrap_or_default();
    text.iter().filter(|&&byte| byte == b'\n').count()
}

#[test]
fn a_killed_sweep_continues_and_ends_with_the_same_bytes() {
    let workshop = Workshop::new();
    let text = stories();
    let asked = ["--criterion", "reap,ean,frequency", "--seeds", "1"];
    let asked = [&asked[..], &["--prune-experts", "0.25,0.5"]].concat();
    let whole = workshop.arg("whole.jsonl");
    workshop.succeed(&sweep(&text, &whole, &asked));
    // A header and six points.
    assert_eq!(lines(&workshop.path("whole.jsonl")), 7);

    let (path, output) = (workshop.path("killed.jsonl"), workshop.arg("killed.jsonl"));
    let args = sweep(&text, &output, &asked);
    let mut kills = 0;
    for wanted in [1, 3, 5] {
        let mut run = workshop.start(&args);
        run.watch(|| lines(&path) >= wanted);
        run.kill();
        kills += usize::from(lines(&path) < 7);
    }
    assert!(kills > 0, "no kill came in the middle");
    // As if the last kill had come while a line was written.
    let mut torn = fs::read(&path).unwrap();
    torn.extend_from_slice(b"{\"point\":{\"calib");
    fs::write(&path, torn).unwrap();
    workshop.succeed(&args);
    assert!(fs::read(path).unwrap() == fs::read(workshop.path("whole.jsonl")).unwrap());
}

#[test]
fn an_interrupted_sweep_says_how_to_go_on() {
    let workshop = Workshop::new();
    let text = stories();
    let (path, output) = (workshop.path("out.jsonl"), workshop.arg("out.jsonl"));
    let args = sweep(&text, &output, &["--cliff", "--seeds", "1"]);
    let mut run = workshop.start(&args);
    assert!(run.watch(|| lines(&path) >= 2));
    run.interrupt();
    let (code, said) = run.finish();
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("hint: finished points are kept"), "{said}");
    let kept = lines(&path);
    let finished = workshop.succeed(&args);
    let resumed = format!("{} of 14 points are in", kept - 1);
    assert!(finished.stderr.contains(&resumed), "{}", finished.stderr);
    assert!(finished.stdout.contains("where quality falls off"));
}

#[test]
fn a_file_is_shown_again_extended_and_kept_from_other_settings() {
    let workshop = Workshop::new();
    let text = stories();
    let output = workshop.arg("grid.jsonl");
    let half = ["--prune-experts", "0.5", "--seeds", "2"];
    let first = workshop.succeed(&sweep(&text, &output, &half));
    assert!(first.stdout.contains("change of perplexity, by fraction"));
    let shown = workshop.succeed(&["eval", "sweep", "show", &output]);
    assert_eq!(shown.stdout, first.stdout);
    // Nothing is measured twice.
    let again = workshop.succeed(&sweep(&text, &output, &half));
    assert_eq!(again.stdout, first.stdout);
    assert!(!again.stderr.contains("Sweeping"), "{}", again.stderr);

    let more = ["--prune-experts", "0,0.5", "--drop-layers", "0,1"];
    let more = [
        &more[..],
        &["--quantize", "none,q8_0", "--seeds", "2", "--json"],
    ]
    .concat();
    let summary = workshop.succeed(&sweep(&text, &output, &more)).json();
    // Weights rounded alone; half of the experts, a layer, and both, as they
    // are and rounded.
    let cells = summary["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 1 + 3 * 2, "{summary:#}");
    let bytes = |cell: &serde_json::Value| cell["size"]["bytes"].as_u64().unwrap();
    assert!(cells.iter().all(|cell| bytes(cell) < bytes(&summary)));
    assert_eq!(cells[0]["seeds"], 2);
    assert!(cells[0]["all"]["perplexity_change"]["low"].is_number());

    let other = [&half[..], &["--balance-domains"]].concat();
    let refused = workshop.run(&sweep(&text, &output, &other));
    refused.expect_failure(
        1,
        &["balance domains: expected true, found false", "hint: "],
    );
    let unknown = [&half[..], &["--calibrate-on", "law"]].concat();
    let refused = workshop.run(&sweep(&text, &output, &unknown));
    refused.expect_failure(2, &["unknown domain `law`; known: stories"]);
    let nothing = workshop.run(&["eval", "sweep", "-o", &output]);
    nothing.expect_failure(2, &["nothing that changes the model"]);
    let plan = workshop.arg("no.jsonl");
    fs::write(&plan, "{\"version\": 2}\n").unwrap();
    let foreign = workshop.run(&sweep(&text, &plan, &half));
    foreign.expect_failure(
        1,
        &["line 1: expected `sweep`", "nothing was changed in it"],
    );
}
