//! Knowing when an answer is sent.

use axum::body::{Body, HttpBody};
use axum::http::{header, HeaderValue};
use axum::response::Response;
use futures_util::StreamExt;

/// Keeps `guard` until the answer is sent, then gives it to `end`; an answer
/// that is not sent to its end drops it.
pub(super) fn until_sent<G: Send + 'static>(response: Response, guard: G, end: fn(G)) -> Response {
    let (mut parts, body) = response.into_parts();
    let stated = parts.headers.get(header::CONTENT_LENGTH);
    let stated = stated.and_then(|length| length.to_str().ok()?.parse().ok());
    let length = stated.or_else(|| body.size_hint().exact());
    // A stream has no length of its own, so that it has to be said.
    if let Some(length) = length {
        let length = HeaderValue::from(length);
        parts
            .headers
            .entry(header::CONTENT_LENGTH)
            .or_insert(length);
    }
    let state = (body.into_data_stream(), Some(guard), length);
    let data = futures_util::stream::unfold(state, move |(mut data, mut guard, left)| async move {
        let bytes = data.next().await;
        let sent = bytes.as_ref().and_then(|it| it.as_ref().ok());
        let left = left.map(|left| left.saturating_sub(sent.map_or(0, |it| it.len() as u64)));
        // Nobody asks for more once all that was announced is there.
        if bytes.is_none() || left == Some(0) {
            guard.take().into_iter().for_each(end);
        }
        bytes.map(|bytes| (bytes, (data, guard, left)))
    });
    Response::from_parts(parts, Body::from_stream(data))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering};
    use std::sync::Arc;

    use super::*;

    /// What became of a guard: 1 ended, 2 dropped before.
    struct Guard(Arc<AtomicU8>, u8);

    impl Drop for Guard {
        fn drop(&mut self) {
            self.0.store(self.1, Ordering::SeqCst);
        }
    }

    fn end(mut guard: Guard) {
        guard.1 = 1;
    }

    #[tokio::test]
    async fn the_guard_knows_whether_all_was_sent() {
        let became = |body: Body, polls: usize| async move {
            let state = Arc::new(AtomicU8::new(0));
            let response = until_sent(Response::new(body), Guard(state.clone(), 2), end);
            let mut data = response.into_body().into_data_stream();
            for _ in 0..polls {
                data.next().await;
            }
            let before = state.load(Ordering::SeqCst);
            drop(data);
            (before, state.load(Ordering::SeqCst))
        };
        let parts = || {
            let parts = ["a", "b"].map(Ok::<_, std::convert::Infallible>);
            Body::from_stream(futures_util::stream::iter(parts))
        };
        // A whole body is sent at once, and not asked for more.
        assert_eq!(became(Body::from("ab"), 1).await, (1, 1));
        assert_eq!(became(Body::from("ab"), 0).await, (0, 2));
        assert_eq!(became(parts(), 2).await, (0, 2));
        assert_eq!(became(parts(), 3).await, (1, 1));
        // Nor is it by a layer further out.
        let state = Arc::new(AtomicU8::new(0));
        let inner = until_sent(Response::new(Body::from("ab")), (), drop);
        let outer = until_sent(inner, Guard(state.clone(), 2), end);
        outer.into_body().into_data_stream().next().await;
        assert_eq!(state.load(Ordering::SeqCst), 1);
    }
}
