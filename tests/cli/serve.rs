//! `serve`: prunes once, then answers like an OpenAI server.

use reqwest::blocking::{Client, Response};
use reqwest::StatusCode;
use serde_json::{json, Value};

use crate::program::{repository, Running, Workshop};

/// A server that listens.
pub(crate) struct Server {
    running: Running,
    url: String,
    client: Client,
    key: Option<&'static str>,
}

impl Server {
    pub(crate) fn start(workshop: &Workshop, args: &[&str], key: Option<&'static str>) -> Self {
        let mut args = [&["serve", "--port", "0"], args].concat();
        args.extend(key.iter().flat_map(|key| ["--api-key", key]));
        let mut running = workshop.start(&args);
        let line = running.wait_for("Serving");
        let (_, url) = line.trim().rsplit_once(' ').unwrap();
        let client = Client::builder().no_proxy().timeout(None);
        Self {
            running,
            url: url.to_owned(),
            client: client.build().unwrap(),
            key,
        }
    }

    pub(crate) fn send(&self, path: &str, body: Option<&Value>, key: Option<&str>) -> Response {
        let url = format!("{}{path}", self.url);
        let mut request = match body {
            Some(body) => self.client.post(url).json(body),
            None => self.client.get(url),
        };
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        request.send().unwrap()
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let response = self.send(path, None, self.key);
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json().unwrap()
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Response {
        let response = self.send(path, Some(body), self.key);
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response
    }

    /// Its process.
    pub(crate) fn process(&self) -> u32 {
        self.running.process()
    }

    /// Its address.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> String {
        self.url.trim_start_matches("http://").to_owned()
    }

    /// All it has said so far.
    pub(crate) fn said(&self) -> &str {
        &self.running.said
    }

    /// Waits for a line that contains `text`.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        self.running.wait_for(text)
    }

    /// Ctrl-C.
    pub(crate) fn interrupt(&self) {
        self.running.interrupt();
    }

    /// Waits for its end, which must have this exit code.
    pub(crate) fn finish(self, code: i32) -> String {
        let (found, said) = self.running.finish();
        assert_eq!(found, Some(code), "{said}");
        said
    }

    /// Ctrl-C, after which it must end well.
    pub(crate) fn stop(self) -> String {
        self.interrupt();
        let said = self.finish(0);
        assert!(said.contains("Stopped"), "{said}");
        said
    }
}

fn chat(model: &str, stream: bool) -> Value {
    json!({
        "model": model,
        "messages": [{"role": "user", "content": "Tell me a story."}],
        "max_tokens": 8,
        "temperature": 0.0,
        "stream": stream,
    })
}

