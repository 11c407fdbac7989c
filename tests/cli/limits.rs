//! How much may be asked for, and how a server stops.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{json, Value};

use crate::program::Workshop;
use crate::serve::Server;
use crate::wire;

/// An answer that goes on for a while: what comes first is never drawn.
fn long(stream: bool) -> Value {
    json!({"prompt": "Once upon a time", "max_tokens": 2000, "temperature": 0, "stream": stream,
           "logit_bias": {"0": -100, "1": -100, "2": -100, "3": -100}})
}

/// Opens a connection and asks; the answer is not read.
fn ask(server: &Server, body: &Value) -> std::net::TcpStream {
    let address = server.address();
    let mut stream = wire::connect(&address);
    let request = wire::post(&address, "/v1/completions", body.to_string().as_bytes());
    stream.write_all(&request).unwrap();
    stream
}

/// Waits until `/v1/status` says so.
fn wait_for(server: &Server, field: &str, value: u64) {
    let started = Instant::now();
    while server.get("/v1/status")[field] != value {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "{field} is not {value}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn who_comes_too_late_or_with_too_much_is_told_so() {
    let workshop = Workshop::new();
    let args = ["--max-seqs", "1", "--max-queue", "1", "--max-body", "2kB"];
    let server = Server::start(&workshop, &args, None);

    let large = json!({"prompt": "x".repeat(4000), "max_tokens": 1});
    let refused = server.send("/v1/completions", Some(&large), None);
    assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let error: Value = refused.json().unwrap();
    assert_eq!(error["error"]["code"], "body_too_large");

    let running = ask(&server, &long(true));
    wait_for(&server, "in_flight", 1);
    let waiting = ask(&server, &long(false));
    wait_for(&server, "queued", 1);
    let refused = server.send("/v1/completions", Some(&long(false)), None);
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let seconds: u64 = refused.headers()["retry-after"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((1..=60).contains(&seconds));
    let error: Value = refused.json().unwrap();
    assert_eq!(error["error"]["type"], "rate_limit_error");
    // What is not for the model is answered all the same.
    assert_eq!(server.send("/health", None, None).status(), StatusCode::OK);

    // Clients that leave make room, also in the queue.
    drop(waiting);
    wait_for(&server, "queued", 0);
    drop(running);
    wait_for(&server, "in_flight", 0);
    let short = json!({"prompt": "Once", "max_tokens": 1});
    server.post("/v1/completions", &short);
    let metrics = server.send("/metrics", None, None).text().unwrap();
    for line in [
        "mistralrs_prune_rejected_total{reason=\"queue\"} 1",
        "mistralrs_prune_rejected_total{reason=\"body\"} 1",
        "mistralrs_prune_requests_total{route=\"/v1/completions\",status=\"429\"} 1",
    ] {
        assert!(metrics.contains(line), "no {line} in\n{metrics}");
    }
    let refused = workshop.run(&["serve", "--max-body", "much"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    server.stop();
}

#[test]
fn an_answer_that_takes_too_long_ends_with_an_error() {
    let workshop = Workshop::new();
    let server = Server::start(&workshop, &["--request-timeout", "1"], None);
    let whole = server.send("/v1/completions", Some(&long(false)), None);
    assert_eq!(whole.status(), StatusCode::GATEWAY_TIMEOUT);
    let error: Value = whole.json().unwrap();
    assert_eq!(error["error"]["code"], "timeout");
    let stream = server.post("/v1/completions", &long(true)).text().unwrap();
    let last = stream
        .lines()
        .rfind(|line| line.starts_with("data:"))
        .unwrap();
    let last: Value = serde_json::from_str(&last["data:".len()..]).unwrap();
    assert_eq!(last["error"]["code"], "timeout", "{last}");
    wait_for(&server, "in_flight", 0);
    server.stop();
}

#[test]
fn a_server_that_stops_finishes_what_it_has_begun() {
    let workshop = Workshop::new();
    let server = Server::start(&workshop, &[], None);
    let address = server.address();
    let mut body = long(true);
    body["max_tokens"] = 300.into();
    let mut stream = ask(&server, &body);
    let idle = wire::connect(&address);
    let mut begun = [0; 64];
    stream.read_exact(&mut begun).unwrap();
    server.interrupt();
    let rest = wire::read(&mut stream);
    assert!(rest.contains("data: [DONE]"), "{rest}");
    assert!(rest.contains("\"finish_reason\":\"length\""), "{rest}");
    let said = server.finish(0);
    assert!(said.contains("Stopped"), "{said}");
    assert!(!said.contains("cut short"), "{said}");
    drop(idle);
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn a_second_interrupt_ends_it_at_once() {
    let workshop = Workshop::new();
    let mut server = Server::start(&workshop, &[], None);
    let _stream = ask(&server, &long(true));
    wait_for(&server, "in_flight", 1);
    server.interrupt();
    server.wait_for("Stopping");
    server.interrupt();
    let started = Instant::now();
    server.finish(130);
    assert!(started.elapsed() < Duration::from_secs(5));
}
