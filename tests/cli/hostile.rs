//! Input that means no good, and the answer each gets.
//!
//! `docs/reliability.md` has these cases as tables; a test holds them equal.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::{json, Value};

use crate::program::{repository, Workshop};
use crate::serve::Server;
use crate::wire;

/// What is said in the document of one case: the input and its answer.
struct Row(String, String);

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "| {} | {} |", self.0, self.1)
    }
}

/// Fails unless the document has every row.
fn check(rows: &[Row]) {
    let path = repository("docs/reliability.md");
    let document = std::fs::read_to_string(path).unwrap_or_default();
    let missing: Vec<String> = rows
        .iter()
        .map(ToString::to_string)
        .filter(|row| !document.lines().any(|line| line == row))
        .collect();
    assert!(
        missing.is_empty(),
        "not in docs/reliability.md:\n{}",
        missing.join("\n")
    );
}

/// Bodies to a route of the model, with the status that each gets.
fn bodies() -> Vec<(&'static str, &'static str, Vec<u8>, u16)> {
    let chat = |change: Value| {
        let mut body = json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1});
        body.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        body.to_string().into_bytes()
    };
    let text = |change: Value| {
        let mut body = json!({"prompt": "Hi", "max_tokens": 1});
        body.as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        body.to_string().into_bytes()
    };
    let image = |url: &str| {
        let part = json!({"type": "image_url", "image_url": {"url": url}});
        json!({"messages": [{"role": "user", "content": [part]}]})
    };
    let long = "word ".repeat(4000);
    const CHAT: &str = "/v1/chat/completions";
    const TEXT: &str = "/v1/completions";
    vec![
        (
            "a path as the name of a model",
            CHAT,
            chat(json!({"model": "../../etc/passwd"})),
            404,
        ),
        (
            "a model that is a number",
            CHAT,
            chat(json!({"model": 3})),
            400,
        ),
        ("a file as an image", CHAT, chat(image("/etc/passwd")), 400),
        (
            "an address of the network as an image",
            CHAT,
            chat(image("http://169.254.169.254/")),
            400,
        ),
        (
            "a search of the web",
            CHAT,
            chat(json!({"web_search_options": {}})),
            400,
        ),
        ("no messages", CHAT, chat(json!({"messages": []})), 400),
        (
            "messages that are a number",
            CHAT,
            chat(json!({"messages": 3})),
            400,
        ),
        (
            "a message without a role",
            CHAT,
            chat(json!({"messages": [{"content": "Hi"}]})),
            400,
        ),
        (
            "a message without content",
            CHAT,
            chat(json!({"messages": [{"role": "user"}]})),
            400,
        ),
        (
            "a response format that is unknown",
            CHAT,
            chat(json!({"response_format": {"type": "xml"}})),
            400,
        ),
        (
            "tools that are a text",
            CHAT,
            chat(json!({"tools": "all"})),
            400,
        ),
        (
            "`top_logprobs` of a thousand",
            CHAT,
            chat(json!({"logprobs": true, "top_logprobs": 1000})),
            400,
        ),
        ("an unknown field", CHAT, chat(json!({"sudo": true})), 200),
        (
            "a field twice",
            TEXT,
            br#"{"prompt":"Hi","max_tokens":9,"max_tokens":1}"#.to_vec(),
            200,
        ),
        (
            "a null character in the prompt",
            TEXT,
            text(json!({"prompt": "a\u{0}b"})),
            200,
        ),
        ("no prompt", TEXT, text(json!({"prompt": null})), 400),
        ("an empty prompt", TEXT, text(json!({"prompt": ""})), 400),
        (
            "a token that the model does not have",
            TEXT,
            text(json!({"prompt": [1, 4_000_000_000u32]})),
            400,
        ),
        (
            "a thousand prompts",
            TEXT,
            text(json!({"prompt": vec!["a"; 1000]})),
            400,
        ),
        (
            "a prompt longer than the context",
            TEXT,
            text(json!({"prompt": long})),
            400,
        ),
        (
            "`max_tokens` of 10¹⁸ on a full context",
            TEXT,
            text(json!({"prompt": vec![300; 2045], "max_tokens": 10u64.pow(18)})),
            200,
        ),
        (
            "`max_tokens` below zero",
            TEXT,
            text(json!({"max_tokens": -1})),
            400,
        ),
        (
            "`max_tokens` beyond 64 bits",
            TEXT,
            br#"{"prompt":"Hi","max_tokens":1e30}"#.to_vec(),
            400,
        ),
        ("`n` of 10⁹", TEXT, text(json!({"n": 1_000_000_000})), 400),
        ("`n` of 0", TEXT, text(json!({"n": 0})), 400),
        (
            "`best_of` of 10⁹",
            TEXT,
            text(json!({"best_of": 1_000_000_000})),
            400,
        ),
        ("a `suffix`", TEXT, text(json!({"suffix": "end"})), 400),
        (
            "a temperature in words",
            TEXT,
            text(json!({"temperature": "hot"})),
            400,
        ),
        (
            "a temperature below zero",
            TEXT,
            text(json!({"temperature": -1})),
            400,
        ),
        (
            "`top_p` of 0",
            TEXT,
            text(json!({"top_p": 0, "temperature": 1})),
            200,
        ),
        ("`top_p` of 7", TEXT, text(json!({"top_p": 7})), 400),
        ("an empty stop text", TEXT, text(json!({"stop": ""})), 400),
        (
            "a thousand stop texts",
            TEXT,
            text(json!({"stop": vec!["a"; 1000]})),
            400,
        ),
        ("a seed in words", TEXT, text(json!({"seed": "lucky"})), 400),
        (
            "a bias without bounds",
            TEXT,
            text(json!({"logit_bias": {"5": 1e300}})),
            400,
        ),
        (
            "a bias of a word",
            TEXT,
            text(json!({"logit_bias": {"dog": 1}})),
            400,
        ),
        (
            "`stream` in words",
            TEXT,
            text(json!({"stream": "yes"})),
            400,
        ),
        (
            "a grammar that is none",
            TEXT,
            text(json!({"grammar": {"type": "regex", "value": "("}})),
            400,
        ),
        (
            "100,000 nested lists",
            TEXT,
            "[".repeat(100_000).into_bytes(),
            400,
        ),
        (
            "1,000 nested objects in an unknown field",
            TEXT,
            format!(
                "{{\"prompt\":\"Hi\",\"x\":{}1{}}}",
                "{\"a\":".repeat(1000),
                "}".repeat(1000)
            )
            .into_bytes(),
            400,
        ),
        (
            "invalid UTF-8",
            TEXT,
            b"{\"prompt\":\"\xff\xfe\"}".to_vec(),
            400,
        ),
        (
            "half a surrogate pair",
            TEXT,
            br#"{"prompt":"\ud83d"}"#.to_vec(),
            400,
        ),
        ("no JSON", TEXT, b"prompt=Hi".to_vec(), 400),
        ("a list", TEXT, b"[]".to_vec(), 400),
        ("nothing", TEXT, Vec::new(), 400),
        ("a body of 9 MB", TEXT, vec![b' '; 9_000_000], 413),
    ]
}

