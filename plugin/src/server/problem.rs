//! A request that is not answered, said as OpenAI's clients expect it.

use axum::http::{header, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::Json;
use serde_json::{json, Value};

/// Why there is no answer: a status and
/// `{"error": {"message", "type", "param", "code"}}`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Problem {
    status: StatusCode,
    message: String,
    param: Option<String>,
    code: Option<&'static str>,
    retry_after: Option<u64>,
}

impl Problem {
    /// A problem with what it says.
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            message: message.into(),
            param: None,
            code: None,
            retry_after: None,
        }
    }

    /// A field of the request that cannot be as it is.
    pub(super) fn field(field: &str, expected: &str, found: &Value) -> Self {
        let message = format!("`{field}`: expected {expected}, found {}", brief(found));
        Self::new(StatusCode::BAD_REQUEST, message).param(field)
    }

    /// What the engine or its router said of a request: an unknown model is
    /// not found.
    pub(super) fn said(status: StatusCode, message: impl Into<String>) -> Self {
        let problem = Self::new(status, message);
        if !problem.is_unknown_model() {
            return problem;
        }
        Self {
            status: StatusCode::NOT_FOUND,
            param: Some("model".to_owned()),
            code: Some("model_not_found"),
            ..problem
        }
    }

    /// With the field at fault.
    pub(super) fn param(self, field: &str) -> Self {
        Self {
            param: Some(field.to_owned()),
            ..self
        }
    }

    /// With a word for programs.
    pub(super) fn code(self, code: &'static str) -> Self {
        Self {
            code: Some(code),
            ..self
        }
    }

    /// With the seconds after which it may be tried again.
    pub(super) fn retry_after(self, seconds: u64) -> Self {
        Self {
            retry_after: Some(seconds),
            ..self
        }
    }

    /// Its status.
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }

    /// The value of `error`.
    pub(super) fn error(&self) -> Value {
        let kind = match self.status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_client_error() => "invalid_request_error",
            _ => "server_error",
        };
        json!({
            "message": self.message,
            "type": kind,
            "param": self.param,
            "code": self.code,
        })
    }

    fn is_unknown_model(&self) -> bool {
        self.message.starts_with("Requested model '") && self.message.contains("' is not available")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Json(json!({ "error": self.error() }));
        let mut response = (self.status, body).into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// A value of a request in few words: a text or a list may be long.
pub(super) fn brief(value: &Value) -> String {
    const MOST: usize = 40;
    if value.is_null() {
        return "none".to_owned();
    }
    let text = value.to_string();
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_named_with_what_was_found() {
        let long = Value::from("x".repeat(100));
        let problem = Problem::field("n", "a number from 1 to 8", &long);
        assert_eq!(problem.error()["param"], "n");
        let message = problem.error()["message"].as_str().unwrap().to_owned();
        assert!(message.starts_with("`n`: expected a number from 1 to 8, found \"xxx"));
        assert!(message.ends_with('…') && message.chars().count() < 100);
    }

    #[test]
    fn a_full_server_says_when_to_try_again() {
        let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "full").retry_after(3);
        assert_eq!(problem.error()["type"], "rate_limit_error");
        let response = problem.into_response();
        assert_eq!(response.headers()["retry-after"], "3");
    }

    #[test]
    fn an_unknown_model_is_not_found() {
        let said = "Requested model 'x' is not available. Available models: demo.";
        let problem = Problem::said(StatusCode::INTERNAL_SERVER_ERROR, said);
        assert_eq!(problem.status(), StatusCode::NOT_FOUND);
        assert_eq!(problem.error()["code"], "model_not_found");
    }
}
