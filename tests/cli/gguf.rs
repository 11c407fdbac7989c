//! `prune --layout gguf`: one file for llama.cpp.

use std::fs;
use std::path::PathBuf;

use router_stats::gguf::{tokenizer, Header};

use crate::program::{repository, Workshop};

/// A workshop with the plan of half of a model.
fn planned(family: &str) -> (Workshop, String, String) {
    let workshop = Workshop::new();
    let model = repository(&format!("tests/golden/{family}"));
    let stats = workshop.calibrate(family, &[]).display().to_string();
    let plan = workshop.arg("half.plan.json");
    let asked = ["--prune-experts", "0.5", "-o", &plan];
    workshop.succeed(&[&["plan", &stats, "-m", &model][..], &asked].concat());
    (workshop, model, plan)
}

/// The files of a directory, sorted.
fn files(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn one_file_holds_the_model_beside_its_plan_and_card() {
    let (workshop, model, plan) = planned("mixtral");
    let out = workshop.arg("half");
    let args = [
        "prune",
        "-m",
        &model,
        "--plan",
        &plan,
        "-o",
        &out,
        "--no-eval",
    ];
    let gguf = [&args[..], &["--layout", "gguf", "--json"]].concat();
    let written = workshop.succeed(&gguf).json();
    assert_eq!(written["layout"], "gguf");
    assert_eq!(
        files(&out),
        ["README.md", "mixtral.gguf", "pruning_plan.json"]
    );

    let file = fs::read(PathBuf::from(&out).join("mixtral.gguf")).unwrap();
    let header = Header::parse(&file).unwrap();
    assert_eq!(written["tensors"], header.tensors.len());
    assert_eq!(written["bytes"], file.len() - header.data);
    let text = |key: &str| header.metadata.text(key).unwrap();
    assert_eq!(text("general.architecture"), "llama");
    assert_eq!(text("general.name"), "mixtral-pruned");
    assert_eq!(header.metadata.count("llama.expert_count"), Ok(3));
    assert!(tokenizer(&header.metadata)
        .unwrap()
        .encode("a river", true)
        .is_ok());
    let card = fs::read_to_string(PathBuf::from(&out).join("README.md")).unwrap();
    assert!(card.contains("llama-cli -m mixtral.gguf"), "{card}");
    assert!(card.contains("--layout gguf -o PRUNED"), "{card}");

    // The same bytes again, and smaller ones where it is asked for.
    workshop.succeed(&[&gguf[..], &["--force"]].concat());
    assert!(fs::read(PathBuf::from(&out).join("mixtral.gguf")).unwrap() == file);
    let small = [&gguf[..], &["--force", "--gguf-weights", "q8_0"]].concat();
    let written = workshop.succeed(&small).json();
    assert!(written["bytes"].as_u64().unwrap() < file.len() as u64 / 2);
    let card = fs::read_to_string(PathBuf::from(&out).join("README.md")).unwrap();
    assert!(card.contains("quantised to q8_0"), "{card}");
    assert!(card.contains("--gguf-weights q8_0"), "{card}");
}

#[test]
fn what_llama_cpp_cannot_say_is_refused_before_anything_is_written() {
    let (workshop, model, plan) = planned("deepseek_v2");
    let out = workshop.arg("half");
    let args = [
        "prune", "-m", &model, "--plan", &plan, "-o", &out, "--layout", "gguf",
    ];
    let refused = workshop.run(&args);
    let expected = [
        "cannot be written as GGUF",
        "DeepseekV2ForCausalLM",
        "hint: --layout hf",
    ];
    refused.expect_failure(1, &expected);
    assert!(!workshop.path("half").exists());
}

#[test]
fn a_tokenizer_that_llama_cpp_does_not_have_is_refused() {
    let (workshop, model, plan) = planned("qwen3_moe");
    // The same model with another tokenizer: what is planned does not depend on it.
    let copy = workshop.path("copy");
    fs::create_dir(&copy).unwrap();
    for name in files(&model) {
        fs::copy(PathBuf::from(&model).join(&name), copy.join(&name)).unwrap();
    }
    let path = copy.join("tokenizer.json");
    let tokenizer = fs::read_to_string(&path).unwrap();
    let mut tokenizer: serde_json::Value = serde_json::from_str(&tokenizer).unwrap();
    tokenizer["pre_tokenizer"] = serde_json::json!({"type": "Whitespace"});
    fs::write(&path, tokenizer.to_string()).unwrap();
    let (copy, out) = (copy.display().to_string(), workshop.arg("half"));
    let args = [
        "prune", "-m", &copy, "--plan", &plan, "-o", &out, "--layout", "gguf",
    ];
    let refused = workshop.run(&args);
    refused.expect_failure(
        1,
        &["tokenizer.json", "pre-tokenizer `Whitespace`", "hint: "],
    );
    assert!(!workshop.path("half").exists());
}

#[test]
fn flags_of_gguf_need_it() {
    let workshop = Workshop::new();
    for layout in [&[][..], &["--layout", "hf"], &["--layout", "uqff"]] {
        let args = ["prune", "--plan", "p", "-o", "x", "--gguf-weights", "q4k"];
        let refused = workshop.run(&[&args[..], layout].concat());
        refused.expect_failure(2, &["--gguf-weights", "--layout gguf"]);
    }
}
