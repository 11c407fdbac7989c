//! What is asked of the model, read from a body and checked.
//!
//! Fields that the engine reads as they should be stay in the body, from which
//! its own request is made; the others are taken out.

use axum::http::StatusCode;
use mistralrs_core::{NormalRequest, Request};
use mistralrs_server_core::openai::{ChatCompletionRequest, CompletionRequest};
use mistralrs_server_core::{chat_completion, completions};
use serde::de::DeserializeOwned;
use serde_json::{json, Value};

use super::draw::Draw;
use super::number::{count, given, real, refuse, truth, Fields};
use super::prompts::{self, Prompt};
use super::run::{Channel, Prepared};
use super::{Model, MOST_CHOICES};
use crate::server::problem::Problem;

/// Most alternatives of a token in a conversation, and in a text.
const TOP: (u64, u64) = (20, 5);
/// Most texts that end an answer, and the longest in bytes.
const STOPS: (usize, usize) = (64, 1024);

/// How a request is to be answered.
#[derive(Debug)]
pub(super) struct Asked {
    /// Whether the answer comes in events.
    pub(super) stream: bool,
    /// Whether the last event says how many tokens there were.
    pub(super) usage: bool,
    /// Choices of every prompt.
    pub(super) n: usize,
    /// Alternatives whose log-probabilities are wanted; `None` for none at all.
    pub(super) top: Option<usize>,
    /// Texts that end an answer.
    pub(super) stop: Vec<String>,
    /// Added to the logits of tokens.
    pub(super) bias: Vec<(u32, f32)>,
    /// How tokens are drawn here; `None` leaves it to the engine.
    pub(super) draw: Option<Draw>,
    /// Texts to be continued.
    pub(super) prompts: Vec<Prompt>,
    /// Whether a text begins with its prompt.
    pub(super) echo: bool,
}

impl Asked {
    /// Reads a conversation.
    ///
    /// # Errors
    /// [`Problem`] that names a field.
    pub(super) fn chat(
        mut fields: Fields,
        model: &Model,
    ) -> Result<(Self, ChatCompletionRequest), Problem> {
        prompts::flatten(&mut fields)?;
        let wanted = truth(&fields, "logprobs")?.unwrap_or(false);
        let top = count(&fields, "top_logprobs", 0, TOP.0)?;
        if let (false, Some(1..), Some(value)) = (wanted, top, given(&fields, "top_logprobs")) {
            return Err(Problem::field(
                "top_logprobs",
                "`logprobs` beside it",
                value,
            ));
        }
        let top = wanted.then(|| top.unwrap_or(0) as usize);
        refuse(&mut fields, "web_search_options", &[])?;
        if fields.get("response_format") == Some(&json!({ "type": "json_object" })) {
            let schema = json!({ "name": "object", "schema": { "type": "object" } });
            let format = json!({ "type": "json_schema", "json_schema": schema });
            fields.insert("response_format".to_owned(), format);
        }
        let asked = Self::common(&mut fields, model, top, 1)?;
        Ok((asked, parse(fields)?))
    }

    /// Reads texts to be continued.
    ///
    /// # Errors
    /// [`Problem`] that names a field.
    pub(super) fn completion(
        mut fields: Fields,
        model: &Model,
    ) -> Result<(Self, CompletionRequest), Problem> {
        let prompts = prompts::texts(&fields)?;
        let n = fields.get("n").cloned().unwrap_or(json!(1));
        refuse(&mut fields, "best_of", &[n])?;
        refuse(&mut fields, "suffix", &[json!("")])?;
        let top = count(&fields, "logprobs", 0, TOP.1)?.map(|top| top as usize);
        let echo = truth(&fields, "echo")?.unwrap_or(false);
        fields.remove("echo");
        // Each is put in its place later.
        fields.insert("prompt".to_owned(), json!(""));
        let asked = Self::common(&mut fields, model, top, prompts.len())?;
        let asked = Self {
            prompts,
            echo,
            ..asked
        };
        Ok((asked, parse(fields)?))
    }

    /// The requests to the engine for a conversation.
    ///
    /// # Errors
    /// If there is no such model, or its messages cannot be sent.
    pub(super) async fn of_chat(
        &self,
        request: &ChatCompletionRequest,
        model: &Model,
    ) -> Result<Vec<Prepared>, Problem> {
        let mut prepared = Vec::with_capacity(self.n);
        for index in 0..self.n {
            let channel = Channel::new(model);
            let (request, state) = (request.clone(), model.mistralrs.clone());
            let made = chat_completion::parse_request(request, state, channel.sender()).await;
            let request = normal(made)?;
            prepared.push(Prepared::new(
                request,
                channel,
                index,
                self,
                String::new(),
                model,
            ));
        }
        Ok(prepared)
    }

    /// The requests to the engine for texts.
    ///
    /// # Errors
    /// If there is no such model, or no such token.
    pub(super) fn of_completion(
        &self,
        request: &CompletionRequest,
        model: &Model,
    ) -> Result<Vec<Prepared>, Problem> {
        let mut prepared = Vec::with_capacity(self.n * self.prompts.len());
        for prompt in &self.prompts {
            let (messages, text) = prompt.message(&model.tokenizer)?;
            let echo = if self.echo { text } else { String::new() };
            for index in 0..self.n {
                let channel = Channel::new(model);
                let (request, state) = (request.clone(), model.mistralrs.clone());
                let made = completions::parse_request(request, state, channel.sender());
                let mut request = normal(made)?;
                request.messages = messages.clone();
                let echo = echo.clone();
                prepared.push(Prepared::new(request, channel, index, self, echo, model));
            }
        }
        Ok(prepared)
    }

