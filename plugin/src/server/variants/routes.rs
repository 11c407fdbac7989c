//! The routes about variants: which there are, what was pruned, adding and
//! removing.

use std::future::Future;
use std::sync::Arc;

use axum::extract::rejection::JsonRejection;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{json, Value};

use super::add::Wanted;
use super::problem::unread;
use super::recalibrate::Asked;
use super::table::DEFAULT;
use super::{choose, entry, Variants};
use crate::server::problem::Problem;

/// What is asked of the variants, and about them.
pub(in crate::server) fn routes(variants: &Arc<Variants>) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(choose::answer))
        .route("/v1/completions", post(choose::answer))
        .route("/v1/models", get(models))
        .route("/v1/models/{id}", get(model))
        .route("/v1/pruning", get(pruning))
        .route("/v1/variants", get(list).post(add))
        .route("/v1/variants/{id}", delete(remove))
        .route("/v1/recalibrate", post(recalibrate))
        // `limits` has one for all routes.
        .layer(DefaultBodyLimit::disable())
        .with_state(variants.clone())
}

async fn models(State(variants): State<Arc<Variants>>) -> Json<Value> {
    let listed = variants.table.list();
    let default = listed.first().map(|listed| (DEFAULT, &listed.variant));
    let named = listed
        .iter()
        .map(|listed| (&*listed.variant.id, &listed.variant));
    let data: Vec<Value> = default
        .into_iter()
        .chain(named)
        .map(|(id, variant)| entry::model(id, variant.created))
        .collect();
    Json(json!({ "object": "list", "data": data }))
}

async fn model(
    State(variants): State<Arc<Variants>>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let variant = variants.table.find(Some(&id))?;
    Ok(Json(entry::model(&id, variant.created)))
}

/// What a question about one variant names.
#[derive(Deserialize)]
struct About {
    model: Option<String>,
}

async fn pruning(
    State(variants): State<Arc<Variants>>,
    Query(about): Query<About>,
) -> Result<Json<Value>, Problem> {
    let variant = variants.table.find(about.model.as_deref())?;
    Ok(Json(entry::pruning(&variant)))
}

async fn list(State(variants): State<Arc<Variants>>) -> Json<Value> {
    let listed = variants.table.list();
    let entries = listed.iter().enumerate();
    let data: Vec<Value> = entries
        .map(|(place, listed)| entry::entry(listed, place == 0))
        .collect();
    Json(json!({ "object": "list", "data": data, "traffic": variants.traffic() }))
}

async fn add(
    State(variants): State<Arc<Variants>>,
    wanted: Result<Json<Wanted>, JsonRejection>,
) -> Result<Response, Problem> {
    variants.expect_changeable()?;
    let Json(wanted) = wanted.map_err(unread)?;
    let entry = apart(async move { variants.add(wanted).await }).await?;
    Ok((StatusCode::CREATED, Json(entry)).into_response())
}

async fn remove(
    State(variants): State<Arc<Variants>>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    variants.expect_changeable()?;
    let variant = variants.table.remove(&id)?;
    variant.idle().await;
    Ok(StatusCode::NO_CONTENT)
}

async fn recalibrate(
    State(variants): State<Arc<Variants>>,
    asked: Result<Json<Asked>, JsonRejection>,
) -> Result<Json<Value>, Problem> {
    variants.expect_changeable()?;
    let Json(asked) = asked.map_err(unread)?;
    apart(async move { variants.recalibrate(asked).await })
        .await
        .map(Json)
}

/// Runs to the end whether or not the client waits for it.
async fn apart<T: Send + 'static>(
    work: impl Future<Output = Result<T, Problem>> + Send + 'static,
) -> Result<T, Problem> {
    match tokio::spawn(work).await {
        Ok(done) => done,
        Err(error) => Err(Problem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            error.to_string(),
        )),
    }
}
