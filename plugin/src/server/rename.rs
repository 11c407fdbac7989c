//! The model's name in answers.
//!
//! The engine names the model of an answer by what it was loaded from, which
//! for UQFF is a directory. Clients are told the name that they asked for.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header;
use axum::middleware::Next;
use axum::response::Response;
use futures_util::StreamExt;

/// The field of an answer, as it is and as it is to be.
#[derive(Clone)]
pub(super) struct Renaming {
    from: Arc<str>,
    to: Arc<str>,
}

impl Renaming {
    /// `None` if both names are the same.
    pub(super) fn new(from: &str, to: &str) -> Option<Self> {
        let field = |name: &str| {
            let name = serde_json::Value::from(name);
            Arc::from(format!(r#""model":{name}"#))
        };
        (from != to).then(|| Self {
            from: field(from),
            to: field(to),
        })
    }

    /// Renames in a whole answer, or in one of its events.
    fn apply(&self, data: Bytes) -> Bytes {
        match std::str::from_utf8(&data) {
            Ok(text) if text.contains(&*self.from) => text.replace(&*self.from, &self.to).into(),
            _ => data,
        }
    }
}

/// Renames the model in answers, those that stream included: the engine sends
/// an event, or a whole answer, at a time.
pub(super) async fn rename(
    State(renaming): State<Renaming>,
    request: Request,
    next: Next,
) -> Response {
    let ours = request.uri().path().starts_with("/v1/");
    let response = next.run(request).await;
    if !ours {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    parts.headers.remove(header::CONTENT_LENGTH);
    let data = body
        .into_data_stream()
        .map(move |data| data.map(|data| renaming.apply(data)));
    Response::from_parts(parts, Body::from_stream(data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_field_is_renamed() {
        let renaming = Renaming::new("/cache/a \"b\"", "b").unwrap();
        let renamed = |text: &str| renaming.apply(Bytes::copy_from_slice(text.as_bytes()));
        assert_eq!(
            renamed(r#"data: {"id":"1","model":"/cache/a \"b\"","x":"/cache/a"}"#),
            r#"data: {"id":"1","model":"b","x":"/cache/a"}"#
        );
        for other in [r#"{"model":"c"}"#, "[DONE]"] {
            assert_eq!(renamed(other), other);
        }
        assert!(Renaming::new("b", "b").is_none());
    }
}
