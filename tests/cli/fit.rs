//! `--fit`: a budget of memory is kept, by plans and by the server.

use reqwest::StatusCode;
use serde_json::{json, Value};

use crate::program::Workshop;
use crate::serve::Server;

/// Little text, so that calibrating is quick.
const QUICK: [&str; 3] = ["--calibration-tokens", "4096", "--no-eval"];

#[test]
fn a_server_takes_the_memory_that_was_predicted() {
    let workshop = Workshop::new();
    // Less than the model takes in f32.
    let asked = ["--fit", "112MB", "--max-seq-len", "1000"];
    let server = Server::start(&workshop, &[&asked[..], &QUICK].concat(), None);
    let plan = server.get("/v1/pruning")["plan"].clone();
    let fit = &plan["method"]["asked"]["fit"];
    assert_eq!(fit["bytes"], 112_000_000);
    assert_eq!(fit["traffic"], json!({"sequences": 1, "tokens": 1024}));
    assert!(plan["weights"].is_string(), "{plan}");
    let predicted = fit["predicted"].as_u64().unwrap();
    assert!(predicted <= 112_000_000);

    let prompt = |words: usize| "the cat ".repeat(words / 2);
    let ask = |words| {
        let body = json!({"model": "default", "prompt": prompt(words), "max_tokens": 1000});
        server.send("/v1/completions", Some(&body), None)
    };
    let answer: Value = ask(1000).json().unwrap();
    let used = answer["usage"]["total_tokens"].as_u64().unwrap();
    assert!(used <= 1024, "{answer}");
    let refused = ask(1200);
    assert_ne!(refused.status(), StatusCode::OK);
    assert!(refused.text().unwrap().contains("1024"));

    if let Ok(status) = std::fs::read_to_string(format!("/proc/{}/status", server.process())) {
        let line = status
            .lines()
            .find(|line| line.starts_with("VmHWM"))
            .unwrap();
        let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        let peak = kilobytes * 1024;
        // Loading is not counted, but of so small a model it is less.
        assert!(peak < predicted, "{peak} of {predicted}");
        assert!(peak > predicted / 10 * 8, "{peak} of {predicted}");
    }
    server.stop();
}

#[test]
fn a_plan_says_how_its_weights_are_stored() {
    let workshop = Workshop::new();
    let stats = workshop.arg("demo.stats");
    workshop.succeed(&["calibrate", "--calibration-tokens", "4096", "-o", &stats]);
    let plan = workshop.arg("fit.plan.json");
    let small = ["--max-seqs", "1", "--max-seq-len", "512", "-o", &plan];
    let fit = [
        "plan",
        &stats,
        "--fit",
        "100MB",
        "--fit-weights",
        "float,q4k",
    ];
    let said = workshop.succeed(&[&fit[..], &small].concat());
    assert!(said.stdout.contains("weights as"), "{}", said.stdout);
    for shown in ["chosen", "runner-up 1", "together"] {
        assert!(said.stderr.contains(shown), "{}", said.stderr);
    }
    let out = workshop.arg("small");
    let args = ["prune", "--plan", &plan, "--no-eval", "-o", &out];
    workshop.succeed(&args);
    assert!(workshop.path("small").join("q4k-0.uqff").is_file());
    // What says it is not asked for again.
    let args = ["eval", "--plan", &plan, "--eval-tokens", "2048", "--json"];
    let report = workshop.succeed(&args).json();
    assert_eq!(report["variants"][0]["quantization"], "q4k");
}

#[test]
fn what_does_not_fit_is_refused() {
    let workshop = Workshop::new();
    let stats = workshop.arg("demo.stats");
    workshop.succeed(&["calibrate", "--calibration-tokens", "1024", "-o", &stats]);
    let refused = |args: &[&str], said: &[&str]| {
        let args = [&["plan", &stats][..], args].concat();
        workshop.run(&args).expect_failure(2, said);
    };
    refused(
        &["--fit", "20MB", "--max-seqs", "1", "--max-seq-len", "512"],
        &["--fit 20MB: the smallest", "of which", "--max-seqs"],
    );
    refused(
        &["--fit", "1GB", "--max-seq-len", "4096"],
        &["--max-seq-len: expected 1 to 2048 tokens", "4096"],
    );
    refused(&["--fit", "much"], &["--fit"]);
    refused(&["--fit", "1GB", "--prune-experts", "0.5"], &["--fit"]);
    let serve = ["serve", "--fit", "1GB", "--isq", "4"];
    workshop.run(&serve).expect_failure(2, &["--isq", "--fit"]);
}
