//! `serve --variant`: several variants of a model behind one address, added,
//! replaced and removed while requests run.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::thread::JoinHandle;

use reqwest::blocking::{Client, Response};
use reqwest::{Method, StatusCode};
use serde_json::{json, Value};

use crate::program::{repository, Workshop};
use crate::serve::Server;

/// What makes the demo model's calibration and evaluation quick.
pub(crate) const QUICK: [&str; 6] = [
    "--calibration-tokens",
    "4096",
    "--eval-tokens",
    "4096",
    "--seq-len",
    "256",
];

fn client() -> Client {
    let client = Client::builder().no_proxy().timeout(None);
    client.build().unwrap()
}

pub(crate) fn ask(server: &Server, method: Method, path: &str, body: Option<&Value>) -> Response {
    let mut request = client().request(method, format!("{}{path}", server.url()));
    if let Some(body) = body {
        request = request.json(body);
    }
    request.send().unwrap()
}

/// The answer, which has this status.
pub(crate) fn answered(response: Response, status: StatusCode) -> Value {
    let found = response.status();
    let text = response.text().unwrap();
    assert_eq!(found, status, "{text}");
    serde_json::from_str(&text).unwrap()
}

pub(crate) fn post(server: &Server, path: &str, body: &Value, status: StatusCode) -> Value {
    answered(ask(server, Method::POST, path, Some(body)), status)
}

pub(crate) fn chat(model: &str) -> Value {
    json!({
        "model": model, "max_tokens": 8, "temperature": 0.0,
        "messages": [{"role": "user", "content": "Tell me a story."}],
    })
}

/// The entries of `/v1/variants` by their ids.
pub(crate) fn listed(server: &Server) -> Vec<(String, Value)> {
    let list = server.get("/v1/variants");
    assert_eq!(list["object"], "list");
    let entries = list["data"].as_array().unwrap();
    let named = |entry: &Value| (entry["id"].as_str().unwrap().to_owned(), entry.clone());
    entries.iter().map(named).collect()
}

fn ids(server: &Server) -> Vec<String> {
    listed(server).into_iter().map(|(id, _)| id).collect()
}

#[test]
fn requests_choose_among_variants_that_one_calibration_made() {
    let workshop = Workshop::new();
    let more = ["--variant", "0.25", "--variant", "original"];
    let args = [&["--prune-experts", "0.5"][..], &more, &QUICK].concat();
    let server = Server::start(&workshop, &args, None);
    let all = ["demo-reap-0.5", "demo-reap-0.25", "demo"];
    assert_eq!(ids(&server), all);

    let models = server.get("/v1/models");
    let named = models["data"].as_array().unwrap().iter();
    let named: Vec<_> = named.map(|model| model["id"].as_str().unwrap()).collect();
    assert_eq!(named, [&["default"], &all[..]].concat());
    assert_eq!(server.get("/v1/models/demo")["id"], "demo");

    for (id, experts) in all.into_iter().zip([8, 12, 16]) {
        let answer = post(&server, "/v1/chat/completions", &chat(id), StatusCode::OK);
        assert_eq!(answer["model"], id);
        let echo =
            json!({"model": id, "prompt": "Once", "echo": true, "logprobs": 1, "max_tokens": 0});
        let answer = post(&server, "/v1/completions", &echo, StatusCode::OK);
        assert_eq!(answer["model"], id);
        let pruning = server.get(&format!("/v1/pruning?model={id}"));
        assert_eq!(pruning["model"], id);
        assert_eq!(pruning["pruned"], experts < 16);
        let entries = listed(&server);
        let (_, entry) = entries.iter().find(|(name, _)| name == id).unwrap();
        assert_eq!(entry["experts"], json!(vec![experts; 8]), "{entry}");
        assert_eq!(entry["default"], id == all[0]);
        assert_eq!(entry["perplexity_change"]["value"].is_f64(), experts < 16);
        assert_eq!(
            entry["source"],
            ["original", "flag"][usize::from(experts < 16)]
        );
    }
    for unnamed in [
        chat("default"),
        json!({"messages": chat("")["messages"], "max_tokens": 1}),
    ] {
        let answer = post(&server, "/v1/chat/completions", &unnamed, StatusCode::OK);
        assert_eq!(answer["model"], all[0]);
    }
    // What one keeps, the one that keeps more keeps too.
    let kept = |id: &str| {
        let plan = server.get(&format!("/v1/pruning?model={id}"))["plan"].clone();
        let layers = plan["layers"].as_array().unwrap().clone();
        let kept = |layer: &Value| layer["kept"].as_array().unwrap().clone();
        layers.iter().map(kept).collect::<Vec<_>>()
    };
    for (smaller, larger) in kept(all[0]).iter().zip(kept(all[1])) {
        assert!(smaller.iter().all(|expert| larger.contains(expert)));
    }
    let unknown = ask(
        &server,
        Method::POST,
        "/v1/chat/completions",
        Some(&chat("nobody")),
    );
    let unknown = answered(unknown, StatusCode::NOT_FOUND);
    assert_eq!(unknown["error"]["code"], "model_not_found");
    assert_eq!(unknown["error"]["param"], "model");
    let nobody = ask(&server, Method::GET, "/v1/pruning?model=nobody", None);
    answered(nobody, StatusCode::NOT_FOUND);

    let said = server.stop();
    assert_eq!(said.matches("Calibrated").count(), 1, "{said}");
    let loading = said.lines().find(|line| line.contains("Loading")).unwrap();
    assert!(all.iter().all(|id| loading.contains(id)), "{loading}");
}

