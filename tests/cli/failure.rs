//! What goes wrong is named, with advice and an exit code that tells usage
//! (2) from failure (1).

use std::fs;
use std::net::TcpListener;

use crate::program::{repository, Finished, Workshop};

/// Runs a damaged copy of a golden checkpoint.
fn damaged(damage: impl FnOnce(&std::path::Path)) -> Finished {
    let workshop = Workshop::new();
    let model = workshop.copy_of("qwen3_moe");
    damage(&model);
    let text = repository("models/demo/held-out/stories.txt");
    let mut args = vec![
        "calibrate",
        "-m",
        model.to_str().unwrap(),
        "--calibration",
        &text,
    ];
    let output = workshop.arg("out.stats");
    args.extend([
        "--calibration-tokens",
        "256",
        "--seq-len",
        "64",
        "-o",
        &output,
    ]);
    let finished = workshop.run(&args);
    assert!(!workshop.path("out.stats").exists());
    finished
}

#[test]
fn a_truncated_shard() {
    let finished = damaged(|model| {
        let path = model.join("model.safetensors");
        let file = fs::OpenOptions::new().write(true).open(path).unwrap();
        file.set_len(file.metadata().unwrap().len() - 100).unwrap();
    });
    finished.expect_failure(
        1,
        &[
            "model.safetensors: tensor `",
            "before the end",
            "hint: the file is incomplete",
        ],
    );
}

#[test]
fn a_missing_tokenizer() {
    let finished = damaged(|model| fs::remove_file(model.join("tokenizer.json")).unwrap());
    finished.expect_failure(
        1,
        &[
            "expected tokenizer.json, found none",
            "hint: copy tokenizer.json",
        ],
    );
}

#[test]
fn an_unknown_family() {
    let finished = damaged(|model| {
        let path = model.join("config.json");
        let config = fs::read_to_string(&path).unwrap();
        fs::write(
            path,
            config.replace("Qwen3MoeForCausalLM", "LlamaForCausalLM"),
        )
        .unwrap();
    });
    finished.expect_failure(
        1,
        &[
            "unknown model family `LlamaForCausalLM`",
            "MixtralForCausalLM",
            "hint:",
        ],
    );
}

#[test]
fn a_missing_tensor() {
    let finished = damaged(|model| {
        let path = model.join("config.json");
        let config = fs::read_to_string(&path).unwrap();
        fs::write(
            path,
            config.replace("\"num_hidden_layers\": 4", "\"num_hidden_layers\": 5"),
        )
        .unwrap();
    });
    finished.expect_failure(1, &["model.layers.4.", "is missing", "hint:"]);
}

#[test]
fn a_budget_that_cannot_be_met() {
    let workshop = Workshop::new();
    let stats = workshop.calibrate("qwen3_moe", &[]).display().to_string();
    let model = repository("tests/golden/qwen3_moe");
    let plan = |asked: &[&str]| workshop.run(&[&["plan", &stats, "-m", &model], asked].concat());
    plan(&["--prune-experts", "0.95"]).expect_failure(
        2,
        &[
            "--prune-experts 0.95 would leave 1 of 8 experts",
            "routes each token to 2",
            "hint: the most this model can lose is 0.75",
        ],
    );
    plan(&["--prune-experts", "1.5"]).expect_failure(2, &["--prune-experts", "1.5"]);
    plan(&["--keep-experts", "9"]).expect_failure(2, &["8 experts", "hint: keep at most 8"]);
    plan(&["--drop-layers", "4"]).expect_failure(2, &["0 of 4 layers", "hint:"]);
    plan(&["--prune-experts", "0.5", "--criterion", "reep"]).expect_failure(2, &["reep", "reap"]);
    plan(&[]).expect_failure(2, &["--prune-experts"]);
}

#[test]
fn a_plan_or_statistics_of_another_model() {
    let workshop = Workshop::new();
    let plan = workshop.plan("qwen3_moe").display().to_string();
    let other = repository("tests/golden/mixtral");
    let out = workshop.arg("out");
    let refused = workshop.run(&["prune", "-m", &other, "--plan", &plan, "-o", &out]);
    refused.expect_failure(
        1,
        &[
            "made for model",
            "(qwen3_moe)",
            "(mixtral)",
            "hint: plans do not transfer",
        ],
    );
    assert!(!workshop.path("out").exists());
    let stats = workshop.arg("qwen3_moe.stats");
    let refused = workshop.run(&["plan", &stats, "-m", &other, "--prune-experts", "0.5"]);
    refused.expect_failure(1, &["made for model", "hint:"]);
}

#[test]
fn a_port_in_use() {
    let workshop = Workshop::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let refused = workshop.run(&["serve", "--prune-experts", "0.5", "--port", &port]);
    refused.expect_failure(
        1,
        &[
            &format!("127.0.0.1:{port}"),
            "hint: another program listens there",
        ],
    );
    // It was noticed before anything was done.
    assert!(!workshop.path("cache").exists());
}

#[test]
fn a_model_that_is_not_there() {
    let workshop = Workshop::new();
    let refused = workshop.run(&["serve", "-m", "./no/such/model", "--port", "0"]);
    refused.expect_failure(
        1,
        &[
            "./no/such/model",
            "hint: a model is a local directory, a GGUF file or a hub id",
        ],
    );
    let refused = workshop.run(&["inspect", "./no/such/model"]);
    refused.expect_failure(1, &["./no/such/model", "hint:"]);
}
