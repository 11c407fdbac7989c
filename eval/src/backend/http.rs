//! Any server of the OpenAI completions API: vLLM, llama.cpp, ours.
//!
//! Every sequence is one `POST /v1/completions` with a prompt of token ids and
//! temperature 0, a few at a time. To generate, a server that refuses ids is
//! given their text, which it may tokenise otherwise. Scores need `echo` with `logprobs`: natural
//! logarithms of the prompt's own tokens. One token is generated beside them
//! and dropped, because some servers refuse to generate none. A token counts as
//! greedy if none of `top_logprobs` is above it; servers do not tell ties.
//!
//! Source: `LocalCompletionsAPI` of `lm_eval/models/openai_completions.py`,
//! lm-evaluation-harness 0.4.13, which asks the same.

mod pool;

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use router_stats::progress::Progress;
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

/// A response, or why there is none.
type Sent = std::result::Result<ureq::Response, Box<ureq::Error>>;

/// See the module documentation.
pub struct Http {
    options: HttpOptions,
    endpoint: String,
    agent: ureq::Agent,
    tokenizer: Tokenizer,
    end_of_text: Vec<u32>,
    /// Whether token ids were refused.
    text_only: AtomicBool,
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
            text_only: AtomicBool::new(false),
        }
    }

    /// Sends a request.
    fn send(&self, mut body: Value) -> Sent {
        body["model"] = self.options.model.as_str().into();
        body["temperature"] = 0.into();
        let mut request = self.agent.post(&self.endpoint);
        if let Some(key) = &self.options.api_key {
            request = request.set("Authorization", &format!("Bearer {key}"));
        }
        request.send_json(body).map_err(Box::new)
    }

    /// The first choice of the answer to a request.
    fn choice(&self, sent: Sent) -> Result<Value> {
        let response = sent.map_err(|error| self.refused(*error))?;
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
        let choice = self.choice(self.send(json!({
            "prompt": tokens, "max_tokens": 1, "echo": true, "logprobs": 1
        })))?;
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
        let choice = self.choice(self.start(prompt)?)?;
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

    /// Asks for a continuation, by token ids or by text.
    fn start(&self, prompt: &Prompt) -> Result<Sent> {
        let send = |given: Value| {
            let mut body = json!({"prompt": given, "max_tokens": prompt.max_tokens});
            if !prompt.stop.is_empty() {
                body["stop"] = prompt.stop.clone().into();
            }
            self.send(body)
        };
        if !self.text_only.load(Ordering::Relaxed) {
            match send(prompt.tokens.clone().into()) {
                Err(error) if matches!(*error, ureq::Error::Status(400 | 415 | 422, _)) => {
                    self.text_only.store(true, Ordering::Relaxed);
                }
                sent => return Ok(sent),
            }
        }
        let text = self.tokenizer.decode(&prompt.tokens, false);
        Ok(send(text.map_err(Error::tokenizer)?.into()))
    }

    /// What the server, or the way to it, says instead of an answer.
    fn refused(&self, error: ureq::Error) -> Error {
        match error {
            ureq::Error::Status(status, response) => {
                let text = read(response).unwrap_or_default();
                let message = serde_json::from_str::<Value>(&text)
                    .ok()
                    .and_then(|body| {
                        let message = [&body["error"]["message"], &body["message"]];
                        message
                            .into_iter()
                            .find_map(Value::as_str)
                            .map(str::to_owned)
                    })
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

    fn meter<'a>(&'a self, progress: &'a dyn Progress) -> pool::Meter<'a> {
        pool::Meter {
            progress,
            model: &self.options.model,
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
        let meter = self.meter(progress);
        pool::each(sequences.len(), self.options.at_once, meter, |index| {
            self.scores(&sequences[index])
        })
    }

    fn generate(&mut self, prompts: &[Prompt], progress: &dyn Progress) -> Result<Vec<Generation>> {
        super::at_least(1, prompts.iter().map(|prompt| &prompt.tokens))?;
        let meter = self.meter(progress);
        pool::each(prompts.len(), self.options.at_once, meter, |index| {
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
