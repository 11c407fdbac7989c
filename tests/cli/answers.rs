//! What the model answers: choices, seeds, log-probabilities, stop texts, and
//! clients that leave.

use std::io::Write;

use serde_json::{json, Value};

use crate::program::Workshop;
use crate::serve::Server;
use crate::wire;

const PROMPT: &str = "Once upon a time there was a little dog";

fn complete(server: &Server, change: Value) -> Value {
    server
        .post("/v1/completions", &asked(change))
        .json()
        .unwrap()
}

fn asked(change: Value) -> Value {
    let mut body = json!({"prompt": PROMPT, "max_tokens": 12, "temperature": 0});
    for (field, value) in change.as_object().unwrap() {
        body[field] = value.clone();
    }
    body
}

/// The events of a stream, which must end as it should.
fn events(server: &Server, change: Value) -> Vec<Value> {
    let mut body = asked(change);
    body["stream"] = true.into();
    let text = server.post("/v1/completions", &body).text().unwrap();
    let mut data: Vec<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("data: "))
        .collect();
    assert_eq!(data.pop(), Some("[DONE]"), "{text}");
    let parse = |data: &str| serde_json::from_str(data).unwrap();
    data.into_iter().map(parse).collect()
}

/// The text of a choice in a stream, and why it ended.
fn streamed(events: &[Value], index: u64) -> (String, Value) {
    let of = events
        .iter()
        .flat_map(|event| event["choices"].as_array().unwrap());
    let mut text = String::new();
    let mut finish = Value::Null;
    for choice in of.filter(|choice| choice["index"] == index) {
        assert!(finish.is_null(), "more after the end: {choice}");
        text += choice["text"].as_str().unwrap();
        finish = choice["finish_reason"].clone();
    }
    (text, finish)
}

/// The answer to a request from any thread.
fn by_hand(address: &str, change: Value) -> Value {
    let body = asked(change).to_string();
    let request = wire::post(address, "/v1/completions", body.as_bytes());
    let answer = wire::cut(&wire::exchange(address, &request));
    serde_json::from_str(&answer.body).unwrap()
}

#[test]
fn what_openai_has_the_server_has() {
    let workshop = Workshop::new();
    let server = Server::start(&workshop, &[], None);
    let text = |answer: &Value, index: usize| {
        answer["choices"][index]["text"]
            .as_str()
            .unwrap()
            .to_owned()
    };

    // A stream says what the whole answer says, for every choice.
    let plain = complete(&server, json!({}));
    let expected = text(&plain, 0);
    assert_eq!(plain["choices"][0]["finish_reason"], "length");
    assert_eq!(plain["usage"]["completion_tokens"], 12);
    let two = json!({"n": 2, "stream_options": {"include_usage": true}});
    let stream = events(&server, two);
    for index in 0..2 {
        assert_eq!(
            streamed(&stream, index),
            (expected.clone(), json!("length"))
        );
    }
    let usage = &stream.last().unwrap()["usage"];
    assert_eq!(usage["completion_tokens"], 24);
    assert_eq!(usage["prompt_tokens"], plain["usage"]["prompt_tokens"]);

    // A stop text ends both and is in neither.
    let words: Vec<&str> = expected.split(' ').collect();
    let stop = format!("{} {}", words[2], words[3]);
    let before = expected.split(&stop).next().unwrap().to_owned();
    let change = json!({"stop": ["never", stop]});
    let stopped = complete(&server, change.clone());
    assert_eq!(text(&stopped, 0), before);
    assert_eq!(stopped["choices"][0]["finish_reason"], "stop");
    assert_eq!(
        streamed(&events(&server, change), 0),
        (before, json!("stop"))
    );

    // Seeds draw the same again, and choices differ.
    let warm = |seed: i64| json!({"temperature": 1.0, "seed": seed, "n": 2});
    let one = complete(&server, warm(-5));
    let again = complete(&server, warm(-5));
    assert_eq!(one["choices"], again["choices"]);
    assert_ne!(text(&one, 0), text(&one, 1));
    assert_ne!(text(&one, 0), text(&complete(&server, warm(6)), 0));
    let stream = events(&server, warm(-5));
    assert_eq!(streamed(&stream, 1).0, text(&one, 1));

    // Several prompts at once, as texts or tokens, with themselves before.
    let many = complete(&server, json!({"prompt": [PROMPT, "A cat"], "echo": true}));
    assert_eq!(text(&many, 0), format!("{PROMPT}{expected}"));
    assert!(text(&many, 1).starts_with("A cat"));
    let tokens = complete(&server, json!({"prompt": [[10, 11], [12]]}));
    assert_eq!(tokens["usage"]["prompt_tokens"], 3);

    // Biases make a token come, or not.
    let first = complete(&server, json!({"logprobs": 0, "max_tokens": 1}));
    let banned = complete(
        &server,
        json!({"logit_bias": {"300": 100}, "max_tokens": 3}),
    );
    assert_ne!(text(&first, 0), text(&banned, 0));

    let chat = |more: Value| {
        let mut body = json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        server
            .post("/v1/chat/completions", &body)
            .json::<Value>()
            .unwrap()
    };
    let answer = chat(json!({"logprobs": true, "top_logprobs": 2, "seed": 3}));
    let content = answer["choices"][0]["logprobs"]["content"]
        .as_array()
        .unwrap();
    assert!((1..=3).contains(&content.len()), "{answer}");
    for token in content {
        assert!(token["logprob"].as_f64() <= Some(0.0), "{token}");
        assert_eq!(token["top_logprobs"].as_array().unwrap().len(), 2);
    }
    let object = chat(json!({"response_format": {"type": "json_object"}, "max_tokens": 8}));
    let content = object["choices"][0]["message"]["content"].as_str().unwrap();
    assert!(content.starts_with('{'), "{object}");
    server.stop();
}

