//! Against a loopback server of a few lines.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};

use router_stats::progress::Silent;

use super::*;
use crate::backend::testing::{tokenizer, END};

/// What the server is sent.
struct Asked {
    line: String,
    key: Option<String>,
    body: Value,
}

type Answer = Arc<dyn Fn(&Asked) -> (u16, String) + Send + Sync>;

/// Serves until the test ends; gives the address.
fn serve(answer: impl Fn(&Asked) -> (u16, String) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answer: Answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let answer = answer.clone();
            std::thread::spawn(move || while handle(&stream, &answer).is_some() {});
        }
    });
    format!("http://{address}")
}

/// One request of a connection; `None` at its end.
fn handle(stream: &TcpStream, answer: &Answer) -> Option<()> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&n| n > 0)?;
    let (mut length, mut key) = (0, None);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        let Some((name, value)) = header.trim().split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.parse().unwrap(),
            "authorization" => key = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let asked = Asked {
        line: line.trim().to_owned(),
        key,
        body: serde_json::from_slice(&body).unwrap(),
    };
    let (status, text) = answer(&asked);
    let mut stream = stream;
    write!(
        stream,
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{text}",
        text.len()
    )
    .ok()
}

fn http(url: &str) -> Http {
    Http::new(HttpOptions::new(url, "small"), tokenizer(), &[END])
}

/// Answers echo requests: every token has −id/8, an even one is the likeliest.
fn echo(asked: &Asked) -> Value {
    let tokens: Vec<u64> = asked.body["prompt"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap())
        .collect();
    let mut own: Vec<Value> = tokens.iter().map(|&id| (id as f64 / -8.0).into()).collect();
    own[0] = Value::Null;
    let top = |&id: &u64| {
        let above = if id % 2 == 0 { 0.0 } else { 0.01 };
        json!({"other": id as f64 / -8.0 + above})
    };
    let mut top: Vec<Value> = tokens.iter().map(top).collect();
    top[0] = Value::Null;
    own.push((-0.5).into());
    top.push(json!({"x": -0.5}));
    json!({"choices": [{"index": 0, "text": "", "finish_reason": "length",
        "logprobs": {"token_logprobs": own, "top_logprobs": top}}]})
}

fn error_of(answer: impl Fn(&Asked) -> (u16, String) + Send + Sync + 'static) -> Error {
    http(&serve(answer))
        .score(&[vec![1, 2, 3]], &Silent)
        .unwrap_err()
}

#[test]
fn scores_come_back_in_order() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let url = serve(move |asked| {
        let facts = (asked.line.clone(), asked.key.clone(), asked.body.clone());
        log.lock().unwrap().push(facts);
        (200, echo(asked).to_string())
    });
    let sequences: Vec<Vec<u32>> = (0..20).map(|i| (1..3 + i).collect()).collect();
    let mut options = HttpOptions::new(format!("{url}/v1/"), "small");
    options.api_key = Some("secret".to_owned());
    let scores = Http::new(options, tokenizer(), &[END])
        .score(&sequences, &Silent)
        .unwrap();
    assert_eq!(scores.len(), 20);
    for (tokens, scores) in sequences.iter().zip(&scores) {
        assert_eq!(scores.len(), tokens.len() - 1);
        for (&token, score) in tokens[1..].iter().zip(scores) {
            assert_eq!(score.ln_p, token as f32 / -8.0);
            assert_eq!(score.greedy, token % 2 == 0);
        }
    }
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), 20);
    for (line, key, body) in seen.iter() {
        assert_eq!(line, "POST /v1/completions HTTP/1.1");
        assert_eq!(key.as_deref(), Some("Bearer secret"));
        assert_eq!(
            (&body["model"], &body["echo"], &body["logprobs"]),
            (&json!("small"), &json!(true), &json!(1))
        );
        assert_eq!(
            (&body["max_tokens"], &body["temperature"]),
            (&json!(1), &json!(0))
        );
    }
}

#[test]
fn a_server_that_generates_nothing_beside_the_echo_is_as_good() {
    let url = serve(|asked| {
        let mut answer = echo(asked);
        for field in ["token_logprobs", "top_logprobs"] {
            let list = &mut answer["choices"][0]["logprobs"][field];
            list.as_array_mut().unwrap().pop();
        }
        (200, answer.to_string())
    });
    let scores = http(&url).score(&[vec![1, 2, 3]], &Silent).unwrap();
    assert_eq!(scores[0].len(), 2);
}

#[test]
fn generations_end_at_stop_strings() {
    let url = serve(|asked| {
        let text = asked.body["stop"].get(0).map_or(" four", |_| " 4\nQ: more");
        let answer = json!({
            "choices": [{"text": text, "finish_reason": "length"}],
            "usage": {"completion_tokens": 7}
        });
        (200, answer.to_string())
    });
    let prompt = |stop: &[&str], max_tokens| Prompt {
        tokens: vec![1, 2],
        stop: stop.iter().map(|&stop| stop.to_owned()).collect(),
        max_tokens,
    };
    let prompts = [prompt(&["\n"], 9), prompt(&[], 9), prompt(&[], 0)];
    let found = http(&url).generate(&prompts, &Silent).unwrap();
    let expected = [
        (" 4", 7, Finish::Stop),
        (" four", 7, Finish::Length),
        ("", 0, Finish::Length),
    ];
    for (found, (text, tokens, finish)) in found.iter().zip(expected) {
        assert_eq!(
            (found.text.as_str(), found.tokens, found.finish),
            (text, tokens, finish)
        );
    }
}

