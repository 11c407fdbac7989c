//! How much one client, and all of them, may ask for: the size of a body, and
//! requests that run or wait.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{header, HeaderMap, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{timeout_at, Instant};

use super::metrics::{Gauge, Metrics, Rejection};
use super::options::ServerOptions;
use super::problem::Problem;
use super::routes;
use super::sent::until_sent;
use crate::format;

/// How long a body may take to arrive.
const BODY_TIME: Duration = Duration::from_secs(30);
/// How much of a body that is too large is read, so that its client hears why.
const DRAINED: usize = 64 << 20;

/// What all requests share.
#[derive(Clone)]
pub(super) struct Limits {
    metrics: Arc<Metrics>,
    max_body: usize,
    slots: Arc<Semaphore>,
    count: usize,
    max_queue: u64,
    whole: Duration,
    first: Duration,
}

/// A place among the requests that run, until its last copy is dropped.
#[derive(Clone)]
pub(super) struct Slot {
    _held: Arc<(OwnedSemaphorePermit, Gauge)>,
}

/// Until when an answer must have begun and be whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadlines {
    /// The first token.
    pub(super) first: Instant,
    /// The last.
    pub(super) whole: Instant,
}

impl Limits {
    /// As `options` say.
    pub(super) fn new(metrics: Arc<Metrics>, options: &ServerOptions) -> Self {
        Self {
            metrics,
            max_body: options.max_body,
            slots: Arc::new(Semaphore::new(options.slots)),
            count: options.slots,
            max_queue: options.max_queue as u64,
            whole: options.request_timeout,
            first: options.first_token_timeout,
        }
    }

    /// A slot, once there is one.
    async fn slot(&self, deadlines: Deadlines) -> Result<Slot, Problem> {
        let permit = match self.slots.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => self.wait(deadlines).await?,
        };
        Ok(Slot {
            _held: Arc::new((permit, self.metrics.run())),
        })
    }

    async fn wait(&self, deadlines: Deadlines) -> Result<OwnedSemaphorePermit, Problem> {
        let _waiting = self.metrics.wait();
        let ahead = self.metrics.queued() - 1;
        if ahead >= self.max_queue {
            self.metrics.reject(Rejection::Queue);
            let message = format!("{ahead} requests wait for the model already; try again later");
            let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, message);
            return Err(problem.code("queue_full").retry_after(self.patience(ahead)));
        }
        match timeout_at(deadlines.first, self.slots.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => {
                self.metrics.reject(Rejection::Time);
                let message = "The model has been busy for too long; try again later";
                let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, message);
                Err(problem.code("overloaded").retry_after(self.patience(ahead)))
            }
        }
    }

    /// Seconds in which a queue of this length is likely to be gone.
    fn patience(&self, queue: u64) -> u64 {
        const MOST: f64 = 60.0;
        let mean = self.metrics.mean_latency().unwrap_or(1.0);
        let seconds = mean * (queue + 1) as f64 / self.count as f64;
        seconds.ceil().clamp(1.0, MOST) as u64
    }

    fn too_large(&self) -> Problem {
        self.metrics.reject(Rejection::Body);
        let most = format::bytes(self.max_body as u64);
        let message = format!("The body of the request is larger than {most}");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, message).code("body_too_large")
    }

    /// The whole body.
    async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
        let length = headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|it| it.to_str().ok()?.parse().ok());
        let stated_too_large = length.is_some_and(|length: usize| length > self.max_body);
        if stated_too_large && headers.contains_key(header::EXPECT) {
            // It asked before sending.
            return Err(self.too_large());
        }
        let mut read = Vec::with_capacity(length.unwrap_or(0).min(self.max_body));
        let mut total = 0;
        let mut data = body.into_data_stream();
        let until = Instant::now() + BODY_TIME;
        loop {
            match timeout_at(until, data.next()).await {
                Err(_) => {
                    let message = "The body of the request did not arrive in time";
                    return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, message));
                }
                Ok(Some(Err(_))) => {
                    let message = "The body of the request is not whole";
                    return Err(Problem::new(StatusCode::BAD_REQUEST, message));
                }
                Ok(None) if total > self.max_body => return Err(self.too_large()),
                Ok(None) => return Ok(read.into()),
                Ok(Some(Ok(bytes))) => {
                    total += bytes.len();
                    if total <= self.max_body {
                        read.extend_from_slice(&bytes);
                    } else if total > DRAINED.max(self.max_body) {
                        return Err(self.too_large());
                    } else {
                        read = Vec::new();
                    }
                }
            }
        }
    }
}