#[test]
fn log_probabilities_are_those_of_an_echo() {
    let workshop = Workshop::new();
    let server = Server::start(&workshop, &[], None);
    for temperature in [0.0, 1.0] {
        let change = json!({"logprobs": 2, "temperature": temperature, "seed": 1});
        let drawn = complete(&server, change);
        let choice = &drawn["choices"][0];
        // The white space before an answer is not part of it.
        let whole = format!("{PROMPT} {}", choice["text"].as_str().unwrap());
        let echo = json!({"prompt": whole, "echo": true, "logprobs": 2, "max_tokens": 0});
        let echo = complete(&server, echo);
        let echoed = &echo["choices"][0]["logprobs"];
        let (names, values) = (
            echoed["tokens"].as_array().unwrap(),
            echoed["token_logprobs"].as_array().unwrap(),
        );
        let drawn = &choice["logprobs"];
        let count = drawn["tokens"].as_array().unwrap().len();
        assert_eq!(count, 12);
        let start = names.len() - count;
        for index in 0..count {
            assert_eq!(drawn["tokens"][index], names[start + index]);
            let found = drawn["token_logprobs"][index].as_f64().unwrap();
            let expected = values[start + index].as_f64().unwrap();
            assert!((found - expected).abs() < 1e-3, "{found} {expected}");
        }
        assert_eq!(drawn["text_offset"][0], 0);
    }
    server.stop();
}

#[test]
fn a_client_that_leaves_harms_no_other() {
    let workshop = Workshop::new();
    let server = Server::start(&workshop, &[], None);
    let expected = complete(&server, json!({"max_tokens": 40}));
    let address = server.address();
    for round in 0..6 {
        // Of the same length, so that the engine puts them into one batch.
        let leave: Vec<_> = (0..4)
            .map(|index| {
                let body = asked(json!({"max_tokens": 40, "stream": index % 2 == 0}));
                let mut stream = wire::connect(&address);
                let request = wire::post(&address, "/v1/completions", body.to_string().as_bytes());
                stream.write_all(&request).unwrap();
                stream
            })
            .collect();
        std::thread::scope(|scope| {
            let stay: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| by_hand(&address, json!({"max_tokens": 40}))))
                .collect();
            std::thread::sleep(std::time::Duration::from_millis(5 * round));
            drop(leave);
            // A prompt that is scored shares its batch with no one, not even
            // with those that have left.
            let echo = json!({"echo": true, "logprobs": 1, "max_tokens": 0});
            let echo = complete(&server, echo);
            assert!(echo["choices"][0]["logprobs"].is_object(), "{echo}");
            for stay in stay {
                assert_eq!(stay.join().unwrap()["choices"], expected["choices"]);
            }
        });
    }
    let said = server.stop();
    for bad in ["panicked", "rebooting", "Model failed"] {
        assert!(!said.contains(bad), "{said}");
    }
}

#[test]
fn clients_at_the_same_time_get_their_own_answers() {
    let workshop = Workshop::new();
    let server = Server::start(&workshop, &[], None);
    let address = server.address();
    // As long as one another, so that they would be one batch.
    let nouns = ["dog", "cat", "girl", "boy", "king", "fish", "bird", "bear"];
    let ask = &|noun: &str| {
        let prompt = format!("Once upon a time there was a {noun} who");
        by_hand(&address, json!({"prompt": prompt, "max_tokens": 24}))["choices"].clone()
    };
    let alone = nouns.map(ask);
    for _ in 0..3 {
        std::thread::scope(|scope| {
            let together = nouns.map(|noun| scope.spawn(move || ask(noun)));
            for (together, alone) in together.into_iter().zip(&alone) {
                assert_eq!(&together.join().unwrap(), alone);
            }
        });
    }
    server.stop();
    let refused = workshop.run(&["serve", "--port", "0", "--max-seqs", "2"]);
    refused.expect_failure(2, &["--max-seqs: expected 1 on a CPU"]);
}
