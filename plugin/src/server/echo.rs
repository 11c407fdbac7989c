//! `POST /v1/completions` with `echo` and `logprobs`: the log-probability of
//! every token of a prompt, which the engine's own route does not have.
//!
//! The answer has the shape of OpenAI's completions. Log-probabilities are
//! natural, and unlike the engine's they are of the logits as they are. With
//! `max_tokens` 1 the most probable token is added, whatever it is. Every other
//! request is passed on untouched.

mod request;
mod tokens;

use std::sync::Arc;

use axum::body::{to_bytes, Body};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use mistralrs_core::MistralRs;
use mistralrs_server_core::util::validate_model_name;
use serde_json::{json, Map, Value};
use tokenizers::Tokenizer;

use super::log::Tally;
use super::problem::Problem;
use super::time::now;
use super::turn::Turns;
use crate::engine::ask::Failure;
use crate::engine::load::Engine;
use crate::engine::score::{logits, Logits};
use crate::Result;
use request::Asked;
use tokens::Tokenised;

/// Answers echoes.
#[derive(Clone)]
pub(super) struct Echo {
    engine: Arc<MistralRs>,
    id: Arc<str>,
    tokenizer: Arc<Tokenizer>,
    turns: Turns,
    scores: bool,
    /// Tokens of the longest prompt.
    most: usize,
}

impl Echo {
    /// Echoes of what `engine` has loaded; each waits for its turn.
    ///
    /// # Errors
    /// If there is no tokenizer.
    pub(super) fn new(engine: &Engine, turns: Turns) -> Result<Self> {
        Ok(Self {
            engine: engine.mistralrs.clone(),
            id: engine.id.as_str().into(),
            tokenizer: Arc::new(engine.tokenizer()?),
            turns,
            scores: engine.scores(),
            most: engine.longest_scored(),
        })
    }

    async fn complete(&self, asked: Asked, tally: &Tally) -> Result<Value, Problem> {
        validate_model_name(&asked.model, self.engine.clone())
            .map_err(|error| failed(error.to_string()))?;
        if !self.scores {
            return Err(no_scores());
        }
        let prompts = asked
            .prompts
            .iter()
            .map(|prompt| Tokenised::new(prompt, &self.tokenizer))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(long) = prompts.iter().find(|prompt| prompt.ids.len() > self.most) {
            return Err(too_long(long.ids.len(), self.most));
        }
        let mut turn = self.turns.alone().await;
        let mut choices = Vec::with_capacity(prompts.len());
        let mut total = 0;
        for prompt in prompts {
            let (engine, ids) = (self.engine.clone(), prompt.ids.clone());
            // The turn lasts as long as the engine works, also for a client
            // that does not wait.
            let scored = tokio::spawn(async move { (logits(&engine, &ids).await, turn) });
            let (scored, kept) = scored.await.map_err(|error| failed(error.to_string()))?;
            turn = kept;
            let scored = scored?;
            total += prompt.ids.len();
            tally.prompt(prompt.ids.len() as u64);
            let choice = tokio::task::block_in_place(|| {
                self.choice(choices.len(), prompt, &scored, &asked)
            })?;
            if asked.continues {
                tally.generated(1);
            }
            choices.push(choice);
        }
        let added = if asked.continues { choices.len() } else { 0 };
        Ok(json!({
            "id": format!("cmpl-{}", self.engine.next_request_id()),
            "object": "text_completion",
            "created": now(),
            "model": &*self.id,
            "choices": choices,
            "usage": {
                "prompt_tokens": total,
                "completion_tokens": added,
                "total_tokens": total + added,
            },
        }))
    }

    /// What is answered about one prompt.
    fn choice(
        &self,
        index: usize,
        prompt: Tokenised,
        logits: &Logits,
        asked: &Asked,
    ) -> Result<Value, Problem> {
        let name = |token| tokens::name(token, &self.tokenizer);
        let Tokenised {
            mut text,
            mut ids,
            mut offsets,
        } = prompt;
        if asked.continues {
            let last = logits.after(ids.len() - 1)?;
            let token = last.top(1)[0];
            offsets.push(text.chars().count());
            ids.push(token);
            text += &name(token)?;
        }
        let mut token_logprobs = vec![Value::Null];
        let mut top_logprobs = vec![Value::Null];
        for (before, &token) in ids[1..].iter().enumerate() {
            let successor = logits.after(before)?;
            token_logprobs.push(successor.ln_p(token).into());
            let mut named = Map::new();
            // Names may be shared by tokens; the more probable one has it.
            for other in successor.top(asked.top).into_iter().chain([token]) {
                named
                    .entry(name(other)?)
                    .or_insert_with(|| successor.ln_p(other).into());
            }
            top_logprobs.push(named.into());
        }
        let names = ids.into_iter().map(name).collect::<Result<Vec<_>, _>>()?;
        Ok(json!({
            "index": index,
            "text": text,
            "finish_reason": "length",
            "logprobs": {
                "tokens": names,
                "token_logprobs": token_logprobs,
                "top_logprobs": top_logprobs,
                "text_offset": offsets,
            },
        }))
    }
}

/// Answers what asks for an echo with log-probabilities, and passes on the
/// rest.
pub(super) async fn answer(
    State(echo): State<Echo>,
    Extension(tally): Extension<Tally>,
    request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    // In memory already, and no larger than a body may be.
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    match Asked::parse(&body) {
        None => next.run(Request::from_parts(parts, Body::from(body))).await,
        Some(Err(problem)) => problem.into_response(),
        Some(Ok(asked)) => match echo.complete(asked, &tally).await {
            Ok(answer) => Json(answer).into_response(),
            Err(problem) => problem.into_response(),
        },
    }
}

fn too_long(found: usize, most: usize) -> Problem {
    let message = format!(
        "the log-probabilities of {found} tokens do not fit the memory that the server was given \
         with --fit; it has room for those of {most}"
    );
    Problem::new(StatusCode::BAD_REQUEST, message).param("prompt")
}

fn no_scores() -> Problem {
    let message = "`echo` with `logprobs` needs every token of a prompt computed anew; start the \
                   server with --prefix-cache-n 0";
    Problem::new(StatusCode::BAD_REQUEST, message).param("echo")
}

/// There is no such model, or the engine failed.
fn failed(message: String) -> Problem {
    Problem::said(StatusCode::INTERNAL_SERVER_ERROR, message)
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(message) => Self::new(StatusCode::BAD_REQUEST, message),
            Failure::Failed(message) => failed(message),
        }
    }
}