#[test]
fn bodies_that_mean_no_good() {
    let workshop = Workshop::new();
    let server = Server::start(&workshop, &[], None);
    let address = server.address();
    let mut rows = Vec::new();
    for (input, path, body, status) in bodies() {
        let answer = wire::cut(&wire::exchange(
            &address,
            &wire::post(&address, path, &body),
        ));
        assert_eq!(answer.status, status, "{input}: {}", answer.body);
        let json: Value = serde_json::from_str(&answer.body).unwrap();
        let said = if status == 200 {
            assert!(json["choices"].is_array(), "{input}: {json}");
            json["choices"][0]["finish_reason"]
                .as_str()
                .unwrap()
                .to_owned()
        } else {
            let error = &json["error"];
            for field in ["type", "param", "code"] {
                assert!(error.get(field).is_some(), "{input}: {json}");
            }
            error["message"].as_str().unwrap().to_owned()
        };
        rows.push(Row(
            input.to_owned(),
            format!("{status}: {}", said.replace('|', "\\|")),
        ));
    }
    alive(&server);
    check(&rows);
    let said = server.stop();
    for bad in ["panicked", "rebooting", "Model failed"] {
        assert!(!said.contains(bad), "{said}");
    }
}

/// Bytes on the wire, with the status lines that they get.
fn bytes(host: &str) -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let get = |more: &str| format!("GET /health HTTP/1.1\r\nHost: {host}\r\n{more}\r\n");
    let post = |more: &str, body: &str| {
        let json = "Content-Type: application/json\r\n";
        format!("POST /v1/completions HTTP/1.1\r\nHost: {host}\r\n{json}{more}\r\n{body}")
    };
    let body = r#"{"prompt":"Hi","max_tokens":1}"#;
    let length = format!("Content-Length: {}\r\n", body.len());
    let close = "Connection: close\r\n";
    let cases = vec![
        ("a header of 1 MB", get(&format!("X-A: {}\r\n", "a".repeat(1 << 20))), "431"),
        ("1,000 headers", get(&"X-A: a\r\n".repeat(1000)), "431"),
        ("a path of 100 kB", format!("GET /{} HTTP/1.1\r\nHost: {host}\r\n\r\n", "a".repeat(100_000)), "431"),
        ("a carriage return in a header", get("X-A: a\rb\r\n"), "400"),
        ("a null character in a header", get("X-A: a\0b\r\n"), "400"),
        ("a header without a name", get(": a\r\n"), "400"),
        ("a space before the colon", get("Content-Length : 3\r\n"), "400"),
        ("a line end and a header in a value", get(&format!("X-Request-Id: a\r\nSet-Cookie: b\r\n{close}")), "200"),
        ("another name of the host", format!("GET /health HTTP/1.1\r\nHost: evil.example\r\n{close}\r\n"), "403"),
        ("two names of the host", get(&format!("Host: evil.example\r\n{close}")), "403"),
        ("another name in the target", format!("GET http://evil.example/health HTTP/1.1\r\nHost: {host}\r\n{close}\r\n"), "403"),
        ("no name of the host (HTTP/1.0)", "GET /health HTTP/1.0\r\n\r\n".to_owned(), "200"),
        ("two requests at once", format!("{}{}", get(""), get(close)), "200, 200"),
        ("two lengths of a body", post(&format!("{length}Content-Length: 1\r\n{close}"), body), "400"),
        ("a length and chunks, the smuggling of a request", post(&format!("{length}Transfer-Encoding: chunked\r\n"), &format!("0\r\n\r\n{}", get(close))), "400"),
        ("an unknown encoding of a body", post(&format!("Transfer-Encoding: xchunked\r\n{close}"), body), "400"),
        ("a chunk of 2⁶⁸ bytes", post("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\n"), "400"),
        ("a length below zero", post(&format!("Content-Length: -1\r\n{close}"), body), "400"),
        ("a length in words", post(&format!("Content-Length: all\r\n{close}"), body), "400"),
        ("a body shorter than its length", post("Content-Length: 1000\r\n", body), "400"),
        ("a body longer than its length", post("Content-Length: 2\r\n", body), "400, 400"),
        ("another media type", format!("POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/plain\r\n{length}{close}\r\n{body}"), "415"),
        ("a route that is not", format!("GET /../../etc/passwd HTTP/1.1\r\nHost: {host}\r\n{close}\r\n"), "404"),
        ("a method that is not", format!("BREW /health HTTP/1.1\r\nHost: {host}\r\n{close}\r\n"), "405"),
        ("requantising the model (a route of mistral.rs)", format!("POST /re_isq HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n{close}\r\n"), "404"),
        ("unloading the model (a route of mistral.rs)", format!("POST /v1/models/unload HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n{close}\r\n"), "405"),
        ("the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), "closed"),
    ];
    let mut cases: Vec<_> = cases
        .into_iter()
        .map(|(input, text, status)| (input, text.into_bytes(), status))
        .collect();
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
    cases.push(("a TLS handshake", hello, "400"));
    cases.push((
        "random bytes",
        (0..=255).cycle().take(4096).collect(),
        "400",
    ));
    cases
}

