//! Who may ask: keys, addresses, names and other web pages.

use std::net::TcpListener;

use reqwest::StatusCode;
use serde_json::{json, Value};

use crate::program::Workshop;
use crate::serve::Server;
use crate::wire;

#[test]
fn a_key_is_asked_for_everywhere_but_where_nothing_is_told() {
    let workshop = Workshop::new();
    let file = workshop.path("key");
    std::fs::write(&file, "secret\n").unwrap();
    let file = file.display().to_string();
    let server = Server::start(&workshop, &["--api-key-file", &file], None);
    for path in ["/health", "/docs", "/openapi.json", "/assets/docs.css"] {
        let open = server.send(path, None, None);
        assert_eq!(open.status(), StatusCode::OK, "{path}");
    }
    for path in [
        "/v1/models",
        "/v1/pruning",
        "/v1/status",
        "/metrics",
        "/other",
    ] {
        for key in [None, Some("wrong"), Some("secretive"), Some("")] {
            let refused = server.send(path, None, key);
            assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{path} {key:?}");
            assert_eq!(refused.headers()["www-authenticate"], "Bearer");
            let error: Value = refused.json().unwrap();
            assert_eq!(error["error"]["code"], "invalid_api_key");
        }
    }
    let prompt = json!({"prompt": "Once", "max_tokens": 1});
    let refused = server.send("/v1/completions", Some(&prompt), None);
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    let answered = server.send("/v1/completions", Some(&prompt), Some("secret"));
    assert_eq!(answered.status(), StatusCode::OK);
    // What is said of the file is advice, not the key.
    let said = server.said();
    assert!(!said.contains("secret"), "{said}");
    server.stop();
}

#[test]
fn others_are_let_in_only_with_a_key_or_knowingly() {
    let workshop = Workshop::new();
    let refused = workshop.run(&["serve", "--port", "0", "--host", "0.0.0.0"]);
    refused.expect_failure(
        2,
        &["--host 0.0.0.0", "--api-key-file", "hint:", "--no-auth"],
    );
    assert!(!workshop.path("cache").exists());
    let refused = workshop.run(&["serve", "--no-auth", "--api-key", "secret"]);
    assert_eq!(refused.code, Some(2), "{}", refused.stderr);
    for key in ["two words", "ключ"] {
        let refused = workshop.run(&["serve", "--port", "0", "--api-key", key]);
        refused.expect_failure(2, &["--api-key: expected a key"]);
        assert!(!refused.stderr.contains(key));
    }
    let absent = workshop.arg("absent");
    let refused = workshop.run(&["serve", "--port", "0", "--api-key-file", &absent]);
    refused.expect_failure(1, &[&absent, "hint:"]);
    let refused = workshop.run(&["serve", "--port", "0", "--allow-origin", "chat.example"]);
    refused.expect_failure(2, &["--allow-origin", "https://chat.example"]);

    // Any name will do for a server that others reach.
    let server = Server::start(&workshop, &["--host", "0.0.0.0", "--no-auth"], None);
    let port = server.url().rsplit_once(':').unwrap().1.to_owned();
    let asked = format!("GET /health HTTP/1.1\r\nHost: any.example:{port}\r\n\r\n");
    let answer = wire::exchange(&format!("127.0.0.1:{port}"), asked.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    server.stop();
}

#[test]
fn a_page_elsewhere_is_kept_out_unless_it_is_named() {
    let workshop = Workshop::new();
    let address = |server: &Server| server.url().trim_start_matches("http://").to_owned();
    let ask = |server: &Server, more: &str| {
        let address = address(server);
        let request = format!("GET /v1/models HTTP/1.1\r\nHost: {address}\r\n{more}\r\n");
        wire::exchange(&address, request.as_bytes()).to_lowercase()
    };
    let server = Server::start(&workshop, &[], None);
    let answer = ask(&server, "Origin: https://chat.example\r\n");
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
    assert!(!answer.contains("access-control"), "{answer}");
    // A name that another page had resolve to this machine.
    let rebound = "GET /v1/models HTTP/1.1\r\nHost: chat.example\r\n\r\n";
    let answer = wire::exchange(&address(&server), rebound.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert!(answer.contains("host_not_allowed"), "{answer}");
    server.stop();

    let args = [
        "--allow-origin",
        "https://chat.example",
        "--api-key",
        "secret",
    ];
    let server = Server::start(&workshop, &args, None);
    let allowed = "access-control-allow-origin: https://chat.example";
    let answer = ask(&server, "Origin: https://chat.example\r\n");
    // A page is told why it is refused.
    assert!(answer.starts_with("http/1.1 401"), "{answer}");
    assert!(answer.contains(allowed), "{answer}");
    let other = ask(&server, "Origin: https://evil.example\r\n");
    assert!(!other.contains("access-control-allow-origin"), "{other}");
    let address = address(&server);
    let preflight = format!(
        "OPTIONS /v1/completions HTTP/1.1\r\nHost: {address}\r\nOrigin: https://chat.example\r\n\
         Access-Control-Request-Method: POST\r\n\
         Access-Control-Request-Headers: authorization,content-type,x-stainless-os\r\n\r\n"
    );
    let answer = wire::exchange(&address, preflight.as_bytes()).to_lowercase();
    assert!(answer.starts_with("http/1.1 200"), "{answer}");
    assert!(
        answer.contains(allowed) && answer.contains("x-stainless-os"),
        "{answer}"
    );
    server.stop();
}

#[test]
fn a_port_that_is_taken_is_known_before_the_key() {
    let workshop = Workshop::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let refused = workshop.run(&["serve", "--port", &port, "--api-key", "a b"]);
    refused.expect_failure(1, &[&port]);
}
