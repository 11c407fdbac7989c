//! A request → the variant that its `model` field names.
//!
//! A body that is not JSON, or whose `model` is not a string, goes to the
//! default, which refuses it; so does a request without a body.

use std::sync::Arc;

use axum::body::{to_bytes, Body, Bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::traffic::Sample;
use super::Variants;
use crate::server::problem::Problem;

/// The field of a request that matters here.
#[derive(Deserialize, Default)]
struct Named {
    model: Option<String>,
}

/// Has the variant that the request names answer it.
pub(super) async fn answer(State(variants): State<Arc<Variants>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    // `limits` has read it, and found it not too large.
    let Ok(body) = to_bytes(body, usize::MAX).await else {
        let message = "The body of the request is not whole";
        return Problem::new(StatusCode::BAD_REQUEST, message).into_response();
    };
    let name = name(&body);
    match variants.table.find(name.as_deref()) {
        Ok(variant) => {
            let sample = variants.sample.as_ref();
            let candidate = sample.and_then(|_| Sample::candidate(&parts, &body));
            let body = addressed(body, name.as_deref(), &variant.id);
            let request = Request::from_parts(parts, Body::from(body));
            let answer = variant.answer(request).await;
            if let (Some(sample), Some(candidate)) = (sample, candidate) {
                if answer.status().is_success() {
                    sample.offer(candidate);
                }
            }
            answer
        }
        Err(problem) => problem.into_response(),
    }
}

/// The model that a body names.
fn name(body: &[u8]) -> Option<String> {
    let named: Named = serde_json::from_slice(body).unwrap_or_default();
    named.model
}

/// `body` with the name that its variant's engine knows, if it has another.
fn addressed(body: Bytes, name: Option<&str>, id: &str) -> Bytes {
    let known = name.is_none_or(|name| name == id || name == super::table::DEFAULT);
    if known {
        return body;
    }
    match serde_json::from_slice::<serde_json::Map<String, serde_json::Value>>(&body) {
        Ok(mut fields) => {
            fields.insert("model".to_owned(), id.into());
            serde_json::Value::Object(fields).to_string().into()
        }
        Err(_) => body,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_is_found_in_a_body_that_has_one() {
        let found = |body: &str| name(body.as_bytes());
        assert_eq!(found(r#"{"model": "a", "n": [1]}"#).as_deref(), Some("a"));
        for other in ["", "{", "[]", "{}", r#"{"model": 3}"#, r#"{"model": null}"#] {
            assert_eq!(found(other), None, "{other}");
        }
    }

    #[test]
    fn only_another_name_is_replaced() {
        let body = Bytes::from_static(br#"{"x": 0.1, "model": "old", "y": []}"#);
        for own in [None, Some("new"), Some("default")] {
            assert_eq!(addressed(body.clone(), own, "new"), body);
        }
        assert_eq!(
            addressed(body, Some("old"), "new"),
            r#"{"x":0.1,"model":"new","y":[]}"#
        );
    }
}
