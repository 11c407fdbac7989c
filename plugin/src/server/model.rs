//! The routes of one model: what is asked of it.

use axum::routing::post;
use axum::{middleware, Router};

use super::answer::{self, Answers};
use super::echo::{self, Echo};
use super::turn::Turns;
use crate::engine::load::Engine;
use crate::Result;

/// Routes that are answered by what `engine` has loaded.
///
/// # Errors
/// If there is no tokenizer.
pub(super) fn routes(engine: &Engine) -> Result<Router> {
    let turns = Turns::default();
    let answers = Answers::new(engine, turns.clone())?;
    let echo = Echo::new(engine, turns)?;
    let echo = middleware::from_fn_with_state(echo, echo::answer);
    Ok(Router::new()
        .route("/v1/completions", post(answer::complete).layer(echo))
        .route("/v1/chat/completions", post(answer::chat))
        .with_state(answers))
}
