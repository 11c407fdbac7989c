//! `serve --learn-from-traffic`: what clients ask becomes a plan, and nothing
//! of it a file.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{json, Value};

use crate::program::Workshop;
use crate::serve::Server;
use crate::variants::{chat, listed, post, Load, QUICK};

/// Is in every prompt, and nowhere else.
const MARK: &str = "quokka-7731";

/// Waits until so many prompts were considered; what is said of the sample.
fn sampled(server: &Server, seen: u64) -> Value {
    let started = Instant::now();
    loop {
        let traffic = server.get("/v1/variants")["traffic"].clone();
        let missed = traffic["missed"].as_u64().unwrap();
        if traffic["seen"].as_u64().unwrap() + missed >= seen {
            return traffic;
        }
        assert!(started.elapsed() < Duration::from_secs(30), "{traffic}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Whether `text` is in any file under `dir`.
fn is_written(dir: &Path, text: &[u8]) -> bool {
    fs::read_dir(dir).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return is_written(&path, text);
        }
        let bytes = fs::read(&path).unwrap();
        bytes.windows(text.len()).any(|window| window == text)
    })
}

/// Asks for text like that of a programmer, which is a part of the demo
/// model's mix.
fn ask_for_code(server: &Server, requests: u64) {
    for index in 0..requests {
        let code = format!("def add_{index}(a, b):\n    # {MARK}\n    return a + b + {index}\n");
        let mut body = chat("default");
        body["max_tokens"] = 1.into();
        body["messages"][0]["content"] = code.repeat(6).into();
        post(server, "/v1/chat/completions", &body, StatusCode::OK);
    }
}

#[test]
fn a_variant_learns_from_requests_that_are_never_written() {
    let workshop = Workshop::new();
    let args = ["--prune-experts", "0.5", "--learn-from-traffic", "2048"];
    let server = Server::start(&workshop, &[&args[..], &QUICK].concat(), None);
    ask_for_code(&server, 12);
    let traffic = sampled(&server, 12);
    assert!(traffic["tokens"].as_u64() > Some(64), "{traffic}");
    assert!(traffic["tokens"].as_u64() <= Some(2048), "{traffic}");
    let before = server.get("/v1/pruning")["plan"].clone();

    let asked = json!({"weight": 20.0});
    let learnt = post(&server, "/v1/recalibrate", &asked, StatusCode::OK);
    let (old, new) = ("demo-reap-0.5", "demo-reap-0.5-traffic-1");
    assert_eq!(learnt["replaced"], old);
    assert_eq!(learnt["model"], new);
    assert_eq!(learnt["sample"]["prompts"], traffic["prompts"]);
    assert_eq!(learnt["diff"]["kind"], "plan_diff");
    assert_eq!(learnt["diff"]["first"]["plan"], old);
    assert_eq!(learnt["diff"]["relation"], "neither");
    let plan = &learnt["plan"];
    assert_eq!(plan["method"], before["method"], "the same budget");
    let domains = plan["stats"]["domains"].as_array().unwrap();
    let traffic = domains.last().unwrap();
    assert_eq!(traffic["name"], "traffic");
    assert!(traffic["coverage"].is_f64(), "{traffic}");
    // As much as 20 times all the other text.
    let mass =
        |domain: &Value| domain["weight"].as_f64().unwrap() * domain["tokens"].as_f64().unwrap();
    let others: f64 = domains[..domains.len() - 1].iter().map(mass).sum();
    assert!((mass(traffic) / others - 20.0).abs() < 1e-6);

    let entries = listed(&server);
    assert_eq!(entries.len(), 1, "{entries:?}");
    let (id, entry) = &entries[0];
    assert_eq!(id, new);
    assert_eq!(entry["source"], "recalibrated");
    assert_eq!(entry["aliases"], json!([old]));
    assert_eq!(entry["experts"], json!(vec![8; 8]));
    assert_eq!(server.get("/v1/pruning")["plan"], *plan);
    for name in ["default", old, new] {
        let answer = post(&server, "/v1/chat/completions", &chat(name), StatusCode::OK);
        assert_eq!(answer["model"], new);
    }
    // The same again changes nothing, so nothing is loaded.
    sampled(&server, 15);
    let again = json!({"weight": 1e-9});
    let first = post(&server, "/v1/recalibrate", &again, StatusCode::OK);
    assert_eq!(first["model"], "demo-reap-0.5-traffic-2");
    let second = post(&server, "/v1/recalibrate", &again, StatusCode::OK);
    assert_eq!(second["replaced"], Value::Null, "{}", second["diff"]);
    assert_eq!(second["diff"]["relation"], "same");

    let said = server.stop();
    assert!(!said.contains(MARK), "{said}");
    assert!(!is_written(&workshop.path("."), MARK.as_bytes()));
}

#[test]
fn no_request_is_lost_while_a_variant_learns() {
    let workshop = Workshop::new();
    let args = ["--variant", "0.5", "--variant", "original", "--no-eval"];
    let sample = ["--learn-from-traffic", "1024"];
    let server = Server::start(&workshop, &[&args[..], &sample, &QUICK[..2]].concat(), None);
    let refused = |body: Value, status: StatusCode, said: &str| {
        let answer = post(&server, "/v1/recalibrate", &body, status);
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(said), "{message}");
    };
    refused(json!({}), StatusCode::CONFLICT, "no request was kept");
    refused(json!({"model": "demo"}), StatusCode::CONFLICT, "as it is");
    refused(json!({"model": "nobody"}), StatusCode::NOT_FOUND, "nobody");
    refused(json!({"weight": 0}), StatusCode::BAD_REQUEST, "above 0");

    ask_for_code(&server, 4);
    sampled(&server, 4);
    let load = Load::start(&server, 3, &["default", "demo-reap-0.5", "demo"]);
    let learnt = post(
        &server,
        "/v1/recalibrate",
        &json!({"weight": 50}),
        StatusCode::OK,
    );
    assert_eq!(learnt["variant"]["default"], true);
    let mut models = load.end();
    models.sort();
    models.dedup();
    let known = ["demo", "demo-reap-0.5", "demo-reap-0.5-traffic-1"];
    assert!(
        models.iter().all(|model| known.contains(&&**model)),
        "{models:?}"
    );
    server.stop();
}

#[test]
fn nothing_is_kept_unless_asked_for() {
    let workshop = Workshop::new();
    let server = Server::start(&workshop, &["--variant", "original"], None);
    assert_eq!(server.get("/v1/variants")["traffic"], Value::Null);
    let refused = post(&server, "/v1/recalibrate", &json!({}), StatusCode::CONFLICT);
    let message = refused["error"]["message"].as_str().unwrap();
    assert!(message.contains("--learn-from-traffic"), "{message}");
    server.stop();

    let text = workshop.arg("a.txt");
    fs::write(&text, "Some text.\n").unwrap();
    let args = ["serve", "--variant", "0.5", "--learn-from-traffic", "64"];
    let text = format!("traffic={text}");
    let refused = workshop.run(&[&args[..], &["--calibration", &text]].concat());
    refused.expect_failure(2, &["--learn-from-traffic", "`traffic`"]);
}
