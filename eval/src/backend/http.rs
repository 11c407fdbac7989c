//! Any server of the OpenAI completions API: vLLM, llama.cpp, ours.
//!
//! Every sequence is one `POST /v1/completions` with a prompt of token ids and
//! temperature 0, a few at a time. Scores need `echo` with `logprobs`: natural
//! logarithms of the prompt's own tokens. One token is generated beside them
//! and dropped, because some servers refuse to generate none. A token counts as
//! greedy if none of `top_logprobs` is above it; servers do not tell ties.
//!
//! Source: `LocalCompletionsAPI` of `lm_eval/models/openai_completions.py`,
//! lm-evaluation-harness 0.4.13, which asks the same.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use router_stats::progress::{Progress, Update};
use serde_json::{json, Value};
use tokenizers::Tokenizer;

use super::{before_stop, Backend, Finish, Generation, Prompt, TokenScore};
use crate::{Error, Result};

/// Longest answer that is read, in bytes.
const MOST_BYTES: u64 = 256 << 20;
/// Longest piece of an answer that an error shows, in characters.
const SHOWN: usize = 200;
/// What a server without `echo` is missing.
const NEEDS_ECHO: &str = "scores need a server whose /v1/completions takes token ids and returns \
                          `logprobs` of the prompt with `echo`: `mistralrs-prune serve`, vLLM";

/// Where the server is and what it is asked for.
#[derive(Clone)]
pub struct HttpOptions {
    /// `http://127.0.0.1:1234`, with or without `/v1`.
    pub url: String,
    /// The model's name at the server.
    pub model: String,
    /// Sent as a bearer token.
    pub api_key: Option<String>,
    /// Requests under way at once, at least one.
    pub at_once: usize,
    /// Longest wait for one answer.
    pub timeout: Duration,
}

impl HttpOptions {
    /// No key, four requests at once, ten minutes.
    pub fn new(url: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            model: model.into(),
            api_key: None,
            at_once: 4,
            timeout: Duration::from_secs(600),
        }
    }
}

/// See the module documentation.
pub struct Http {
    options: HttpOptions,
    endpoint: String,
    agent: ureq::Agent,
    tokenizer: Tokenizer,
    end_of_text: Vec<u32>,
}

impl Http {
    /// Prepares requests; none is sent. `tokenizer` must be the model's.
    pub fn new(options: HttpOptions, tokenizer: Tokenizer, end_of_text: &[u32]) -> Self {
        let base = options.url.trim_end_matches('/');
        let base = base.strip_suffix("/v1").unwrap_or(base);
        let agent = ureq::AgentBuilder::new()
            .timeout_connect(Duration::from_secs(10))
            .timeout(options.timeout)
            .build();
        Self {
            endpoint: format!("{base}/v1/completions"),
            options,
            agent,
            tokenizer,
            end_of_text: end_of_text.to_vec(),
        }
    }

    /// The first choice of the answer to a request.
    fn ask(&self, mut body: Value) -> Result<Value> {
        body["model"] = self.options.model.as_str().into();
        body["temperature"] = 0.into();
        let mut request = self.agent.post(&self.endpoint);
        if let Some(key) = &self.options.api_key {
            request = request.set("Authorization", &format!("Bearer {key}"));
        }
        let response = request
            .send_json(body)
            .map_err(|error| self.refused(error))?;
        let text = read(response).map_err(|error| {
            self.unexpected("an answer that can be read", error.to_string(), None)
        })?;
        let mut answer: Value = serde_json::from_str(&text).map_err(|error| {
            self.unexpected("JSON", format!("{error} in {}", shown(&text)), None)
        })?;
        match answer["choices"].get_mut(0).map(Value::take) {
            Some(Value::Object(mut choice)) => {
                choice.insert("usage".to_owned(), answer["usage"].take());
                Ok(Value::Object(choice))
            }
            _ => Err(self.unexpected("a list `choices`", shown(&text), None)),
        }
    }

    /// Scores of one sequence.
    fn scores(&self, tokens: &[u32]) -> Result<Vec<TokenScore>> {
        let choice = self.ask(json!({
            "prompt": tokens, "max_tokens": 1, "echo": true, "logprobs": 1
        }))?;
        let list = |field: &str| {
            let expected = format!(
                "`logprobs.{field}` of {} tokens and at most one generated",
                tokens.len()
            );
            let missing = |found| self.unexpected(&expected, found, Some(NEEDS_ECHO));
            match choice["logprobs"][field].as_array() {
                Some(list) if (tokens.len()..=tokens.len() + 1).contains(&list.len()) => {
                    Ok(list[1..tokens.len()].iter())
                }
                Some(list) => Err(missing(format!("{} entries", list.len()))),
                None => Err(missing(shown(&choice["logprobs"].to_string()))),
            }
        };
        list("token_logprobs")?
            .zip(list("top_logprobs")?)
            .map(|(own, top)| self.token(own, top))
            .collect()
    }

    /// A token's score, from its log-probability and those of the likeliest.
    fn token(&self, own: &Value, top: &Value) -> Result<TokenScore> {
        let ln_p = own.as_f64().filter(|&ln_p| ln_p <= 0.0).ok_or_else(|| {
            let expected = "log-probabilities of at most 0";
            self.unexpected(expected, shown(&own.to_string()), Some(NEEDS_ECHO))
        })?;
        let top = top.as_object().ok_or_else(|| {
            let expected = "`top_logprobs` of every token but the first";
            self.unexpected(expected, shown(&top.to_string()), Some(NEEDS_ECHO))
        })?;
        let above = |other: &Value| other.as_f64().is_some_and(|other| other > ln_p);
        Ok(TokenScore {
            ln_p: ln_p as f32,
            greedy: !top.values().any(above),
        })
    }

