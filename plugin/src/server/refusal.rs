//! Refused and failed requests, said as OpenAI clients expect it.
//!
//! The engine's routes answer some in plain text or as `{"message": …}`, and an
//! unknown model with status 500. Answers that stream are left alone: a
//! failure that has a status of its own comes before a stream begins.

use axum::body::{to_bytes, Body};
use axum::extract::Request;
use axum::http::{header, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use serde_json::{json, Map, Value};

/// Gives every failure under `/v1/` the body
/// `{"error": {"message", "type", "param", "code"}}`, and an unknown model
/// status 404. A body that has an `error` object already stays as it is.
pub(super) async fn reword(request: Request, next: Next) -> Response {
    let ours = request.uri().path().starts_with("/v1/");
    let response = next.run(request).await;
    let status = response.status();
    if !ours || !(status.is_client_error() || status.is_server_error()) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    // Whole in memory already, so there is no need for a limit.
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let mut said = match serde_json::from_slice(&body) {
        Ok(Value::Object(said)) => said,
        _ => Map::new(),
    };
    if said.get("error").is_some_and(Value::is_object) {
        return Response::from_parts(parts, Body::from(body));
    }
    let message = match said.remove("message").or_else(|| said.remove("error")) {
        Some(Value::String(message)) => message,
        _ => match String::from_utf8_lossy(&body).trim() {
            "" => parts.status.canonical_reason().unwrap_or("").to_owned(),
            text => text.to_owned(),
        },
    };
    let unknown = is_unknown_model(&message);
    if unknown {
        parts.status = StatusCode::NOT_FOUND;
    }
    let kind = if parts.status.is_client_error() {
        "invalid_request_error"
    } else {
        "server_error"
    };
    let error = json!({
        "message": message,
        "type": kind,
        "param": unknown.then_some("model"),
        "code": unknown.then_some("model_not_found"),
    });
    // What else was said, such as the part of an answer, stays beside it.
    said.insert("error".to_owned(), error);
    parts.headers.remove(header::CONTENT_LENGTH);
    let json = HeaderValue::from_static("application/json");
    parts.headers.insert(header::CONTENT_TYPE, json);
    Response::from_parts(parts, Body::from(Value::Object(said).to_string()))
}

/// Whether the engine says that it has no model of the name asked for.
fn is_unknown_model(message: &str) -> bool {
    message.starts_with("Requested model '") && message.contains("' is not available")
}

#[cfg(test)]
mod tests;
