//! Refused and failed requests of every route, said in one shape.
//!
//! The router answers some in plain text and unknown routes with nothing at
//! all; mistral.rs says `{"message": …}`, and of an unknown model status 500.
//! Answers that stream are left alone: a failure that has a status of its own
//! comes before a stream begins.

use axum::body::{to_bytes, Body};
use axum::extract::Request;
use axum::http::{header, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use serde_json::{Map, Value};

use super::problem::Problem;

/// Gives every failure the body `{"error": {"message", "type", "param",
/// "code"}}`, and an unknown model status 404. A body that has an `error`
/// object already stays as it is.
pub(super) async fn reword(request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    let status = response.status();
    if !(status.is_client_error() || status.is_server_error()) {
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
    let problem = Problem::said(parts.status, message);
    parts.status = problem.status();
    // What else was said, such as the part of an answer, stays beside it.
    said.insert("error".to_owned(), problem.error());
    parts.headers.remove(header::CONTENT_LENGTH);
    let json = HeaderValue::from_static("application/json");
    parts.headers.insert(header::CONTENT_TYPE, json);
    Response::from_parts(parts, Body::from(Value::Object(said).to_string()))
}

#[cfg(test)]
mod tests;