#[test]
fn bytes_that_mean_no_good() {
    let workshop = Workshop::new();
    let server = Server::start(&workshop, &[], None);
    let address = server.address();
    let mut rows = Vec::new();
    let mut wrong = Vec::new();
    for (input, bytes, expected) in bytes(&address) {
        let started = Instant::now();
        let answer = if input.contains("shorter") {
            wire::cut_short(&address, &bytes)
        } else {
            wire::raw(&address, &bytes)
        };
        assert!(started.elapsed() < Duration::from_secs(10), "{input}");
        assert!(!answer.to_lowercase().contains("set-cookie"), "{answer}");
        let statuses: Vec<&str> = answer
            .split("HTTP/1.")
            .skip(1)
            .filter_map(|it| it.split(' ').nth(1))
            .map(str::trim)
            .collect();
        let found = match &statuses[..] {
            [] => "closed".to_owned(),
            statuses => statuses.join(", "),
        };
        if expected != found {
            wrong.push(format!(
                "{input}: expected {expected}, found {found}: {answer:.300}"
            ));
        }
        rows.push(Row(input.to_owned(), found));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    alive(&server);
    check(&rows);
    server.stop();
}

#[test]
fn headers_that_do_not_end_are_not_waited_for() {
    let workshop = Workshop::new();
    let server = Server::start(&workshop, &[], None);
    let mut streams: Vec<_> = (0..50).map(|_| wire::connect(&server.address())).collect();
    let started = Instant::now();
    let mut open = streams.len();
    while open > 0 {
        assert!(
            started.elapsed() < Duration::from_secs(40),
            "{open} are open"
        );
        // A byte a second each; a closed connection refuses sooner or later.
        streams.retain_mut(|stream| stream.write_all(b"X").is_ok());
        open = streams.len();
        alive(&server);
        std::thread::sleep(Duration::from_secs(1));
    }
    server.stop();
}

/// Others are answered as ever.
fn alive(server: &Server) {
    let body = json!({"prompt": "Once upon a time", "max_tokens": 2, "temperature": 0});
    let answer: Value = server.post("/v1/completions", &body).json().unwrap();
    assert_eq!(answer["usage"]["completion_tokens"], 2, "{answer}");
}
