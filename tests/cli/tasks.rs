//! `eval --task`: the same answers in our forward pass, in the engine and from
//! a server.

use serde_json::{json, Value};

use crate::program::{repository, Workshop};
use crate::serve::Server;

/// Writes one file of items for each way of scoring; the arguments name them.
fn items(workshop: &Workshop) -> Vec<String> {
    let files = [
        (
            "choices",
            vec![
                json!({"query": "Once upon a time there was a little", "choices": ["girl", "the"], "gold": 0}),
                json!({"query": "Question: What is 2 + 3?\nAnswer:", "choices": ["5", "house", "dog"], "gold": 0}),
            ],
        ),
        (
            "contexts",
            vec![
                json!({"contexts": ["The girl", "The stone"], "continuation": " was very happy.", "gold": 0}),
            ],
        ),
        (
            "words",
            vec![json!({"context": "The little dog ran to the", "continuation": "river"})],
        ),
    ];
    let mut args = Vec::new();
    for (name, records) in files {
        let lines: Vec<String> = records.iter().map(Value::to_string).collect();
        let path = workshop.path(&format!("{name}.jsonl"));
        std::fs::write(&path, lines.join("\n")).unwrap();
        args.extend(["--task".to_owned(), format!("{name}={}", path.display())]);
    }
    args
}

/// Outcomes of one model: task → metric → items.
fn outcomes(report: &Value, model: usize) -> Vec<(String, String, Vec<f64>)> {
    let mut all = Vec::new();
    for task in report["tasks"].as_array().unwrap() {
        let metrics = task["models"][model]["metrics"].as_object().unwrap();
        for (metric, measured) in metrics {
            let numbers = measured["outcomes"].as_array().unwrap();
            let numbers = numbers.iter().map(|number| number.as_f64().unwrap());
            let name = task["name"].as_str().unwrap().to_owned();
            all.push((name, metric.clone(), numbers.collect()));
        }
    }
    all
}

fn assert_close(left: &[(String, String, Vec<f64>)], right: &[(String, String, Vec<f64>)]) {
    assert_eq!(left.len(), right.len());
    for ((task, metric, left), (other, same, right)) in left.iter().zip(right) {
        assert_eq!((task, metric), (other, same));
        assert_eq!(left.len(), right.len(), "{task} {metric}");
        for (a, b) in left.iter().zip(right) {
            assert!((a - b).abs() < 1e-3, "{task} {metric}: {a} {b}");
        }
    }
}

#[test]
fn tasks_have_the_same_outcomes_whatever_runs_them() {
    let workshop = Workshop::new();
    let server = Server::start(&workshop, &["--prefix-cache-n", "0"], Some("secret"));
    let key = workshop.path("key");
    std::fs::write(&key, "secret\n").unwrap();
    let (named, key) = (
        format!("demo={}", server.url()),
        format!("path:{}", key.display()),
    );
    let output = workshop.arg("report.json");
    let tasks = items(&workshop);
    let mut args: Vec<&str> = tasks.iter().map(String::as_str).collect();
    args.extend(["--task", "copy", "--task-limit", "2", "--no-text", "--json"]);
    let eval = [&["eval"], &args[..]].concat();

    let native = workshop
        .succeed(&[&eval[..], &["-o", &output]].concat())
        .json();
    let written: Value = serde_json::from_slice(&std::fs::read(&output).unwrap()).unwrap();
    assert_eq!(written, native);
    let found = outcomes(&native, 0);
    let names: Vec<&str> = found.iter().map(|(task, ..)| task.as_str()).collect();
    for task in ["choices", "contexts", "words", "copy"] {
        assert!(names.contains(&task), "{names:?}");
    }
    let engine = workshop.succeed(&[&eval[..], &["--backend", "engine"]].concat());
    assert_close(&found, &outcomes(&engine.json(), 0));

    // Prompts to generate from are token ids, which the engine's route refuses.
    let scored: Vec<&str> = tasks.iter().map(String::as_str).collect();
    let of_server = [
        "--no-text",
        "--json",
        "--server",
        &named,
        "--server-key",
        &key,
    ];
    let report = workshop
        .succeed(&[&["eval"], &scored[..], &of_server].concat())
        .json();
    assert_eq!(report["variants"][0]["name"], "demo (server)");
    assert_close(&outcomes(&report, 0), &outcomes(&report, 1));
    server.stop();

    // Nobody listens there any more.
    let gone = workshop.run(&[&["eval"], &scored[..], &of_server].concat());
    assert_eq!(gone.code, Some(1), "{}", gone.stderr);
    assert!(!gone.stderr.contains("secret"), "{}", gone.stderr);
}

#[test]
fn flags_about_tasks_need_tasks() {
    let workshop = Workshop::new();
    for args in [
        &["--no-text"][..],
        &["--task-limit", "3"],
        &["--backend", "engine"],
        &["--task", "copy", "--server", "a=http://127.0.0.1:9"],
        &["--task", "copy", "--no-text", "--seq-len", "64"],
        &["--task", "copy", "--no-text", "--text", "x.txt"],
        &[
            "--task",
            "copy",
            "--backend",
            "engine",
            "--quantize",
            "q8_0",
        ],
    ] {
        let refused = workshop.run(&[&["eval"], args].concat());
        assert_eq!(refused.code, Some(2), "{args:?}\n{}", refused.stderr);
    }
    let absent = repository("models/demo/none.jsonl");
    let refused = workshop.run(&["eval", "--task", &absent]);
    assert_eq!(refused.code, Some(1), "{}", refused.stderr);
    assert!(refused.stderr.contains("none.jsonl"), "{}", refused.stderr);
}
