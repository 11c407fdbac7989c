//! Law 6: kill −9 at any moment leaves the old output or the new one, never
//! half, and a rerun continues; Ctrl-C is told apart.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::program::{repository, Workshop};

/// Kills of one prune; each comes a little later than the one before.
const KILLS: usize = 8;

fn calibration<'a>(output: &'a str, text: &'a str) -> Vec<&'a str> {
    let mut args = vec!["calibrate", "--calibration", text, "-o", output];
    // Several batches per layer, so that a kill may come between two.
    args.extend([
        "--calibration-tokens",
        "8192",
        "--seq-len",
        "256",
        "--batch-tokens",
        "512",
    ]);
    args
}

/// The last layer that a calibration finished, counted from 1.
fn depth(state: &Path) -> Option<u64> {
    let mark: Value = serde_json::from_slice(&fs::read(state.join("run.json")).ok()?).ok()?;
    mark["depth"].as_u64()
}

#[test]
fn a_killed_calibration_continues_and_ends_with_the_same_bytes() {
    let workshop = Workshop::new();
    let text = format!("stories={}", repository("models/demo/held-out/stories.txt"));
    let whole = workshop.arg("whole.stats");
    workshop.succeed(&calibration(&whole, &text));

    let output = workshop.path("killed.stats");
    let output_arg = workshop.arg("killed.stats");
    let state = workshop.path("killed.stats.partial");
    let args = calibration(&output_arg, &text);
    let (mut finished, mut kills) = (0, 0);
    for wanted in [0, 1, 3, 5] {
        let mut run = workshop.start(&args);
        let first = run.wait_for("Calibrating");
        let expected = format!("layer {}/8", finished + 1);
        assert!(first.contains(&expected), "{first} is not {expected}");
        run.watch(|| depth(&state) >= Some(wanted));
        run.kill();
        if output.exists() {
            // A busy machine may let it end before the kill.
            assert!(fs::read(&output).unwrap() == fs::read(&whole).unwrap());
            fs::remove_file(&output).unwrap();
        } else {
            kills += 1;
        }
        finished = depth(&state).unwrap_or(0);
    }
    assert!(kills > 1, "no kill came in the middle");
    let mut run = workshop.start(&args);
    let first = run.wait_for("Calibrating");
    assert!(
        first.contains(&format!("layer {}/8", finished + 1)),
        "{first}"
    );
    let (code, said) = run.finish();
    assert_eq!(code, Some(0), "{said}");
    assert!(!state.exists());
    assert!(fs::read(output).unwrap() == fs::read(whole).unwrap());
}

#[test]
fn an_interrupted_calibration_says_how_to_go_on() {
    let workshop = Workshop::new();
    let text = format!("stories={}", repository("models/demo/held-out/stories.txt"));
    let output = workshop.arg("out.stats");
    let args = calibration(&output, &text);
    let mut run = workshop.start(&args);
    run.wait_for("Calibrating");
    run.interrupt();
    let (code, said) = run.finish();
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("error: interrupted"), "{said}");
    assert!(said.contains("hint: finished layers are kept"), "{said}");
    assert!(!workshop.path("out.stats").exists());
    workshop.succeed(&args);
    assert!(workshop.path("out.stats").exists());
}

#[test]
fn a_killed_prune_leaves_all_or_nothing() {
    let workshop = Workshop::new();
    let text = format!("stories={}", repository("models/demo/held-out/stories.txt"));
    let stats = workshop.arg("demo.stats");
    workshop.succeed(&calibration(&stats, &text));
    let plan = workshop.arg("demo.plan.json");
    workshop.succeed(&["plan", &stats, "--prune-experts", "0.25", "-o", &plan]);

    let reference = workshop.arg("reference");
    workshop.succeed(&["prune", "--plan", &plan, "-o", &reference, "--no-eval"]);
    let weights = |directory: &str| fs::read(workshop.path(directory).join("model.safetensors"));
    let expected = weights("reference").unwrap();
    let whole = |directory: &str| {
        assert!(
            weights(directory).unwrap() == expected,
            "{directory} is not whole"
        );
        for file in [
            "config.json",
            "tokenizer.json",
            "pruning_plan.json",
            "README.md",
        ] {
            assert!(workshop.path(directory).join(file).is_file(), "{file}");
        }
    };

    let target = workshop.arg("killed");
    let half = workshop.path(".killed.partial").join("model.safetensors");
    let args = ["prune", "--plan", &plan, "-o", &target, "--no-eval"];
    let mut halves = 0;
    for kill in 0..KILLS {
        let mut run = workshop.start(&args);
        let bytes = (expected.len() * kill / KILLS) as u64;
        run.watch(|| fs::metadata(&half).is_ok_and(|file| file.len() >= bytes));
        run.kill();
        if workshop.path("killed").exists() {
            whole("killed");
            fs::remove_dir_all(workshop.path("killed")).unwrap();
        } else {
            halves += 1;
        }
    }
    assert!(halves > 0, "no kill came while the checkpoint was written");
    workshop.succeed(&args);
    whole("killed");
    assert!(!workshop.path(".killed.partial").exists());
}

#[test]
fn a_killed_replacement_leaves_the_old_or_the_new() {
    let workshop = Workshop::new();
    let model = repository("tests/golden/mixtral");
    let plan = workshop.plan("mixtral").display().to_string();
    let args = [
        "prune",
        "-m",
        &model,
        "--plan",
        &plan,
        "-o",
        &workshop.arg("out"),
        "--no-eval",
    ];
    let force = [&args[..], &["--force"]].concat();
    workshop.succeed(&args);
    let weights = |name: &str| fs::read(workshop.path(name).join("model.safetensors"));
    let expected = weights("out").unwrap();
    let partial = workshop.path(".out.partial");
    for file in ["model.safetensors", "config.json", "pruning_plan.json"] {
        let mut run = workshop.start(&force);
        run.watch(|| partial.join(file).exists());
        run.kill();
        // Between two renames the old one waits beside its place.
        let there = weights("out").or_else(|_| weights(".out.replaced"));
        assert!(there.unwrap() == expected, "killed at {file}");
    }
    workshop.succeed(&force);
    assert!(weights("out").unwrap() == expected);
    for hidden in [".out.partial", ".out.replaced"] {
        assert!(!workshop.path(hidden).exists(), "{hidden}");
    }
}
