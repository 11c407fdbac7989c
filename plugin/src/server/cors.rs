//! Which other web pages may talk to the server: none, unless they are named.

use axum::http::{header, HeaderName, HeaderValue, Method};
use tower_http::cors::{AllowHeaders, AllowOrigin, Any, CorsLayer};

use crate::{Error, Result};

/// Pages that may read answers.
#[derive(Debug, Clone)]
pub struct Origins(Vec<HeaderValue>);

impl Origins {
    /// Pages of these origins, `https://chat.example` or `*` for all.
    ///
    /// # Errors
    /// [`Error::Option`] for what is not an origin.
    pub fn new(origins: &[String]) -> Result<Self> {
        let parse = |origin: &String| match HeaderValue::from_str(origin) {
            Ok(value) if origin == "*" || is_origin(origin) => Ok(value),
            _ => Err(Error::Option {
                option: "--allow-origin",
                expected: "a scheme and a host such as https://chat.example, or *".to_owned(),
                found: origin.clone(),
            }),
        };
        origins.iter().map(parse).collect::<Result<_>>().map(Self)
    }

    /// The headers that let them; `None` if there are none.
    pub(super) fn layer(&self) -> Option<CorsLayer> {
        let origin = match &self.0[..] {
            [] => return None,
            origins if origins.iter().any(|origin| origin == "*") => Any.into(),
            origins => AllowOrigin::list(origins.iter().cloned()),
        };
        let exposed = [header::RETRY_AFTER, HeaderName::from_static("x-request-id")];
        Some(
            CorsLayer::new()
                .allow_origin(origin)
                .allow_methods([Method::GET, Method::POST, Method::DELETE])
                // Clients send many of their own, which decide nothing here.
                .allow_headers(AllowHeaders::mirror_request())
                .expose_headers(exposed),
        )
    }
}

/// Whether it is `scheme://host[:port]` and nothing more.
fn is_origin(text: &str) -> bool {
    text.split_once("://").is_some_and(|(scheme, host)| {
        matches!(scheme, "http" | "https")
            && !host.is_empty()
            && host
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-.:[]".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_has_no_path() {
        for origin in ["https://chat.example", "http://localhost:3000", "*"] {
            assert!(Origins::new(&[origin.to_owned()]).is_ok(), "{origin}");
        }
        for other in [
            "chat.example",
            "https://chat.example/",
            "https://",
            "null",
            "https://a b",
        ] {
            let error = Origins::new(&[other.to_owned()]).unwrap_err();
            assert!(error.to_string().contains("--allow-origin"), "{error}");
        }
        assert!(Origins::new(&[]).unwrap().layer().is_none());
    }
}
