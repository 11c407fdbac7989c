//! What goes wrong with variants, said as OpenAI clients expect it.

use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::Json;
use serde_json::json;

use crate::Error;

/// A request that is not done, and why.
#[derive(Debug)]
pub(super) struct Problem {
    status: StatusCode,
    message: String,
    param: Option<&'static str>,
    code: Option<&'static str>,
}

impl Problem {
    fn new(status: StatusCode, message: String) -> Self {
        Self {
            status,
            message,
            param: None,
            code: None,
        }
    }

    /// No variant is called `name`; those are `known`.
    pub(super) fn unknown_model(name: &str, known: &str) -> Self {
        Self {
            param: Some("model"),
            code: Some("model_not_found"),
            ..Self::new(
                StatusCode::NOT_FOUND,
                format!("The model `{name}` does not exist; there are: {known}, default."),
            )
        }
    }

    /// The name is another's.
    pub(super) fn taken(id: &str) -> Self {
        Self {
            param: Some("id"),
            ..Self::conflict(format!("`{id}` is the name of another variant"))
        }
    }

    /// It cannot be done as things are.
    pub(super) fn conflict(message: String) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    /// The request makes no sense.
    pub(super) fn refused(param: &'static str, message: String) -> Self {
        Self {
            param: Some(param),
            ..Self::new(StatusCode::BAD_REQUEST, message)
        }
    }

    /// Clients may not change variants here.
    pub(super) fn forbidden() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "Variants are changed only on a server that has an API key or listens on this \
             machine alone."
                .to_owned(),
        )
    }

    /// The work failed.
    pub(super) fn failed(message: String) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let refused = error.is_usage()
            || matches!(
                error,
                Error::Plan { .. } | Error::OtherModel { .. } | Error::PlanVersion { .. }
            );
        let message = match error.hint() {
            Some(hint) => format!("{error}; {hint}"),
            None => error.to_string(),
        };
        match refused {
            true => Self::new(StatusCode::BAD_REQUEST, message),
            false => Self::failed(message),
        }
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        Self::new(rejection.status(), rejection.body_text())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let kind = if self.status.is_client_error() {
            "invalid_request_error"
        } else {
            "server_error"
        };
        let error = json!({ "error": {
            "message": self.message, "type": kind, "param": self.param, "code": self.code,
        } });
        (self.status, Json(error)).into_response()
    }
}