/// The data of server-sent events.
fn events(response: Response) -> Vec<String> {
    let kind = response.headers()["content-type"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(kind.starts_with("text/event-stream"), "{kind}");
    let text = response.text().unwrap();
    text.lines()
        .filter_map(|line| line.strip_prefix("data:"))
        .map(|data| data.trim().to_owned())
        .collect()
}

/// Every route, of a model with this id and as many experts per layer.
fn check_routes(server: &Server, id: &str, experts: u64) {
    let health = server.send("/health", None, None);
    assert_eq!(health.status(), StatusCode::OK);

    let models = server.get("/v1/models");
    let ids: Vec<_> = models["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| &m["id"])
        .collect();
    assert!(ids.contains(&&json!(id)), "{models}");

    let pruning = server.get("/v1/pruning");
    assert_eq!(pruning["model"], id);
    assert_eq!(pruning["pruned"], true);
    assert_eq!(pruning["plan"]["after"]["experts_per_layer"][0], experts);

    let answer: Value = server
        .post("/v1/chat/completions", &chat(id, false))
        .json()
        .unwrap();
    assert_eq!(answer["object"], "chat.completion");
    assert_eq!(answer["model"], id);
    assert!(
        answer["usage"]["completion_tokens"].as_u64() > Some(0),
        "{answer}"
    );
    assert!(answer["choices"][0]["message"].is_object(), "{answer}");

    let prompt = json!({"model": id, "prompt": "Once upon a time", "max_tokens": 4});
    let answer: Value = server.post("/v1/completions", &prompt).json().unwrap();
    assert!(answer["choices"][0]["text"].is_string(), "{answer}");
}

/// What cannot be answered is refused as OpenAI does.
fn check_refusals(server: &Server, id: &str) {
    let refused = |path: &str, body: &str| {
        let url = format!("{}{path}", server.url);
        let request = server.client.post(url).body(body.to_owned());
        let response = request.header("content-type", "application/json").send();
        let response = response.unwrap();
        let status = response.status();
        let answer: Value = response.json().unwrap();
        assert!(answer["error"]["message"].is_string(), "{answer}");
        assert_eq!(answer["error"]["type"], "invalid_request_error", "{answer}");
        (status, answer["error"]["code"].clone())
    };
    let unknown = (StatusCode::NOT_FOUND, json!("model_not_found"));
    for stream in [false, true] {
        let body = chat("nobody", stream).to_string();
        assert_eq!(refused("/v1/chat/completions", &body), unknown);
    }
    let prompt = json!({"model": "nobody", "prompt": "Once"}).to_string();
    assert_eq!(refused("/v1/completions", &prompt), unknown);
    let malformed = (StatusCode::BAD_REQUEST, Value::Null);
    assert_eq!(refused("/v1/chat/completions", "{"), malformed);
    let fieldless = json!({ "model": id }).to_string();
    let (status, _) = refused("/v1/chat/completions", &fieldless);
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

/// A stream says what a whole answer says, and ends as it must.
fn check_stream(server: &Server, id: &str) {
    let answer: Value = server
        .post("/v1/chat/completions", &chat(id, false))
        .json()
        .unwrap();
    let whole = answer["choices"][0]["message"]["content"].as_str().unwrap();

    let mut events = events(server.post("/v1/chat/completions", &chat(id, true)));
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    let streamed: String = events
        .iter()
        .map(|event| serde_json::from_str::<Value>(event).unwrap())
        .filter_map(|event| Some(event["choices"][0]["delta"]["content"].as_str()?.to_owned()))
        .collect();
    assert_eq!(streamed, whole);
    assert!(!whole.is_empty());
}

#[test]
fn the_demo_model_is_pruned_once_and_served() {
    let workshop = Workshop::new();
    let mut args = vec!["--prune-experts", "0.5"];
    args.extend([
        "--calibration-tokens",
        "4096",
        "--eval-tokens",
        "4096",
        "--seq-len",
        "256",
    ]);

    // Killed as soon as it has begun, it begins again or goes on.
    let serve = [&["serve", "--port", "0"], &args[..]].concat();
    let mut killed = workshop.start(&serve);
    killed.wait_for("Calibrating");
    killed.kill();

    let server = Server::start(&workshop, &args, None);
    check_routes(&server, "demo-reap-0.5", 8);
    check_stream(&server, "demo-reap-0.5");
    check_refusals(&server, "demo-reap-0.5");
    let pruning = server.get("/v1/pruning");
    let loss = &pruning["evaluation"]["variants"][0]["all"]["perplexity_change"];
    assert!(loss["value"].is_f64(), "{pruning}");
    let said = server.stop();
    for step in ["Calibrated", "Planned", "Checked", "Wrote", "perplexity"] {
        assert!(said.contains(step), "no {step} in\n{said}");
    }

    // The second start finds everything, and this one asks for a key.
    let server = Server::start(&workshop, &args, Some("secret"));
    assert_eq!(server.send("/health", None, None).status(), StatusCode::OK);
    for key in [None, Some("wrong")] {
        for path in ["/v1/models", "/v1/pruning"] {
            let refused = server.send(path, None, key);
            assert_eq!(refused.status(), StatusCode::UNAUTHORIZED, "{path} {key:?}");
        }
        let refused = server.send("/v1/chat/completions", Some(&chat("default", false)), key);
        assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
        let error: Value = refused.json().unwrap();
        assert_eq!(error["error"]["code"], "invalid_api_key");
    }
    assert_eq!(server.get("/v1/pruning"), pruning);
    let said = server.stop();
    for kind in ["statistics", "plan", "evaluation", "checkpoint"] {
        assert!(
            said.contains(&format!("Cached      {kind}")),
            "no {kind} in\n{said}"
        );
    }
    assert!(
        !said.contains("Calibrated") && !said.contains("Wrote"),
        "{said}"
    );
}

#[test]
fn mixtral_is_served_from_a_plan() {
    let workshop = Workshop::new();
    let model = repository("tests/golden/mixtral");
    let plan = workshop.plan("mixtral").display().to_string();
    let server = Server::start(
        &workshop,
        &["-m", &model, "--plan", &plan, "--no-eval"],
        None,
    );
    check_routes(&server, "mixtral-mixtral", 3);
    server.stop();
}

/// A plan for golden Mixtral whose first layer keeps an expert more.
fn uneven_plan(workshop: &Workshop) -> String {
    let path = workshop.plan("mixtral");
    let mut plan: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let layer = &mut plan["layers"][0];
    let more = layer["removed"].as_array_mut().unwrap().remove(0);
    let kept = layer["kept"].as_array_mut().unwrap();
    kept.push(more);
    kept.sort_by_key(Value::as_u64);
    std::fs::write(&path, plan.to_string()).unwrap();
    path.display().to_string()
}

#[test]
fn layers_that_keep_different_counts_are_served() {
    let workshop = Workshop::new();
    let model = repository("tests/golden/mixtral");
    let plan = uneven_plan(&workshop);
    let args = ["-m", &model, "--plan", &plan, "--no-eval"];
    let server = Server::start(&workshop, &args, None);
    check_routes(&server, "mixtral-mixtral", 4);
    check_stream(&server, "mixtral-mixtral");
    check_refusals(&server, "mixtral-mixtral");
    server.stop();

    // Quantised when written, not on loading.
    let server = Server::start(&workshop, &[&args[..], &["--isq", "q8_0"]].concat(), None);
    check_routes(&server, "mixtral-mixtral", 4);
    assert!(!server.stop().contains(LEFT_BY_ISQ));
    for (flag, value) in [("--isq", "hqq4"), ("--dtype", "f16")] {
        let serve = [&["serve", "--port", "0"], &args[..], &[flag, value]].concat();
        let refused = workshop.run(&serve);
        assert_eq!(refused.code, Some(2), "{}", refused.stderr);
        assert!(refused.stderr.contains(flag), "{}", refused.stderr);
        assert!(
            refused.stderr.contains("different numbers of experts"),
            "{}",
            refused.stderr
        );
    }
}

/// What is said where the engine would not quantise experts.
const LEFT_BY_ISQ: &str = "--isq leaves the experts as they are";

#[test]
fn experts_that_isq_passes_over_are_said() {
    let workshop = Workshop::new();
    let model = repository("tests/golden/qwen3_moe");
    for (isq, said) in [(&[][..], false), (&["--isq", "q4_0"][..], true)] {
        let args = [&["-m", model.as_str()][..], isq].concat();
        let server = Server::start(&workshop, &args, None);
        assert_eq!(server.stop().contains(LEFT_BY_ISQ), said, "{isq:?}");
    }
}

#[test]
fn only_uqff_is_written_where_layers_keep_different_counts() {
    let workshop = Workshop::new();
    let model = repository("tests/golden/mixtral");
    let plan = uneven_plan(&workshop);
    let prune = |layout: &str| {
        let out = workshop.arg(layout);
        let args = ["prune", "-m", &model, "--plan", &plan, "--no-eval"];
        workshop.run(&[&args[..], &["--layout", layout, "-o", &out]].concat())
    };
    for layout in ["hf", "engine"] {
        let refused = prune(layout);
        assert_eq!(refused.code, Some(1), "{}", refused.stderr);
        assert!(
            refused
                .stderr
                .contains("layer 0 keeps 4 experts but layer 1 keeps 3"),
            "{}",
            refused.stderr
        );
        assert!(
            refused.stderr.contains("--layout uqff"),
            "{}",
            refused.stderr
        );
        assert!(!workshop.path(layout).exists());
    }
    let written = prune("uqff");
    assert_eq!(written.code, Some(0), "{}", written.stderr);
    for name in [
        "f32-0.uqff",
        "residual.safetensors",
        "config.json",
        "tokenizer.json",
    ] {
        assert!(workshop.path("uqff").join(name).is_file(), "{name}");
    }
    let card = std::fs::read_to_string(workshop.path("uqff").join("README.md")).unwrap();
    assert!(card.contains("--from-uqff f32-0.uqff"), "{card}");
}

#[test]
fn a_checkpoint_that_prune_wrote_is_served_as_it_is() {
    let workshop = Workshop::new();
    let model = repository("tests/golden/qwen3_moe");
    let plan = workshop.plan("qwen3_moe").display().to_string();
    let out = workshop.arg("half");
    let args = [
        "prune",
        "-m",
        &model,
        "--plan",
        &plan,
        "-o",
        &out,
        "--no-eval",
    ];
    // In the layout of Hugging Face, which the engine cannot read.
    workshop.succeed(&args);
    let server = Server::start(&workshop, &["-m", &out], None);
    check_routes(&server, "half", 4);
    server.stop();
}