/// Reads the body of a request, so that layers further in have all of it.
pub(super) async fn body(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    match limits.read(&parts.headers, body).await {
        Ok(body) => next.run(Request::from_parts(parts, Body::from(body))).await,
        Err(problem) => problem.into_response(),
    }
}

/// Has a request to the model wait for a slot, which it keeps until its answer
/// is sent.
pub(super) async fn slot(
    State(limits): State<Limits>,
    mut request: Request,
    next: Next,
) -> Response {
    if request.method() != Method::POST || !routes::runs_model(request.uri().path()) {
        return next.run(request).await;
    }
    let now = Instant::now();
    let deadlines = Deadlines {
        first: now + limits.first.min(limits.whole),
        whole: now + limits.whole,
    };
    let slot = match limits.slot(deadlines).await {
        Ok(slot) => slot,
        Err(problem) => return problem.into_response(),
    };
    request.extensions_mut().insert(slot.clone());
    request.extensions_mut().insert(deadlines);
    let Ok(response) = timeout_at(deadlines.whole, next.run(request)).await else {
        return too_slow().into_response();
    };
    until_sent(response, slot, drop)
}

/// An answer that did not come in time.
pub(super) fn too_slow() -> Problem {
    let message = "The model did not answer in time";
    Problem::new(StatusCode::GATEWAY_TIMEOUT, message).code("timeout")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::cors::Origins;

    fn limits(slots: usize, max_queue: usize) -> Limits {
        let options = ServerOptions {
            api_key: None,
            loopback: true,
            origins: Origins::new(&[]).unwrap(),
            max_body: 8,
            slots,
            max_queue,
            request_timeout: Duration::from_secs(9),
            first_token_timeout: Duration::from_millis(50),
            log: None,
        };
        Limits::new(Arc::new(Metrics::new()), &options)
    }

    fn soon() -> Deadlines {
        let now = Instant::now();
        Deadlines {
            first: now + Duration::from_millis(50),
            whole: now + Duration::from_secs(9),
        }
    }

    #[tokio::test]
    async fn who_finds_the_queue_full_is_told_to_come_back() {
        let limits = limits(1, 1);
        let slot = limits.slot(soon()).await.ok().unwrap();
        assert_eq!(Arc::strong_count(&slot._held), 1);
        assert_eq!(limits.metrics.running(), 1);
        let waits = tokio::spawn({
            let limits = limits.clone();
            async move { limits.slot(soon()).await }
        });
        while limits.metrics.queued() == 0 {
            tokio::task::yield_now().await;
        }
        let problem = limits.slot(soon()).await.err().unwrap();
        assert_eq!(problem.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(problem.into_response().headers()["retry-after"], "2");
        drop(slot);
        assert!(waits.await.unwrap().is_ok());
        assert_eq!((limits.metrics.running(), limits.metrics.queued()), (0, 0));
    }

    #[tokio::test]
    async fn who_waits_too_long_is_sent_away() {
        let limits = limits(1, 1);
        let _slot = limits.slot(soon()).await.ok().unwrap();
        let problem = limits.slot(soon()).await.err().unwrap();
        assert_eq!(problem.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(limits.metrics.queued(), 0);
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_the_limit() {
        let limits = limits(1, 1);
        let headers = HeaderMap::new();
        let fits = limits.read(&headers, Body::from("12345678")).await;
        assert_eq!(fits.unwrap(), "12345678");
        let large = limits.read(&headers, Body::from("123456789")).await;
        let problem = large.unwrap_err();
        assert_eq!(problem.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}