    /// The continuation of one prompt.
    fn continuation(&self, prompt: &Prompt) -> Result<Generation> {
        if prompt.max_tokens == 0 {
            return Ok(Generation {
                text: String::new(),
                tokens: 0,
                finish: Finish::Length,
            });
        }
        let mut body = json!({"prompt": prompt.tokens, "max_tokens": prompt.max_tokens});
        if !prompt.stop.is_empty() {
            body["stop"] = prompt.stop.clone().into();
        }
        let choice = self.ask(body)?;
        let text = choice["text"].as_str().ok_or_else(|| {
            self.unexpected("a string `text`", shown(&choice["text"].to_string()), None)
        })?;
        let stopped = before_stop(text, &prompt.stop);
        let tokens = match choice["usage"]["completion_tokens"].as_u64() {
            Some(tokens) => tokens as usize,
            None => self
                .tokenizer
                .encode_fast(text, false)
                .map_err(Error::tokenizer)?
                .len(),
        };
        let finish = match choice["finish_reason"].as_str() {
            _ if stopped.is_some() => Finish::Stop,
            Some("length") => Finish::Length,
            _ => Finish::Stop,
        };
        Ok(Generation {
            text: stopped.unwrap_or(text).to_owned(),
            tokens,
            finish,
        })
    }

    /// Answers to `count` requests, a few under way at once, in order. The
    /// first error, or a wish to stop, ends it after those under way.
    fn each<T: Send>(
        &self,
        count: usize,
        progress: &dyn Progress,
        ask: impl Fn(usize) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let next = AtomicUsize::new(0);
        let (sender, receiver) = mpsc::channel();
        let mut answers: Vec<Option<T>> = (0..count).map(|_| None).collect();
        std::thread::scope(|scope| {
            for _ in 0..self.options.at_once.clamp(1, count.max(1)) {
                let (sender, next, ask) = (sender.clone(), &next, &ask);
                scope.spawn(move || loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    // Nobody listens any more after an error.
                    if index >= count || sender.send((index, ask(index))).is_err() {
                        break;
                    }
                });
            }
            drop(sender);
            for (done, (index, answer)) in receiver.into_iter().enumerate() {
                let taken = answer.and_then(|answer| {
                    answers[index] = Some(answer);
                    Ok(progress.step(&Update {
                        stage: "Asking",
                        detail: &self.options.model,
                        unit: "requests",
                        done: done as u64 + 1,
                        total: count as u64,
                    })?)
                });
                if taken.is_err() {
                    next.store(count, Ordering::Relaxed);
                    return taken;
                }
            }
            Ok(())
        })?;
        Ok(answers.into_iter().flatten().collect())
    }

    /// What the server, or the way to it, says instead of an answer.
    fn refused(&self, error: ureq::Error) -> Error {
        match error {
            ureq::Error::Status(status, response) => {
                let text = read(response).unwrap_or_default();
                let message = serde_json::from_str::<Value>(&text)
                    .ok()
                    .and_then(|body| Some(body["error"]["message"].as_str()?.to_owned()))
                    .unwrap_or(text);
                let advice = match status {
                    401 | 403 => Some("give the server's API key"),
                    404 => Some(
                        "the server needs POST /v1/completions, and the model's name as \
                         /v1/models lists it",
                    ),
                    _ => None,
                };
                self.unexpected(
                    "status 200",
                    format!("{status}: {}", shown(&message)),
                    advice,
                )
            }
            ureq::Error::Transport(transport) => self.unexpected(
                "a server that answers",
                transport.to_string(),
                Some("start the server, or check its address"),
            ),
        }
    }

    fn unexpected(&self, expected: &str, found: String, advice: Option<&'static str>) -> Error {
        Error::Backend {
            name: self.endpoint.clone(),
            expected: expected.to_owned(),
            found,
            advice,
        }
    }
}

impl Backend for Http {
    fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    fn end_of_text(&self) -> &[u32] {
        &self.end_of_text
    }

    fn score(
        &mut self,
        sequences: &[Vec<u32>],
        progress: &dyn Progress,
    ) -> Result<Vec<Vec<TokenScore>>> {
        super::at_least(2, sequences.iter())?;
        self.each(sequences.len(), progress, |index| {
            self.scores(&sequences[index])
        })
    }

    fn generate(&mut self, prompts: &[Prompt], progress: &dyn Progress) -> Result<Vec<Generation>> {
        super::at_least(1, prompts.iter().map(|prompt| &prompt.tokens))?;
        self.each(prompts.len(), progress, |index| {
            self.continuation(&prompts[index])
        })
    }
}

/// The body of a response.
fn read(response: ureq::Response) -> std::io::Result<String> {
    let mut text = String::new();
    response
        .into_reader()
        .take(MOST_BYTES)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// The beginning of a text, on one line.
fn shown(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(SHOWN)
        .collect();
    match line.trim() {
        "" => "nothing".to_owned(),
        line => line.to_owned(),
    }
}

#[cfg(test)]
mod tests;
