//! What goes wrong with variants, as the server says it.

use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;

use crate::server::problem::Problem;
use crate::Error;

/// No variant is called `name`; those are `known`.
pub(super) fn unknown_model(name: &str, known: &str) -> Problem {
    let message = format!("Requested model '{name}' is not available. Available models: {known}.");
    Problem::said(StatusCode::NOT_FOUND, message)
}

/// It cannot be done as things are.
pub(super) fn conflict(message: impl Into<String>) -> Problem {
    Problem::new(StatusCode::CONFLICT, message)
}

/// A body that is not what it must be.
pub(super) fn unread(rejection: JsonRejection) -> Problem {
    let status = match rejection.status() {
        StatusCode::UNPROCESSABLE_ENTITY => StatusCode::BAD_REQUEST,
        other => other,
    };
    Problem::new(status, rejection.body_text())
}

impl From<Error> for Problem {
    /// A failed job: the request's fault if it asked for what the model cannot
    /// be.
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
        let status = match refused {
            true => StatusCode::BAD_REQUEST,
            false => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, message)
    }
}