    /// What both routes read alike.
    fn common(
        fields: &mut Fields,
        model: &Model,
        top: Option<usize>,
        prompts: usize,
    ) -> Result<Self, Problem> {
        if let Some(value) = given(fields, "model").filter(|it| !it.is_string()) {
            return Err(Problem::field("model", "a name", value));
        }
        let most = (MOST_CHOICES / prompts.max(1)).max(1);
        let n = count(fields, "n", 1, most as u64)?.unwrap_or(1) as usize;
        if prompts > MOST_CHOICES {
            let expected = format!("at most {MOST_CHOICES} prompts");
            return Err(Problem::field("prompt", &expected, &json!(prompts)));
        }
        if let Some(tokens) = fields.remove("max_completion_tokens") {
            if !tokens.is_null() {
                fields.insert("max_tokens".to_owned(), tokens);
            }
        }
        let tokens = count(fields, "max_tokens", 1, u64::MAX)?;
        if let Some(tokens) = tokens {
            // More than fit would never be reached.
            let fit = tokens.min(model.context as u64);
            fields.insert("max_tokens".to_owned(), fit.into());
        }
        let temperature = real(fields, "temperature", 0.0, 100.0)?.unwrap_or(1.0);
        let top_p = real(fields, "top_p", 0.0, 1.0)?;
        if top_p == Some(0.0) {
            // The engine would have nothing left to draw from.
            fields.insert("top_p".to_owned(), json!(f32::EPSILON));
        }
        let top_k = count(fields, "top_k", 0, u32::MAX.into())?;
        let min_p = real(fields, "min_p", 0.0, 1.0)?;
        for penalty in ["frequency_penalty", "presence_penalty"] {
            real(fields, penalty, -2.0, 2.0)?;
        }
        real(fields, "repetition_penalty", 0.01, 100.0)?;
        let seed = seed(fields)?;
        let draw = (seed.is_some() || top.is_some()).then(|| Draw {
            seed: seed.unwrap_or_else(super::draw::any_seed),
            temperature,
            top_k: top_k.unwrap_or(0) as usize,
            top_p: top_p.unwrap_or(1.0),
            min_p: min_p.unwrap_or(0.0),
        });
        let stream = truth(fields, "stream")?.unwrap_or(false);
        let options = fields.remove("stream_options").unwrap_or_default();
        let asked = Self {
            stream,
            usage: options["include_usage"] == true,
            n,
            top,
            stop: stops(fields)?,
            bias: bias(fields)?,
            draw,
            prompts: Vec::new(),
            echo: false,
        };
        for ours in [
            "n",
            "seed",
            "logprobs",
            "top_logprobs",
            "logit_bias",
            "stream",
        ] {
            fields.remove(ours);
        }
        Ok(asked)
    }
}

/// The engine's request, or what it says against it.
fn normal(made: anyhow::Result<(Request, bool)>) -> Result<Box<NormalRequest>, Problem> {
    match made {
        Ok((Request::Normal(request), _)) => Ok(request),
        Ok(_) => Err(Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the engine made another request",
        )),
        Err(error) => Err(Problem::said(StatusCode::BAD_REQUEST, error.to_string())),
    }
}

/// The engine's own request of what is left.
fn parse<T: DeserializeOwned>(fields: Fields) -> Result<T, Problem> {
    serde_json::from_value(Value::Object(fields))
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.to_string()))
}

/// Any whole number, negative ones included.
fn seed(fields: &Fields) -> Result<Option<u64>, Problem> {
    given(fields, "seed")
        .map(|value| {
            let seed = value
                .as_u64()
                .or_else(|| value.as_i64().map(|it| it as u64));
            seed.ok_or_else(|| Problem::field("seed", "a whole number", value))
        })
        .transpose()
}

fn stops(fields: &Fields) -> Result<Vec<String>, Problem> {
    let Some(value) = given(fields, "stop") else {
        return Ok(Vec::new());
    };
    let texts = match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(texts) => {
            let texts = texts.iter().map(|text| text.as_str().map(str::to_owned));
            texts.collect::<Option<_>>().unwrap_or_default()
        }
        _ => Vec::new(),
    };
    let fits = |text: &String| (1..=STOPS.1).contains(&text.len());
    let empty = value.as_array().is_some_and(Vec::is_empty);
    if empty || ((1..=STOPS.0).contains(&texts.len()) && texts.iter().all(fits)) {
        return Ok(texts);
    }
    let expected = format!("a text or up to {} texts that are not empty", STOPS.0);
    Err(Problem::field("stop", &expected, value))
}

fn bias(fields: &Fields) -> Result<Vec<(u32, f32)>, Problem> {
    let Some(value) = given(fields, "logit_bias") else {
        return Ok(Vec::new());
    };
    let read = |(token, bias): (&String, &Value)| {
        let bias = bias.as_f64().filter(|it| (-100.0..=100.0).contains(it))?;
        Some((token.parse().ok()?, bias as f32))
    };
    let biases = value.as_object();
    let biases = biases.and_then(|it| it.iter().map(read).collect::<Option<_>>());
    biases.ok_or_else(|| {
        let expected = "token ids with numbers from -100 to 100";
        Problem::field("logit_bias", expected, value)
    })
}
