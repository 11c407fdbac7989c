//! `/v1/completions` with `echo` and `logprobs`: what evaluation harnesses ask.

use candle_core::Device;
use prune_eval::backend::{Backend, Native, TokenScore};
use prune_eval::Variant;
use reqwest::blocking::Client;
use reqwest::StatusCode;
use router_stats::checkpoint::Checkpoint;
use router_stats::forward::Model;
use router_stats::progress::Silent;
use serde_json::{json, Value};

use crate::program::{repository, Workshop};
use crate::serve::Server;

const TEXTS: [&str; 2] = [
    "The little dog ran to the river because he wanted to swim.",
    "What is 17 + 25?",
];

/// What the native forward pass says of the demo model: tokens and scores.
fn native() -> (tokenizers::Tokenizer, Vec<Vec<u32>>, Vec<Vec<TokenScore>>) {
    let checkpoint = Checkpoint::open(repository("models/demo").as_ref()).unwrap();
    let tokenizer = checkpoint.tokenizer().unwrap();
    let model = Model::open(checkpoint.into(), &Device::Cpu).unwrap();
    let variant = Variant {
        name: "demo".to_owned(),
        model: &model,
        keep: None,
    };
    let ids = |text| tokenizer.encode(text, false).unwrap().get_ids().to_vec();
    let prompts: Vec<Vec<u32>> = TEXTS.map(ids).into();
    let mut backend = Native::new(&variant, tokenizer.clone(), &[], 4096);
    let scores = backend.score(&prompts, &Silent).unwrap();
    (tokenizer, prompts, scores)
}

fn echo(prompt: Value, max_tokens: u32, logprobs: u32) -> Value {
    json!({
        "model": "demo", "prompt": prompt, "echo": true, "logprobs": logprobs,
        "max_tokens": max_tokens, "temperature": 0, "seed": 1
    })
}

#[test]
fn an_echo_has_the_log_probabilities_of_the_native_forward() {
    let workshop = Workshop::new();
    let server = Server::start(&workshop, &["--prefix-cache-n", "0"], None);
    let (tokenizer, prompts, scores) = native();

    let ask = |body: &Value| -> Value { server.post("/v1/completions", body).json().unwrap() };
    let of_tokens = ask(&echo(json!(prompts), 1, 3));
    let of_texts = ask(&echo(json!(TEXTS), 1, 3));
    assert_eq!(of_tokens["choices"], of_texts["choices"]);
    assert_eq!(of_tokens["object"], "text_completion");
    assert_eq!(of_tokens["model"], "demo");
    let tokens: usize = prompts.iter().map(Vec::len).sum();
    assert_eq!(
        of_tokens["usage"],
        json!({"prompt_tokens": tokens, "completion_tokens": 2, "total_tokens": tokens + 2})
    );

    for (index, (tokens, scores)) in prompts.iter().zip(&scores).enumerate() {
        let choice = &of_tokens["choices"][index];
        assert_eq!(choice["index"], index);
        let logprobs = &choice["logprobs"];
        for field in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
            let found = logprobs[field].as_array().unwrap().len();
            assert_eq!(found, tokens.len() + 1, "{field}");
        }
        assert!(logprobs["token_logprobs"][0].is_null() && logprobs["top_logprobs"][0].is_null());
        let text = choice["text"].as_str().unwrap();
        assert!(text.starts_with(TEXTS[index]), "{text}");
        for (at, score) in (1..).zip(scores) {
            let name = tokenizer.decode(&[tokens[at]], false).unwrap();
            assert_eq!(logprobs["tokens"][at], name.as_str());
            let ln_p = logprobs["token_logprobs"][at].as_f64().unwrap();
            assert!(
                (ln_p - f64::from(score.ln_p)).abs() < 1e-4,
                "{ln_p} {score:?}"
            );
            let top = logprobs["top_logprobs"][at].as_object().unwrap();
            assert!((3..=4).contains(&top.len()), "{top:?}");
            assert_eq!(top[&name].as_f64(), Some(ln_p));
            let best = top
                .values()
                .filter_map(Value::as_f64)
                .fold(f64::MIN, f64::max);
            assert_eq!(best == ln_p, score.greedy);
        }
        // The token that is added is the most probable one.
        let added = &logprobs["token_logprobs"][tokens.len()];
        let best = logprobs["top_logprobs"][tokens.len()].as_object().unwrap();
        assert_eq!(best.values().next(), Some(added));
    }

    // Nothing is added, and the whole is the prompt.
    let bare = ask(&echo(json!(TEXTS[0]), 0, 0));
    assert_eq!(bare["choices"][0]["text"], TEXTS[0]);
    let found = &bare["choices"][0]["logprobs"]["token_logprobs"];
    let whole = of_texts["choices"][0]["logprobs"]["token_logprobs"]
        .as_array()
        .unwrap();
    assert_eq!(found.as_array().unwrap()[..], whole[..prompts[0].len()]);

    // Other requests are the engine's, beside echoes or between them.
    let plain = json!({"model": "demo", "prompt": TEXTS[0], "max_tokens": 4, "temperature": 0});
    let both = [
        plain.clone(),
        echo(json!(TEXTS), 0, 1),
        plain,
        echo(json!(TEXTS), 0, 1),
    ];
    let answers = both.map(|body| {
        let url = format!("{}/v1/completions", server.url());
        std::thread::spawn(move || -> Value {
            let client = Client::builder().no_proxy().timeout(None).build().unwrap();
            client.post(url).json(&body).send().unwrap().json().unwrap()
        })
    });
    let answers = answers.map(|answer| answer.join().unwrap());
    assert!(answers[0]["choices"][0]["text"].is_string(), "{answers:?}");
    assert_eq!(
        answers[0]["choices"][0]["text"],
        answers[2]["choices"][0]["text"]
    );
    assert_eq!(answers[1]["choices"], answers[3]["choices"]);

    let refused = |change: Value, status: StatusCode, said: &str| {
        let mut body = echo(json!("Once"), 0, 1);
        for (field, value) in change.as_object().unwrap() {
            body[field] = value.clone();
        }
        let response = server.send("/v1/completions", Some(&body), None);
        assert_eq!(response.status(), status, "{change}");
        let answer: Value = response.json().unwrap();
        let error = &answer["error"];
        assert_eq!(error["type"], "invalid_request_error", "{answer}");
        assert!(
            error["message"].as_str().unwrap().contains(said),
            "{answer}"
        );
    };
    refused(json!({"stream": true}), StatusCode::BAD_REQUEST, "`stream`");
    refused(json!({"prompt": ""}), StatusCode::BAD_REQUEST, "`prompt`");
    refused(
        json!({"prompt": [99_999_999]}),
        StatusCode::BAD_REQUEST,
        "99999999",
    );
    refused(json!({"model": "nobody"}), StatusCode::NOT_FOUND, "nobody");
    server.stop();
}

#[test]
fn an_echo_needs_a_key_and_no_prefix_cache() {
    let workshop = Workshop::new();
    let server = Server::start(&workshop, &[], Some("secret"));
    let body = echo(json!("Once"), 0, 1);
    let refused = server.send("/v1/completions", Some(&body), None);
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    let refused = server.send("/v1/completions", Some(&body), Some("secret"));
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    let answer: Value = refused.json().unwrap();
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("--prefix-cache-n 0"), "{message}");
    server.stop();
}