#[test]
fn a_server_that_refuses_token_ids_is_given_text() {
    let ids = Arc::new(AtomicUsize::new(0));
    let refused = ids.clone();
    let url = serve(move |asked| match asked.body["prompt"].as_str() {
        None => {
            refused.fetch_add(1, Ordering::Relaxed);
            (422, "prompt: expected a string".to_owned())
        }
        Some(prompt) => {
            let answer = json!({"choices": [{"text": prompt, "finish_reason": "stop"}]});
            (200, answer.to_string())
        }
    });
    let tokens = |text: &str| {
        let encoding = tokenizer().encode_fast(text, false).unwrap();
        encoding.get_ids().to_vec()
    };
    let texts = ["<|end|>a b\nxy", " 2 + 2 ="];
    let prompts = texts.map(|text| Prompt {
        tokens: tokens(text),
        stop: Vec::new(),
        max_tokens: 4,
    });
    let mut options = HttpOptions::new(url, "small");
    options.at_once = 1;
    let mut http = Http::new(options, tokenizer(), &[END]);
    for (found, text) in http.generate(&prompts, &Silent).unwrap().iter().zip(texts) {
        assert_eq!((found.text.as_str(), found.finish), (text, Finish::Stop));
        assert_eq!(found.tokens, tokens(text).len());
    }
    assert_eq!(ids.load(Ordering::Relaxed), 1, "asked once");
}

#[test]
fn refusals_say_what_to_do() {
    let message = json!({"error": {"message": "no\nway"}}).to_string();
    let error = error_of(|_| (503, json!({"message": "busy"}).to_string()));
    assert!(error.to_string().contains("found 503: busy"), "{error}");
    for (status, advice) in [
        (401, Some("API key")),
        (404, Some("/v1/models")),
        (500, None),
    ] {
        let body = message.clone();
        let error = error_of(move |_| (status, body.clone()));
        let text = error.to_string();
        assert!(
            text.contains("/v1/completions: expected status 200"),
            "{text}"
        );
        assert!(text.contains(&format!("found {status}: no way")), "{text}");
        assert_eq!(
            error
                .hint()
                .is_some_and(|hint| hint.contains(advice.unwrap_or("?"))),
            advice.is_some()
        );
    }
}

#[test]
fn a_server_without_echo_is_named_as_such() {
    let without = |logprobs: Value| {
        let error = error_of(move |_| {
            let answer = json!({"choices": [{"text": " x", "logprobs": logprobs}]});
            (200, answer.to_string())
        });
        assert!(error.hint().unwrap().contains("echo"), "{error}");
        error.to_string()
    };
    let text = without(Value::Null);
    assert!(
        text.contains("expected `logprobs.token_logprobs` of 3 tokens") && text.contains("null"),
        "{text}"
    );
    let only_generated = json!({"token_logprobs": [-0.5], "top_logprobs": [{"x": -0.5}]});
    assert!(without(only_generated).contains("found 1 entries"));
    let too_many = json!({"token_logprobs": [null, -1, -1, -1, -1], "top_logprobs": []});
    assert!(without(too_many).contains("found 5 entries"));
    let no_top = json!({"token_logprobs": [null, -1, -1], "top_logprobs": null});
    assert!(without(no_top).contains("`logprobs.top_logprobs`"));
    let holes = json!({"token_logprobs": [null, null, -1], "top_logprobs": [null, {}, {}]});
    assert!(without(holes).contains("at most 0, found null"));
    let probabilities = json!({"token_logprobs": [null, 0.5, -1], "top_logprobs": [null, {}, {}]});
    assert!(without(probabilities).contains("at most 0, found 0.5"));
}

#[test]
fn answers_that_are_not_completions_are_refused() {
    let error = error_of(|_| (200, "<html>".to_owned())).to_string();
    assert!(
        error.contains("expected JSON") && error.contains("<html>"),
        "{error}"
    );
    let error = error_of(|_| (200, "{\"choices\": []}".to_owned())).to_string();
    assert!(error.contains("`choices`"), "{error}");
}

#[test]
fn a_refused_connection_is_an_error() {
    // A port that was just free.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut http = http(&format!("http://{address}"));
    let error = http.score(&[vec![1, 2]], &Silent).unwrap_err();
    assert!(
        error.to_string().contains("a server that answers"),
        "{error}"
    );
    assert!(error.hint().unwrap().contains("address"));
}

#[test]
fn an_error_ends_the_work() {
    let count = Arc::new(AtomicUsize::new(0));
    let served = count.clone();
    let url = serve(move |_| {
        served.fetch_add(1, Ordering::Relaxed);
        (500, String::new())
    });
    let sequences = vec![vec![1, 2]; 500];
    let error = http(&url).score(&sequences, &Silent).unwrap_err();
    assert!(error.to_string().contains("500: nothing"), "{error}");
    assert!(count.load(Ordering::Relaxed) < 100);
}
