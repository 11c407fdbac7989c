//! Flags: those that would do nothing are refused, the others do something.

use std::fs;

use router_stats::stats::Stats;

use crate::program::{repository, Workshop};

#[test]
fn flags_that_would_do_nothing_are_refused() {
    let workshop = Workshop::new();
    let text = repository("models/demo/held-out/stories.txt");
    for (flag, args) in [
        ("--hf-revision", "calibrate -o x --hf-revision main"),
        ("--held-out", "calibrate -o x --held-out 0.2"),
        ("--prune-experts", "calibrate -o x --prune-experts 0.5"),
        ("--drop-layers", "calibrate -o x --drop-layers 1"),
        ("--max-loss", "calibrate -o x --max-loss 0.02"),
        ("--prune-experts", "calibrate -o x --until-stable"),
        ("--until-stable", "calibrate -o x --stability 0.9"),
        (
            "--stability",
            "calibrate -o x --until-stable --keep-experts 4 --stability 1.5",
        ),
        (
            "--max-loss",
            "calibrate -o x --until-stable --max-loss 0.02",
        ),
        (
            "--shard",
            "calibrate -o x --until-stable --keep-experts 4 --shard 1/2",
        ),
        ("--prune-experts", "stats stability a b"),
        ("--max-loss", "stats stability a b --max-loss 0.02"),
        (
            "--criterion",
            "stats stability a b --drop-layers 1 --criterion ean",
        ),
        ("--calibration", "serve --calibration TEXT"),
        ("--calibration-tokens", "serve --calibration-tokens 9"),
        ("--batch-tokens", "serve --batch-tokens 9"),
        ("--eval-tokens", "serve --eval-tokens 9"),
        ("--seq-len", "serve --seq-len 9"),
        ("--spill", "serve --spill"),
        ("--seed", "serve --seed 1"),
        ("--no-eval", "serve --no-eval"),
        (
            "--calibration-tokens",
            "serve --plan p --calibration-tokens 9",
        ),
        ("--spill", "serve --plan p --spill"),
        (
            "--calibration",
            "serve --plan p --no-eval --calibration TEXT",
        ),
        (
            "--batch-tokens",
            "serve --plan p --no-eval --batch-tokens 9",
        ),
        ("--seed", "serve --plan p --no-eval --seed 1"),
        ("--criterion", "serve --drop-layers 1 --criterion ean"),
        ("--calibration", "eval --calibration TEXT"),
        ("--calibration-tokens", "eval --calibration-tokens 9"),
        ("--spill", "eval --plan p --spill"),
        (
            "--stats",
            "eval --prune-experts 0.5 --stats s --calibration TEXT",
        ),
        ("--criterion", "eval --drop-layers 1 --criterion ean"),
        ("--allocation", "eval --drop-layers 1 --allocation lamp"),
        (
            "--layer-criterion",
            "eval --prune-experts 0.5 --layer-criterion angular-span",
        ),
        (
            "--balance-domains",
            "eval --drop-layers 1 --balance-domains",
        ),
        ("--protect", "eval --plan p --protect 0:1"),
        ("--allocation", "serve --drop-layers 1 --allocation lamp"),
        ("--protect", "serve --plan p --protect 0:1"),
        (
            "--uqff-weights",
            "prune --plan p -o x --layout hf --uqff-weights q4k",
        ),
        (
            "--uqff-device",
            "prune --plan p -o x --layout engine --uqff-device gpu",
        ),
        ("--prune-super-experts", "serve --prune-super-experts"),
        (
            "--layer-criterion",
            "plan x --nested 0.5 --layer-criterion angular-span",
        ),
        ("--nested", "plan x --nested 0.5 --prune-experts 0.5"),
        ("--nested", "plan x --nested 0.5 --keep-experts 4"),
        ("--nested", "plan x --nested 0.5 --target-size 1GB"),
        (
            "--target-size",
            "plan x --target-size 1GB --target-params 1B",
        ),
        ("--target-size", "plan x --target-size small"),
        ("--max-loss", "plan x --max-loss -0.1"),
        ("--max-loss", "serve --max-loss 0.02 --no-eval"),
        ("--max-loss", "serve --max-loss 0.02 --target-size 1GB"),
        ("--eval-tokens", "plan x --keep-experts 4 --eval-tokens 9"),
        ("--target-params", "serve --target-params 1GiB"),
        (
            "--keep-experts",
            "serve --keep-experts 4 --target-params 1M",
        ),
    ] {
        let args = args.replace("TEXT", &text);
        let args: Vec<&str> = args.split(' ').collect();
        workshop.run(&args).expect_failure(2, &[flag]);
    }
    assert!(!workshop.path("cache").exists(), "nothing was begun");
}

#[test]
fn help_names_every_method() {
    let help = Workshop::new().succeed(&["plan", "--help"]).stdout;
    for said in [
        "reap",
        "alpha-coverage",
        "policy-gradient",
        "angular-span",
        "--prune-super-experts",
    ] {
        assert!(help.contains(said), "{said}");
    }
}

#[test]
fn calibrate_leaves_out_what_serve_checks_on() {
    let workshop = Workshop::new();
    let text = workshop.path("words.txt");
    let documents: Vec<String> = (0..200)
        .map(|i| format!("document {i} of several"))
        .collect();
    fs::write(&text, documents.join("\n<|endoftext|>\n")).unwrap();
    let (text, output) = (text.display().to_string(), workshop.arg("w.stats"));
    let used = |more: &[&str]| {
        let args = ["calibrate", "--calibration", &text, "-o", &output];
        workshop.succeed(&[&args[..], more].concat());
        Stats::read(workshop.path("w.stats"))
            .unwrap()
            .provenance
            .domains[0]
            .documents
    };
    let (all, most) = (used(&["--held-out", "0"]), used(&[]));
    assert_eq!(all, 200);
    assert!((160..195).contains(&most), "{most}");
}

#[test]
fn a_plan_may_be_called_like_its_model() {
    let workshop = Workshop::new();
    let model = repository("tests/golden/mixtral");
    // `mixtral.plan.json`, for the model `mixtral`.
    let plan = workshop.plan("mixtral").display().to_string();
    let text = repository("models/demo/held-out/stories.txt");
    let mut args = vec!["eval", "-m", &model, "--plan", &plan, "--text", &text];
    args.extend(["--eval-tokens", "256", "--seq-len", "64", "--json"]);
    let report = workshop.succeed(&args).json();
    assert_eq!(report["reference"]["name"], "mixtral");
    assert_eq!(report["variants"][0]["name"], "mixtral (plan)");
}

#[test]
fn statistics_and_batches_go_together() {
    let workshop = Workshop::new();
    let model = repository("tests/golden/mixtral");
    let stats = workshop.calibrate("mixtral", &[]).display().to_string();
    let text = repository("models/demo/held-out/stories.txt");
    let mut args = vec!["eval", "-m", &model, "--stats", &stats, "--text", &text];
    args.extend(["--prune-experts", "0.5", "--batch-tokens", "128"]);
    args.extend(["--eval-tokens", "256", "--seq-len", "64", "--json"]);
    workshop.succeed(&args);
}

#[test]
fn an_interrupted_evaluation_promises_no_layers() {
    let workshop = Workshop::new();
    let mut run = workshop.start(&["eval", "--eval-tokens", "100000", "--batch-tokens", "512"]);
    run.wait_for("Evaluating");
    run.interrupt();
    let (code, said) = run.finish();
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("hint: nothing half-written"), "{said}");
}
