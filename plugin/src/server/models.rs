//! `/v1/models`: the names that the `model` of a request may have.

use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{json, Value};

use super::problem::Problem;

/// The list of `ids`, and one of them by name; the first is what `default`
/// stands for. `created` is in seconds since 1970.
pub(super) fn routes(ids: &[String], created: u64) -> Router {
    let entry = move |id: &str| json!({ "id": id, "object": "model", "created": created, "owned_by": "local" });
    let names = std::iter::once("default").chain(ids.iter().map(String::as_str));
    let entries: Vec<Value> = names.map(entry).collect();
    let list = json!({ "object": "list", "data": entries });
    Router::new()
        .route("/v1/models", get(move || std::future::ready(Json(list))))
        .route(
            "/v1/models/{model}",
            get(move |Path(id): Path<String>| {
                let found = entries.iter().find(|entry| entry["id"] == *id);
                std::future::ready(match found {
                    Some(entry) => Ok(Json(entry.clone())),
                    None => Err(unknown(&id)),
                })
            }),
        )
}

/// There is no such model.
fn unknown(id: &str) -> Problem {
    Problem::said(
        StatusCode::NOT_FOUND,
        format!("Requested model '{id}' is not available. See /v1/models."),
    )
}