#[test]
fn variants_of_one_name_and_what_is_none_are_refused() {
    let workshop = Workshop::new();
    let serve = |variants: &[&str]| {
        let args = variants.iter().flat_map(|variant| ["--variant", variant]);
        let args: Vec<_> = ["serve", "--port", "0"].into_iter().chain(args).collect();
        workshop.run(&args)
    };
    serve(&["0.5", "original", "0.5"]).expect_failure(2, &["--variant", "`demo-reap-0.5` twice"]);
    serve(&["half"]).expect_failure(2, &["--variant", "original"]);
    serve(&["1.5"]).expect_failure(2, &["--prune-experts", "1.5"]);
}

#[test]
fn variants_come_and_go_while_the_server_runs() {
    let workshop = Workshop::new();
    let server = Server::start(
        &workshop,
        &[&["--variant", "0.5"][..], &QUICK].concat(),
        None,
    );
    let half = server.get("/v1/pruning")["plan"].clone();
    let budget = json!({"prune_experts": 0.25, "criterion": "ean"});
    let entry = post(&server, "/v1/variants", &budget, StatusCode::CREATED);
    assert_eq!(entry["id"], "demo-ean-0.25");
    assert_eq!(entry["default"], false);
    assert_eq!(entry["experts"], json!(vec![12; 8]));
    let named = json!({"id": "mine", "plan": half});
    let entry = post(&server, "/v1/variants", &named, StatusCode::CREATED);
    assert_eq!(entry["source"], "plan");
    assert_eq!(ids(&server), ["demo-reap-0.5", "demo-ean-0.25", "mine"]);
    // The same plan gives the same answers.
    let content = |id: &str| {
        let answer = post(&server, "/v1/chat/completions", &chat(id), StatusCode::OK);
        assert_eq!(answer["model"], id);
        answer["choices"][0]["message"]["content"].clone()
    };
    assert_eq!(content("mine"), content("demo-reap-0.5"));

    let refused = |body: Value, status: StatusCode| {
        let answer = post(&server, "/v1/variants", &body, status);
        assert!(answer["error"]["message"].is_string(), "{answer}");
        assert_eq!(answer["error"]["type"], "invalid_request_error", "{answer}");
    };
    refused(named, StatusCode::CONFLICT);
    refused(
        json!({"id": "default", "prune_experts": 0.5}),
        StatusCode::CONFLICT,
    );
    refused(
        json!({"id": "a/b", "prune_experts": 0.5}),
        StatusCode::BAD_REQUEST,
    );
    refused(json!({}), StatusCode::BAD_REQUEST);
    refused(json!({"prune_experts": 0.99}), StatusCode::BAD_REQUEST);
    refused(
        json!({"prune_experts": 0.1, "criterion": "luck"}),
        StatusCode::BAD_REQUEST,
    );
    refused(
        json!({"prune_experts": 0.1, "x": 1}),
        StatusCode::BAD_REQUEST,
    );
    refused(
        json!({"prune_experts": 0.1, "replace": "nobody"}),
        StatusCode::NOT_FOUND,
    );
    let mut other = server.get("/v1/pruning")["plan"].clone();
    other["model"]["fingerprint"] = "0123".into();
    refused(
        json!({"id": "other", "plan": other}),
        StatusCode::BAD_REQUEST,
    );

    let delete = |id: &str| ask(&server, Method::DELETE, &format!("/v1/variants/{id}"), None);
    assert_eq!(delete("mine").status(), StatusCode::NO_CONTENT);
    assert_eq!(delete("mine").status(), StatusCode::NOT_FOUND);
    assert_eq!(delete("demo-reap-0.5").status(), StatusCode::CONFLICT);
    answered(
        ask(
            &server,
            Method::POST,
            "/v1/chat/completions",
            Some(&chat("mine")),
        ),
        StatusCode::NOT_FOUND,
    );
    assert_eq!(ids(&server), ["demo-reap-0.5", "demo-ean-0.25"]);
    server.stop();
}

