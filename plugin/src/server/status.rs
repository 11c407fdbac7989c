//! What the server says of itself.

use std::sync::Arc;

use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{json, Value};

use super::metrics::{Metrics, KIND};
use super::variants::Variants;
use crate::memory::Resident;

/// `/health`, `/v1/status` and `/metrics` of a server of these variants.
pub(super) fn routes(metrics: &Arc<Metrics>, variants: &Arc<Variants>) -> Router {
    let (for_status, for_metrics) = (metrics.clone(), metrics.clone());
    let variants = variants.clone();
    Router::new()
        .route("/health", get(|| async { "OK" }))
        .route(
            "/v1/status",
            get(move || std::future::ready(Json(status(&for_status, &variants)))),
        )
        .route(
            "/metrics",
            get(move || {
                let text = for_metrics.text(resident());
                std::future::ready(([(header::CONTENT_TYPE, KIND)], text).into_response())
            }),
        )
}

fn status(metrics: &Metrics, variants: &Variants) -> Value {
    let (prompt, completion) = metrics.tokens();
    json!({
        "object": "status",
        "model": variants.default_id(),
        "variants": variants.len(),
        "traffic": variants.traffic(),
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_s": metrics.uptime(),
        "requests": metrics.requests(),
        "tokens": { "prompt": prompt, "completion": completion },
        "tokens_per_s": metrics.tokens_per_second(),
        "in_flight": metrics.running(),
        "queued": metrics.queued(),
        "resident_bytes": resident(),
    })
}

/// The memory this process has resident, in bytes, where the system says.
fn resident() -> Option<u64> {
    Resident::now().map(|resident| resident.all)
}
