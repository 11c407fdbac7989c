//! A piece of a choice, out of what the engine says.

use axum::http::StatusCode;
use mistralrs_core::Response;
use serde_json::Value;

use super::scored::Scored;
use crate::server::problem::Problem;

/// What a choice has more.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Piece {
    /// Text.
    pub(super) text: String,
    /// Thoughts, of models that tell them apart.
    pub(super) reasoning: Option<String>,
    /// Calls of tools.
    pub(super) tools: Vec<Value>,
    /// Its tokens, if their log-probabilities are wanted.
    pub(super) scored: Vec<Scored>,
    /// Why it ends here, if it does.
    pub(super) finish: Option<String>,
}

/// What the engine says, before or after it has read the prompt.
pub(super) fn read(response: Response, begun: bool) -> Result<Piece, Problem> {
    // The rest of a message of several lines is a backtrace, or a drawing.
    let brief = |said: String| said.lines().next().unwrap_or_default().to_owned();
    let failed = |said| Problem::new(StatusCode::INTERNAL_SERVER_ERROR, brief(said));
    match response {
        Response::Chunk(chunk) => {
            Ok(chunk
                .choices
                .into_iter()
                .next()
                .map_or_else(Piece::default, |choice| Piece {
                    text: choice.delta.content.unwrap_or_default(),
                    reasoning: choice.delta.reasoning_content,
                    tools: choice
                        .delta
                        .tool_calls
                        .iter()
                        .flatten()
                        .map(|call| serde_json::json!(call))
                        .collect(),
                    scored: Vec::new(),
                    finish: choice.finish_reason,
                }))
        }
        Response::CompletionChunk(chunk) => {
            Ok(chunk
                .choices
                .into_iter()
                .next()
                .map_or_else(Piece::default, |choice| Piece {
                    text: choice.text,
                    finish: choice.finish_reason,
                    ..Piece::default()
                }))
        }
        Response::ValidationError(error) => {
            let said = brief(error.to_string());
            Err(Problem::said(StatusCode::BAD_REQUEST, said))
        }
        Response::InternalError(error) => {
            let said = error.to_string();
            // Before it has read the prompt, what fails is making one of it.
            if begun || said.starts_with("Failed to allocate") {
                return Err(failed(said));
            }
            Err(Problem::new(StatusCode::BAD_REQUEST, brief(said)))
        }
        Response::ModelError(said, _) | Response::CompletionModelError(said, _) => {
            Err(failed(said))
        }
        _ => Err(failed("an answer to another question".to_owned())),
    }
}