#[test]
fn only_a_key_or_this_machine_changes_variants() {
    let workshop = Workshop::new();
    let model = repository("tests/golden/mixtral");
    let server = Server::start(&workshop, &["-m", &model], Some("secret"));
    let body = json!({"prune_experts": 0.5});
    for (method, path) in [
        (Method::POST, "/v1/variants"),
        (Method::DELETE, "/v1/variants/x"),
    ] {
        let refused = ask(&server, method, path, Some(&body));
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{path}");
    }
    assert_eq!(server.get("/v1/variants")["data"][0]["source"], "original");
    // A page elsewhere can send no JSON without being asked first.
    let url = format!("{}/v1/variants", server.url());
    let plain = client()
        .post(url)
        .bearer_auth("secret")
        .body(body.to_string());
    let refused = plain.send().unwrap();
    assert_eq!(refused.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    server.stop();
}

/// Clients that ask until they are told to stop.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    /// Starts clients, every other one of which streams.
    pub(crate) fn start(server: &Server, clients: usize, models: &'static [&'static str]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let url = format!("{}/v1/chat/completions", server.url());
        let start = |index: usize| {
            let (stop, url) = (stop.clone(), url.clone());
            std::thread::spawn(move || {
                let client = client();
                let mut answered = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let mut body = chat(models[answered.len() % models.len()]);
                    body["stream"] = (index % 2 == 1).into();
                    let response = client.post(&url).json(&body).send().unwrap();
                    let status = response.status();
                    let text = response.text().unwrap();
                    assert_eq!(status, StatusCode::OK, "{text}");
                    answered.push(model_of(&text));
                }
                answered
            })
        };
        let clients = (0..clients).map(start).collect();
        Self { stop, clients }
    }

    /// Which models answered the requests, none of which failed.
    pub(crate) fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let clients = self.clients.into_iter();
        clients.flat_map(|client| client.join().unwrap()).collect()
    }
}

/// The model of a whole answer, or of all events of one.
fn model_of(text: &str) -> String {
    let parts: Vec<&str> = match text.starts_with("data:") {
        false => vec![text],
        true => {
            let events = text.lines().filter_map(|line| line.strip_prefix("data:"));
            let mut events: Vec<&str> = events.map(str::trim).collect();
            assert_eq!(events.pop(), Some("[DONE]"), "{text}");
            events
        }
    };
    let models = parts.iter().map(|part| {
        let part: Value = serde_json::from_str(part).unwrap();
        assert!(part["error"].is_null(), "{text}");
        part["model"].as_str().unwrap().to_owned()
    });
    let mut models: Vec<String> = models.collect();
    models.dedup();
    assert_eq!(models.len(), 1, "{text}");
    models.remove(0)
}

/// Puts one plan in the other's place again and again while clients ask for
/// the default, by that name and by the first one's.
fn swap(times: usize) {
    let workshop = Workshop::new();
    let args = [
        &["--variant", "0.5", "--variant", "0.25", "--no-eval"][..],
        &QUICK[..2],
    ]
    .concat();
    let server = Server::start(&workshop, &args, None);
    let plan = |id: &str| server.get(&format!("/v1/pruning?model={id}"))["plan"].clone();
    let plans = [plan("demo-reap-0.25"), plan("demo-reap-0.5")];
    let load = Load::start(&server, 4, &["default", "demo-reap-0.5"]);
    for index in 0..times {
        let body = json!({
            "id": format!("swapped-{index}"), "plan": plans[index % 2], "replace": "default",
        });
        let entry = post(&server, "/v1/variants", &body, StatusCode::CREATED);
        assert_eq!(entry["default"], true, "{entry}");
        assert_eq!(entry["aliases"].as_array().unwrap().len(), index + 1);
    }
    let answered = load.end();
    let mut models = answered.clone();
    models.sort();
    models.dedup();
    assert!(answered.len() > times, "{} requests", answered.len());
    assert!(models.len() > times / 2, "{models:?}");
    assert_eq!(
        ids(&server),
        [
            format!("swapped-{}", times - 1),
            "demo-reap-0.25".to_owned()
        ]
    );
    server.stop();
}

#[test]
fn no_request_is_lost_while_variants_are_swapped() {
    swap(4);
}

#[test]
#[ignore = "takes long"]
fn no_request_is_lost_in_fifty_swaps() {
    swap(50);
}
