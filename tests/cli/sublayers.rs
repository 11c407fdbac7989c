//! Sublayers that go, and how many experts a token takes.

use serde_json::{json, Value};

use crate::program::{repository, Workshop};
use crate::serve::Server;

fn golden(name: &str) -> String {
    repository(&format!("tests/golden/{name}"))
}

fn stories() -> String {
    let text = repository("models/demo/held-out/stories.txt");
    format!("stories={text}")
}

/// Statistics of a golden checkpoint, and its directory.
fn measured(workshop: &Workshop, family: &str) -> [String; 2] {
    let stats = workshop.calibrate(family, &[]).display().to_string();
    [stats, golden(family)]
}

/// Indices of the layers of a plan that lose `part`.
fn without(plan: &Value, part: &str) -> Vec<u64> {
    let layers = plan["layers"].as_array().unwrap();
    layers
        .iter()
        .filter(|layer| layer["skipped"][part] == true)
        .map(|layer| layer["layer"].as_u64().unwrap())
        .collect()
}

#[test]
fn experts_of_a_layer_go_and_the_bytes_are_those_of_the_plan() {
    let workshop = Workshop::new();
    let [stats, model] = measured(&workshop, "qwen3_moe");
    let file = workshop.arg("moe.plan.json");
    let asked = ["--drop-moe", "1", "--top-k", "1", "--keep-experts", "4"];
    let args = ["plan", &stats, "-m", &model, "-o", &file, "--json"];
    let plan = workshop.succeed(&[&args[..], &asked].concat()).json();
    assert_eq!(
        (plan["version"].as_u64(), without(&plan, "mlp").len()),
        (Some(3), 1)
    );
    assert_eq!(plan["method"]["asked"]["moe"]["count"], 1);
    assert_eq!(plan["method"]["asked"]["top_k"], 1);
    let shown = workshop.succeed(&["inspect", &file]).stdout;
    for said in ["no experts", "--drop-moe 1 --top-k 1", "without experts"] {
        assert!(shown.contains(said), "{shown}");
    }

    let out = workshop.arg("moe");
    for layout in ["engine", "hf"] {
        let args = [
            "prune", "-m", &model, "--plan", &file, "-o", &out, "--force",
        ];
        let more = ["--no-eval", "--json", "--layout", layout];
        let written = workshop.succeed(&[&args[..], &more].concat()).json();
        assert_eq!(written["bytes"], plan["after"]["bytes"], "{layout}");
    }
    let after = workshop.succeed(&["inspect", &out, "--json"]).json();
    assert_eq!(
        after["size"]["active_parameters"],
        plan["after"]["active_parameters"]
    );
    assert_eq!(after["router"], "softmax, top 1, renormalised");
    let card = std::fs::read_to_string(workshop.path("moe").join("README.md")).unwrap();
    assert!(card.contains("all, with the router"), "{card}");

    // The plan as a mask and the checkpoint are one model.
    let text = stories();
    let args = ["eval", "-m", &model, "--plan", &file, "--checkpoint", &out];
    let more = [
        "--text",
        &text,
        "--eval-tokens",
        "512",
        "--seq-len",
        "64",
        "--json",
    ];
    let report = workshop.succeed(&[&args[..], &more].concat()).json();
    let overall = |variant: usize| {
        let estimate = &report["variants"][variant]["all"]["perplexity"];
        estimate["value"].as_f64().unwrap()
    };
    let (masked, written) = (overall(0), overall(1));
    assert!((masked / written - 1.0).abs() < 1e-5, "{masked} {written}");
}

#[test]
fn what_goes_of_layers_is_compared() {
    let workshop = Workshop::new();
    let [stats, model] = measured(&workshop, "qwen3_moe");
    let plan = |name: &str, asked: &[&str]| {
        let file = workshop.arg(name);
        let args = ["plan", &stats, "-m", &model, "-o", &file];
        workshop.succeed(&[&args[..], asked].concat());
        file
    };
    let attention = plan("a.plan.json", &["--drop-attention", "0.5"]);
    let experts = plan("b.plan.json", &["--drop-moe", "1"]);
    let diff = workshop
        .succeed(&["plan", "diff", &attention, &experts])
        .stdout;
    assert!(
        diff.contains("no attention") && diff.contains("no experts"),
        "{diff}"
    );
    let found = workshop.succeed(&["plan", "diff", &attention, &experts, "--json"]);
    assert_eq!(found.json()["relation"], "neither");
    let page = workshop.arg("page.html");
    workshop.succeed(&[
        "report", "--plan", &attention, "--stats", &stats, "-o", &page,
    ]);
    let page = std::fs::read_to_string(&page).unwrap();
    assert!(page.contains("2 of 4 attention sublayers"), "{page}");
    assert!(page.contains("without attention"));
}

