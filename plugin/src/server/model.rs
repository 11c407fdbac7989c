//! The routes of one model: what is asked of it, and what it is.

use axum::routing::{get, post};
use axum::{middleware, Json, Router};
use serde_json::{json, Value};

use super::answer::{self, Answers};
use super::echo::{self, Echo};
use super::models;
use super::turn::Turns;
use crate::engine::load::Engine;
use crate::pipeline::Outcome;
use crate::Result;

/// Routes that are answered by what `engine` has loaded, which is asked for
/// `together` choices of a request at a time.
///
/// # Errors
/// If there is no tokenizer.
pub(super) fn routes(engine: &Engine, together: usize) -> Result<Router> {
    let turns = Turns::default();
    let answers = Answers::new(engine, turns.clone(), together)?;
    let echo = Echo::new(engine, turns)?;
    let pruning = pruning(&engine.id, &engine.outcome);
    let created = engine.mistralrs.get_creation_time();
    Ok(Router::new()
        .route("/v1/completions", post(answer::complete))
        .layer(middleware::from_fn_with_state(echo, echo::answer))
        .route("/v1/chat/completions", post(answer::chat))
        .with_state(answers)
        .route(
            "/v1/pruning",
            get(move || std::future::ready(Json(pruning))),
        )
        .merge(models::routes(std::slice::from_ref(&engine.id), created)))
}

/// What `/v1/pruning` answers: the plan and what it cost.
fn pruning(id: &str, outcome: &Outcome) -> Value {
    json!({
        "object": "pruning",
        "model": id,
        "pruned": outcome.plan.is_some(),
        "plan": outcome.plan,
        "evaluation": outcome.report,
        "caveat": outcome.caveat,
    })
}
