//! Who may ask: the optional API key.

use axum::extract::{Request, State};
use axum::http::{header, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::Json;
use serde_json::json;
use sha2::{Digest, Sha256};

/// The digest of an API key. The key itself is not kept.
#[derive(Clone)]
pub struct ApiKey([u8; 32]);

impl ApiKey {
    /// Accepts requests that show `key`.
    pub fn new(key: &str) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// Whether `key` is the right one. The time this takes does not depend on
    /// how much of it is right.
    fn accepts(&self, key: &str) -> bool {
        let other: [u8; 32] = Sha256::digest(key).into();
        self.0
            .iter()
            .zip(other)
            .fold(0, |difference, (a, b)| difference | (a ^ b))
            == 0
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKey")
    }
}

/// Lets a request pass if it shows the key as a bearer token, or only asks for
/// `/health`.
pub(super) async fn check(State(key): State<ApiKey>, request: Request, next: Next) -> Response {
    let shown = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    if request.uri().path() == "/health"
        || shown.is_some_and(|(_, token)| key.accepts(token.trim()))
    {
        return next.run(request).await;
    }
    let message = match shown {
        Some(_) => "Incorrect API key provided.",
        None => "You did not provide an API key. Send it as `Authorization: Bearer KEY`.",
    };
    let error = json!({ "error": {
        "message": message, "type": "invalid_request_error", "param": null, "code": "invalid_api_key",
    } });
    (
        StatusCode::UNAUTHORIZED,
        [(header::WWW_AUTHENTICATE, "Bearer")],
        Json(error),
    )
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_key_is_accepted() {
        let key = ApiKey::new("secret");
        assert!(key.accepts("secret"));
        for other in ["", "secre", "secret ", "Secret"] {
            assert!(!key.accepts(other), "{other}");
        }
        assert!(!format!("{key:?}").contains("secret"));
    }
}
