//! Whose turn it is: a prompt that is scored runs alone.
//!
//! The engine (0.8.1) fails if a batch holds two requests for raw logits, and
//! its thread panics if it holds one beside another request.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::Response;
use futures_util::StreamExt;
use tokio::sync::{OwnedRwLockWriteGuard, RwLock};

/// Many requests at a time, or one that is alone. They are let in in the order
/// in which they come.
#[derive(Clone, Default)]
pub(super) struct Turns(Arc<RwLock<()>>);

impl Turns {
    /// Waits until nothing else runs; nothing else does until it is dropped.
    pub(super) async fn alone(&self) -> OwnedRwLockWriteGuard<()> {
        self.0.clone().write_owned().await
    }
}

/// Has a request to the model wait for its turn, which lasts until the whole
/// answer is sent.
pub(super) async fn share(State(turns): State<Turns>, request: Request, next: Next) -> Response {
    if request.method() != Method::POST {
        return next.run(request).await;
    }
    let turn = turns.0.read_owned().await;
    let (parts, body) = next.run(request).await.into_parts();
    let data = body.into_data_stream().map(move |data| {
        // Held by this closure, which lives as long as the stream.
        let _ = &turn;
        data
    });
    Response::from_parts(parts, Body::from_stream(data))
}

#[cfg(test)]
mod tests {
    use axum::routing::post;
    use axum::{middleware, Router};

    use super::*;

    #[tokio::test]
    async fn a_turn_lasts_until_the_answer_is_sent() {
        let turns = Turns::default();
        let stream = || async {
            let parts = ["first ", "second"].map(Ok::<_, std::convert::Infallible>);
            Body::from_stream(futures_util::stream::iter(parts))
        };
        let router = Router::new()
            .route("/", post(stream).get(|| async { "healthy" }))
            .layer(middleware::from_fn_with_state(turns.clone(), share));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async { axum::serve(listener, router).await });
        let client = reqwest::Client::builder().no_proxy().build().unwrap();

        let alone = turns.alone().await;
        let healthy = client.get(&url).send().await.unwrap().text().await.unwrap();
        assert_eq!(healthy, "healthy");
        let waiting = tokio::spawn(client.post(&url).send());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        assert!(!waiting.is_finished());
        drop(alone);
        let answer = waiting.await.unwrap().unwrap().text().await.unwrap();
        assert_eq!(answer, "first second");
        drop(turns.alone().await);
        server.abort();
    }
}
