//! The body of a request: a JSON object.

use axum::body::{to_bytes, Body};
use axum::http::{header, HeaderMap, StatusCode};
use serde_json::{Map, Value};

use crate::server::problem::{brief, Problem};

/// Reads a body that is in memory already.
///
/// # Errors
/// For another media type, and for what is not an object.
pub(super) async fn read(headers: &HeaderMap, body: Body) -> Result<Map<String, Value>, Problem> {
    if !is_json(headers) {
        let message = "expected the header `Content-Type: application/json`";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message));
    }
    let refused = |message: String| Problem::new(StatusCode::BAD_REQUEST, message);
    let body = to_bytes(body, usize::MAX)
        .await
        .map_err(|error| refused(error.to_string()))?;
    let text = std::str::from_utf8(&body)
        .map_err(|error| refused(format!("The body of the request is not UTF-8: {error}")))?;
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(other) => Err(refused(format!(
            "expected a JSON object, found {}",
            brief(&other)
        ))),
        Err(error) => Err(refused(format!(
            "The body of the request is not JSON: {error}"
        ))),
    }
}

/// Whether it says that it is JSON: other types may come from forms of other
/// web pages.
fn is_json(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .and_then(|kind| kind.split(';').next())
        .is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refusal(kind: &'static str, body: impl Into<Body>) -> (u16, String) {
        let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().unwrap())]);
        let problem = read(&headers, body.into()).await.unwrap_err();
        let message = problem.error()["message"].as_str().unwrap().to_owned();
        (problem.status().as_u16(), message)
    }

    #[tokio::test]
    async fn only_json_objects_are_read() {
        let json = "application/json; charset=utf-8";
        for (kind, body, status, said) in [
            ("text/plain", "{}".to_owned(), 415, "Content-Type"),
            (json, "{".to_owned(), 400, "line 1 column 1"),
            (json, "[1]".to_owned(), 400, "found [1]"),
            (json, "[".repeat(100_000), 400, "recursion limit"),
            (json, r#"{"a":"\ud800"}"#.to_owned(), 400, "hex escape"),
        ] {
            let (found, message) = refusal(kind, body).await;
            assert_eq!(found, status, "{message}");
            assert!(message.contains(said), "{message}");
        }
        let (_, message) = refusal(json, vec![b'"', 0xff, b'"']).await;
        assert!(message.contains("not UTF-8"), "{message}");
    }
}
