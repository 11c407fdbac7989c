//! What a server tells of itself: the log, counters, status and documentation.

use serde_json::{json, Value};

use crate::program::Workshop;
use crate::serve::Server;

#[test]
fn requests_are_logged_and_counted_without_their_words() {
    let workshop = Workshop::new();
    let mut server = Server::start(&workshop, &["--log-format", "json"], None);
    let body = json!({"prompt": "Zanzibar", "max_tokens": 4, "temperature": 0});
    let response = server.post("/v1/completions", &body);
    let id = response.headers()["x-request-id"]
        .to_str()
        .unwrap()
        .to_owned();
    let answer: Value = response.json().unwrap();
    let line = server.wait_for(&id);
    let entry: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(entry["route"], "/v1/completions");
    assert_eq!(
        (&entry["method"], &entry["status"]),
        (&json!("POST"), &json!(200))
    );
    assert_eq!(entry["prompt_tokens"], answer["usage"]["prompt_tokens"]);
    assert_eq!(entry["completion_tokens"], 4);
    assert_eq!(entry["cut"], false);
    assert!(
        entry["first_token_ms"].as_u64() <= entry["ms"].as_u64(),
        "{entry}"
    );

    server.send("/no/such/Zanzibar?q=Zanzibar", None, None);
    let line = server.wait_for("404");
    assert_eq!(
        serde_json::from_str::<Value>(&line).unwrap()["route"],
        "other"
    );
    assert!(!server.said().contains("Zanzibar"));

    let status = server.get("/v1/status");
    assert_eq!(status["model"], "demo");
    assert_eq!(status["tokens"]["completion"], 4);
    assert_eq!(
        (&status["in_flight"], &status["queued"]),
        (&json!(0), &json!(0))
    );
    assert!(
        status["resident_bytes"].as_u64() > Some(1 << 20),
        "{status}"
    );
    assert!(status["uptime_s"].as_f64() > Some(0.0), "{status}");
    let metrics = server.send("/metrics", None, None);
    assert!(metrics.headers()["content-type"]
        .to_str()
        .unwrap()
        .contains("version=0.0.4"));
    let metrics = metrics.text().unwrap();
    for line in [
        "mistralrs_prune_completion_tokens_total 4",
        "mistralrs_prune_requests_total{route=\"/v1/completions\",status=\"200\"} 1",
        "mistralrs_prune_first_token_seconds_count 1",
        "mistralrs_prune_in_flight 0",
    ] {
        assert!(metrics.contains(line), "no {line} in\n{metrics}");
    }
    server.stop();
}

#[test]
fn the_documentation_is_of_the_routes_that_there_are() {
    let workshop = Workshop::new();
    let server = Server::start(&workshop, &["--log-format", "none"], None);
    let document = server.get("/openapi.json");
    let page = server.send("/docs", None, None);
    let policy = page.headers()["content-security-policy"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(policy.contains("default-src 'none'"), "{policy}");
    let page = page.text().unwrap();
    for (path, methods) in document["paths"].as_object().unwrap() {
        assert!(page.contains(path.as_str()), "{path}");
        for method in methods.as_object().unwrap().keys() {
            let real = path.replace("{model}", "demo").replace("{id}", "nobody");
            let url = format!("{}{real}", server.url());
            let method = method.to_uppercase().parse().unwrap();
            let request = reqwest::blocking::Client::new().request(method, url);
            let answer = request.json(&json!({"not": "asked"})).send().unwrap();
            let status = answer.status().as_u16();
            let said = answer.text().unwrap();
            assert!(
                status != 405 && !said.contains("Not Found"),
                "{path}: {status} {said}"
            );
        }
    }
    let said = server.stop();
    assert!(!said.contains("/openapi.json"), "{said}");
}
