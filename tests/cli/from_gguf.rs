//! A GGUF file as the model: every step, and what is refused.

use std::path::PathBuf;

use serde_json::{json, Value};

use crate::program::{repository, Workshop};
use crate::serve::Server;

/// Half of the golden Mixtral as a file of llama.cpp, in a folder of its own,
/// and as a checkpoint for transformers.
fn halves(workshop: &Workshop) -> (String, String) {
    let model = repository("tests/golden/mixtral");
    let plan = workshop.plan("mixtral").display().to_string();
    let [file, folder] = ["gguf", "hf"].map(|layout| {
        let out = workshop.arg(layout);
        let args = ["prune", "-m", &model, "--plan", &plan, "--no-eval"];
        workshop.succeed(&[&args[..], &["--layout", layout, "-o", &out]].concat());
        out
    });
    (format!("{file}/mixtral.gguf"), folder)
}

/// Flags that keep a run short.
fn short() -> [String; 6] {
    let text = repository("models/demo/held-out/stories.txt");
    let flags = ["--calibration", &format!("stories={text}")];
    let less = ["--calibration-tokens", "1024", "--seq-len", "64"];
    [flags[0], flags[1], less[0], less[1], less[2], less[3]].map(str::to_owned)
}

#[test]
fn a_file_is_calibrated_planned_and_measured_as_its_checkpoint() {
    let workshop = Workshop::new();
    let (file, folder) = halves(&workshop);
    let short = short();
    let short: Vec<&str> = short.iter().map(String::as_str).collect();
    let scores = [(&file, "file"), (&folder, "folder")].map(|(model, name)| {
        let stats = workshop.arg(&format!("{name}.stats"));
        let plan = workshop.arg(&format!("{name}.plan.json"));
        workshop.succeed(&[&["calibrate", "-m", model, "-o", &stats][..], &short].concat());
        let half = ["--keep-experts", "2", "-o", &plan];
        workshop.succeed(&[&["plan", &stats, "-m", model][..], &half].concat());
        let text = repository("models/demo/held-out/stories.txt");
        let measured = ["eval", "-m", model, "--plan", &plan, "--text", &text];
        let few = ["--eval-tokens", "512", "--json"];
        let report = workshop.succeed(&[&measured[..], &few].concat()).json();
        let plan = workshop.succeed(&["inspect", &plan, "--json"]).json();
        (plan["layers"].clone(), report)
    });
    assert_eq!(scores[0].0, scores[1].0);
    let [file_report, folder_report] = [&scores[0].1, &scores[1].1];
    assert!(file_report.is_object());
    assert_eq!(
        file_report["variants"][0]["all"],
        folder_report["variants"][0]["all"]
    );

    let inspected = workshop.succeed(&["inspect", &file, "--json"]).json();
    let original = workshop.succeed(&["inspect", &folder, "--json"]).json();
    for field in [
        "family",
        "router",
        "hidden",
        "vocabulary",
        "top_k",
        "tokenizer",
    ] {
        assert_eq!(inspected[field], original[field], "{field}");
    }
    assert_eq!(inspected["kind"], "checkpoint");
    assert_eq!(inspected["expert_layout"], "stacked, projections apart");
    let parameters = |it: &Value| it["size"]["parameters"].clone();
    assert_eq!(parameters(&inspected), parameters(&original));
}

#[test]
fn a_file_is_served_whole_and_pruned() {
    let workshop = Workshop::new();
    let (file, _) = halves(&workshop);
    let short = short();
    let short: Vec<&str> = short.iter().map(String::as_str).collect();
    let request = json!({"model": "default", "prompt": "The river ", "max_tokens": 4,
        "temperature": 0});
    let pruned = [&["--keep-experts", "2", "--no-eval"][..], &short].concat();
    for more in [&[][..], &pruned] {
        let server = Server::start(&workshop, &[&["-m", &file][..], more].concat(), None);
        let answer: Value = server.post("/v1/completions", &request).json().unwrap();
        assert_eq!(answer["usage"]["completion_tokens"], 4, "{answer}");
    }
    let refused = workshop.run(&["serve", "-m", &file, "--isq", "q4k", "--port", "0"]);
    refused.expect_failure(2, &["--isq", "GGUF"]);
}

#[test]
fn numbers_of_a_file_stay_as_they_are() {
    let workshop = Workshop::new();
    let (file, _) = halves(&workshop);
    let (stats, plan) = (workshop.arg("x.stats"), workshop.arg("x.plan.json"));
    let short = short();
    let short: Vec<&str> = short.iter().map(String::as_str).collect();
    workshop.succeed(&[&["calibrate", "-m", &file, "-o", &stats][..], &short].concat());
    let keep = ["--keep-experts", "2", "-o", &plan];
    workshop.succeed(&[&["plan", &stats, "-m", &file][..], &keep].concat());
    let out = workshop.arg("out");
    for layout in [
        &["--layout", "hf"][..],
        &["--layout", "engine"],
        &["--layout", "uqff", "--uqff-weights", "q4k"],
    ] {
        let args = ["prune", "-m", &file, "--plan", &plan, "-o", &out];
        let refused = workshop.run(&[&args[..], layout].concat());
        refused.expect_failure(1, &["cannot be stored as", "hint: ", "--layout gguf"]);
    }
    assert!(!workshop.path("out").exists());
}

#[test]
fn what_is_no_model_is_said() {
    let workshop = Workshop::new();
    let (file, _) = halves(&workshop);
    let bytes = std::fs::read(&file).unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = workshop.path(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let cut = write("cut.gguf", &bytes[..bytes.len() - 4096]);
    workshop
        .run(&["calibrate", "-m", &cut, "-o", "x.stats"])
        .expect_failure(1, &["cut.gguf", "expected", "hint: "]);
    let name = write("other.gguf", b"no such thing");
    workshop
        .run(&["inspect", &name])
        .expect_failure(1, &["other.gguf"]);
    workshop
        .run(&["calibrate", "-m", &name, "-o", "x.stats"])
        .expect_failure(1, &["expected the magic `GGUF`"]);
    let folder = PathBuf::from(&file).parent().unwrap().join("second.gguf");
    std::fs::write(folder, &bytes).unwrap();
    let folder = workshop.arg("gguf");
    workshop
        .run(&["inspect", &folder])
        .expect_failure(1, &["expected one model", "mixtral.gguf, second.gguf"]);
}
