//! `POST /v1/chat/completions` and `/v1/completions`.
//!
//! The engine's own routes (0.8.1) cannot be used as they are where clients
//! come and go: one that drops a request which does not stream makes every
//! request of its batch fail, several choices never end a stream, a stop
//! string is streamed before it is found, and a request may outlive its
//! connection in the batch. So every choice is a request of its own that
//! streams to us (`run`), whose sampling is watched (`watch`), and which is
//! folded into one answer or passed on (`stream`). What is asked is read and
//! checked first (`body`, `asked`), because the engine checks little.

mod asked;
mod body;
mod chat;
mod completion;
mod draw;
mod fold;
mod held;
mod number;
mod piece;
pub(super) mod prompts;
mod run;
mod scored;
mod stop;
mod stream;
mod watch;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::Json;
use mistralrs_core::MistralRs;
use tokenizers::Tokenizer;
use tokio::time::timeout_at;

use super::limits::{too_slow, Deadlines, Slot};
use super::log::Tally;
use super::problem::Problem;
use super::turn::Turns;
use crate::engine::load::Engine;
use crate::Result;
use asked::Asked;
use chat::Chat;
use completion::Completion;
use held::Held;
use run::Runs;

/// Most choices of one request.
const MOST_CHOICES: usize = 32;

/// What answers are made with.
#[derive(Clone)]
pub(super) struct Answers(Arc<Model>);

/// The model that is asked.
struct Model {
    mistralrs: Arc<MistralRs>,
    id: String,
    tokenizer: Tokenizer,
    /// Tokens that end a text.
    end: Vec<u32>,
    /// Tokens of a prompt and its answer together.
    context: usize,
    turns: Turns,
    /// Choices of one request that the engine is asked for at the same time.
    together: usize,
}

/// How choices become answers and events of a route.
trait Shape: Send + Sync {
    /// A whole answer.
    fn whole(&self, folded: &[fold::Folded], usage: fold::Usage) -> serde_json::Value;
    /// An event of a stream: what choice `index` has more.
    fn event(&self, index: usize, piece: &piece::Piece, first: bool) -> serde_json::Value;
    /// The last event of a stream, for clients that ask for it.
    fn usage(&self, usage: fold::Usage) -> serde_json::Value;
}

impl Answers {
    /// Answers of what `engine` has loaded; each waits for its turn.
    ///
    /// # Errors
    /// If there is no tokenizer.
    pub(super) fn new(engine: &Engine, turns: Turns) -> Result<Self> {
        Ok(Self(Arc::new(Model {
            mistralrs: engine.mistralrs.clone(),
            id: engine.id.clone(),
            tokenizer: engine.tokenizer()?,
            end: engine.end_of_text.clone(),
            context: engine.context,
            turns,
            together: engine.together,
        })))
    }
}

/// Answers a conversation.
pub(super) async fn chat(State(answers): State<Answers>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let answer = async {
        let body = body::read(&parts.headers, body).await?;
        let (asked, request) = Asked::chat(body, &answers.0)?;
        let runs = asked.of_chat(&request, &answers.0).await?;
        let shape = Chat::new(answers.0.clone(), &asked);
        answers.answer(&parts, &asked, runs, Arc::new(shape)).await
    };
    answer.await.unwrap_or_else(IntoResponse::into_response)
}

/// Continues texts.
pub(super) async fn complete(State(answers): State<Answers>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let answer = async {
        let body = body::read(&parts.headers, body).await?;
        let (asked, request) = Asked::completion(body, &answers.0)?;
        let runs = asked.of_completion(&request, &answers.0)?;
        let shape = Completion::new(answers.0.clone(), &asked);
        answers.answer(&parts, &asked, runs, Arc::new(shape)).await
    };
    answer.await.unwrap_or_else(IntoResponse::into_response)
}

impl Answers {
    /// Sends the requests to the engine and answers with what comes back.
    async fn answer(
        &self,
        parts: &Parts,
        asked: &Asked,
        requests: Vec<run::Prepared>,
        shape: Arc<dyn Shape>,
    ) -> Result<Response, Problem> {
        let missing = || Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "no slot for a request");
        let (Some(slot), Some(deadlines), Some(tally)) = (
            parts.extensions.get::<Slot>(),
            parts.extensions.get::<Deadlines>().copied(),
            parts.extensions.get::<Tally>().cloned(),
        ) else {
            return Err(missing());
        };
        let begin = async {
            let held = Held::new(self.0.turns.share().await, slot.clone());
            let mut runs = Runs::new(self.0.clone(), requests, Arc::new(held), tally, asked.n);
            let first = runs.next().await.transpose()?;
            Ok::<_, Problem>((runs, first))
        };
        let begun = timeout_at(deadlines.first, begin).await;
        let (runs, first) = begun.map_err(|_| too_slow())??;
        if asked.stream {
            let end = asked.usage;
            return Ok(stream::stream(runs, first, shape, deadlines.whole, end));
        }
        let folded = timeout_at(deadlines.whole, fold::all(runs, first)).await;
        let (folded, usage) = folded.map_err(|_| too_slow())??;
        Ok(Json(shape.whole(&folded, usage)).into_response())
    }
}
