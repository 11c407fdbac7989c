//! Every family, from a checkpoint to answers or to a refusal.

use serde_json::{json, Value};

use crate::program::{repository, Workshop};
use crate::serve::Server;

/// Golden checkpoints that the engine takes, and what their router says.
const SERVED: [(&str, &str); 9] = [
    ("qwen3_moe", "softmax, top 2, renormalised"),
    ("qwen3_vl_moe", "softmax, top 2, renormalised"),
    ("mixtral", "softmax, top 2, renormalised"),
    ("phimoe", "sparse mixer, top 2"),
    ("deepseek_v2_lite", "softmax, top 3"),
    (
        "deepseek_v3",
        "sigmoid + bias, 2 of 4 groups, top 4, renormalised, × 2.5",
    ),
    ("kimi_k2", "sigmoid + bias, top 3, renormalised, × 2.827"),
    ("glm4_moe", "sigmoid + bias, top 2, renormalised, × 1.5"),
    (
        "glm4_moe_lite",
        "sigmoid + bias, top 3, renormalised, × 1.8",
    ),
];

/// Those that it does not take, and a word of the reason.
const REFUSED: [(&str, &str); 4] = [
    ("olmoe", "no loader for OlmoeForCausalLM"),
    ("minimax_m2", "no loader for MiniMaxM2ForCausalLM"),
    ("qwen2_moe", "no loader for Qwen2MoeForCausalLM"),
    ("deepseek_v2", "group-limited router"),
];

fn golden(name: &str) -> String {
    repository(&format!("tests/golden/{name}"))
}

/// Flags that keep a run short.
fn short(name: &str) -> Vec<String> {
    let text = repository("models/demo/held-out/stories.txt");
    let flags = ["-m", &golden(name), "--prune-experts", "0.25"];
    let more = ["--calibration", &format!("stories={text}")];
    let less = ["--calibration-tokens", "1024", "--seq-len", "64"];
    [&flags[..], &more, &less]
        .concat()
        .into_iter()
        .map(str::to_owned)
        .collect()
}

#[test]
fn served_families_answer() {
    for (name, router) in SERVED {
        let workshop = Workshop::new();
        let inspected = workshop
            .succeed(&["inspect", &golden(name), "--json"])
            .json();
        assert_eq!(inspected["router"], router, "{name}");
        assert_eq!(inspected["served"], true, "{name}");

        let flags = short(name);
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let server = Server::start(&workshop, &[&flags[..], &["--no-eval"]].concat(), None);
        let pruning = server.get("/v1/pruning");
        assert_eq!(pruning["caveat"].is_string(), name == "phimoe");
        let layers = pruning["plan"]["layers"].as_array().unwrap();
        let removed = |layer: &Value| layer["removed"].as_array().map_or(0, Vec::len);
        assert!(layers.iter().map(removed).sum::<usize>() > 0, "{name}");
        let request = json!({"model": "default", "prompt": "The river ", "max_tokens": 4,
            "temperature": 0.0});
        let answer: Value = server.post("/v1/completions", &request).json().unwrap();
        assert!(answer["choices"][0]["text"].is_string(), "{name}: {answer}");
        server.stop();
    }
}

#[test]
fn families_the_engine_lacks_are_refused_before_the_long_work() {
    for (name, reason) in REFUSED {
        let workshop = Workshop::new();
        let inspected = workshop
            .succeed(&["inspect", &golden(name), "--json"])
            .json();
        assert_eq!(inspected["served"], false, "{name}");
        assert!(inspected["serving_note"].as_str().unwrap().contains(reason));

        let mut args = vec!["serve".to_owned(), "--port".to_owned(), "0".to_owned()];
        args.extend(short(name));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let run = workshop.run(&args);
        run.expect_failure(1, &["cannot be served", reason, "hint: ", "--layout hf"]);
        assert!(!run.stderr.contains("Calibrat"), "{}", run.stderr);

        // It is pruned for others, not for the engine.
        let plan = workshop.plan(name).display().to_string();
        let out = workshop.arg("out");
        let prune = [
            "prune",
            "-m",
            &golden(name),
            "--plan",
            &plan,
            "-o",
            &out,
            "--no-eval",
        ];
        workshop
            .run(&[&prune[..], &["--layout", "engine"]].concat())
            .expect_failure(1, &["cannot be served", reason]);
        workshop.succeed(&prune);
    }
}