#[test]
fn what_cannot_be_written_is_refused_before_long_work_with_what_can() {
    for (family, asked, reason, instead) in [
        (
            "qwen3_moe",
            "--drop-attention",
            "no configuration can say that a layer has no attention",
            "--drop-moe",
        ),
        (
            "mixtral",
            "--drop-moe",
            "cannot say that a layer has no experts",
            "--drop-layers",
        ),
    ] {
        let workshop = Workshop::new();
        let model = golden(family);
        let text = stories();
        let serve = [
            "serve",
            "--port",
            "0",
            "-m",
            &model,
            asked,
            "1",
            "--calibration",
            &text,
        ];
        let run = workshop.run(&serve);
        run.expect_failure(1, &["cannot be written without", reason, "hint: ", instead]);
        assert!(!run.stderr.contains("Calibrat"), "{}", run.stderr);

        // It can be planned and measured.
        let [stats, model] = measured(&workshop, family);
        let file = workshop.arg("x.plan.json");
        workshop.succeed(&["plan", &stats, "-m", &model, asked, "1", "-o", &file]);
        let args = ["eval", "-m", &model, "--plan", &file, "--text", &text];
        workshop.succeed(&[&args[..], &["--eval-tokens", "512", "--seq-len", "64"]].concat());
        let out = workshop.arg("out");
        let prune = ["prune", "-m", &model, "--plan", &file, "-o", &out];
        let run = workshop.run(&prune);
        run.expect_failure(1, &["cannot be written without", reason]);
        assert!(!run.stderr.contains("Evaluat"), "{}", run.stderr);
    }
    let workshop = Workshop::new();
    let model = golden("phimoe");
    let run = workshop.run(&["serve", "--port", "0", "-m", &model, "--top-k", "1"]);
    run.expect_failure(2, &["--top-k", "a sparse mixer takes no fewer"]);
}

#[test]
fn the_layers_after_the_dense_ones_can_lose_their_experts() {
    let workshop = Workshop::new();
    let [stats, model] = measured(&workshop, "glm4_moe");
    for (stays, goes) in [("2:0", Some(1)), ("1:0", None)] {
        let file = workshop.arg("x.plan.json");
        let args = ["plan", &stats, "-m", &model, "-o", &file, "--json"];
        let asked = [
            "--drop-moe",
            "1",
            "--protect",
            stays,
            "--prune-super-experts",
        ];
        let plan = workshop.succeed(&[&args[..], &asked].concat()).json();
        let out = workshop.arg("out");
        let prune = [
            "prune",
            "-m",
            &model,
            "--plan",
            &file,
            "-o",
            &out,
            "--no-eval",
            "--force",
        ];
        match goes {
            Some(layer) => {
                assert_eq!(without(&plan, "mlp"), [layer]);
                workshop.succeed(&prune);
            }
            None => workshop
                .run(&prune)
                .expect_failure(1, &["the experts of layer 2", "follow them directly"]),
        }
    }
}

#[test]
fn a_model_without_experts_of_a_layer_answers() {
    let workshop = Workshop::new();
    let (model, text) = (golden("qwen3_moe"), stories());
    let flags = [
        "-m",
        &model,
        "--calibration",
        &text,
        "--calibration-tokens",
        "1024",
    ];
    let asked = [
        "--drop-moe",
        "1",
        "--top-k",
        "1",
        "--no-eval",
        "--seq-len",
        "64",
    ];
    let server = Server::start(&workshop, &[&flags[..], &asked].concat(), None);
    let plan = server.get("/v1/pruning")["plan"].clone();
    assert_eq!(without(&plan, "mlp").len(), 1);
    let request = json!({"model": "default", "prompt": "The river ", "max_tokens": 4,
        "temperature": 0.0});
    let answer: Value = server.post("/v1/completions", &request).json().unwrap();
    assert!(answer["choices"][0]["text"].is_string(), "{answer}");
    server.stop();
}

#[test]
fn greedy_measures_each_candidate_once() {
    let workshop = Workshop::new();
    let [stats, model] = measured(&workshop, "qwen3_moe");
    let text = stories();
    let asked = [
        "--layer-criterion",
        "greedy",
        "--drop-layers",
        "1",
        "--drop-attention",
        "1",
    ];
    let args = [
        "plan",
        &stats,
        "-m",
        &model,
        "--calibration",
        &text,
        "--json",
    ];
    let run = || workshop.succeed(&[&args[..], &asked].concat());
    let first = run();
    // Of four layers and as many attentions one goes, then one of what is left.
    assert!(
        first.stderr.contains(" 0 of them before"),
        "{}",
        first.stderr
    );
    assert_eq!(first.json()["method"]["layer_criterion"], "greedy");
    let again = run();
    assert!(
        !again.stderr.contains(" 0 of them before"),
        "{}",
        again.stderr
    );
    assert_eq!(first.json(), again.json());
    // Another text is another question.
    let statistics = workshop.run(&[
        "plan",
        &stats,
        "-m",
        &model,
        "--drop-layers",
        "1",
        "--calibration",
        &text,
    ]);
    statistics.expect_failure(2, &["--calibration", "a layer criterion that measures"]);
    let span = ["plan", &stats, "-m", &model, "--drop-moe", "1"];
    workshop
        .run(&[&span[..], &["--layer-criterion", "angular-span"]].concat())
        .expect_failure(2, &["--layer-criterion", "block-influence, greedy"]);
}
