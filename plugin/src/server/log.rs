//! One entry for every request: who asked what is not in it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use serde::Serialize;

use super::metrics::Metrics;
use super::options::ServerOptions;
use super::routes;
use super::sent::until_sent;

/// Status of a request whose client left before there was an answer.
const CLIENT_LEFT: u16 = 499;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What is told of a finished request. No word of a prompt or an answer.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// `x-request-id`, of the client or made here.
    pub id: String,
    /// `POST`.
    pub method: String,
    /// Path, `other` for one that is not a route's.
    pub route: &'static str,
    /// Status; 499 if the client left before there was one.
    pub status: u16,
    /// Time to the end of the answer, in milliseconds.
    pub ms: u64,
    /// Time to the first token, in milliseconds.
    pub first_token_ms: Option<u64>,
    /// Tokens of the prompts.
    pub prompt_tokens: u64,
    /// Tokens generated.
    pub completion_tokens: u64,
    /// Whether the client left before the end.
    pub cut: bool,
}

/// What is told of every request; must not block.
pub type AccessLog = Arc<dyn Fn(&Entry) + Send + Sync>;

/// What layers further in learn of the request at hand.
#[derive(Clone)]
pub(super) struct Tally(Arc<Counts>);

struct Counts {
    metrics: Arc<Metrics>,
    started: Instant,
    first: OnceLock<Duration>,
    prompt: AtomicU64,
    completion: AtomicU64,
}

impl Tally {
    fn new(metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Counts {
            metrics,
            started: Instant::now(),
            first: OnceLock::new(),
            prompt: AtomicU64::new(0),
            completion: AtomicU64::new(0),
        }))
    }

    /// The tokens of a prompt that the model has read.
    pub(super) fn prompt(&self, tokens: u64) {
        self.0.prompt.fetch_add(tokens, Ordering::Relaxed);
    }

    /// As many more tokens are generated.
    pub(super) fn generated(&self, tokens: u64) {
        self.0.first.get_or_init(|| self.0.started.elapsed());
        self.0.completion.fetch_add(tokens, Ordering::Relaxed);
        self.0.metrics.generated(tokens);
    }
}

/// Told of every request.
#[derive(Clone)]
pub(super) struct Observer {
    metrics: Arc<Metrics>,
    log: Option<AccessLog>,
}

impl Observer {
    /// Counts in `metrics` and logs as `options` say.
    pub(super) fn new(metrics: Arc<Metrics>, options: &ServerOptions) -> Self {
        Self {
            metrics,
            log: options.log.clone(),
        }
    }
}

/// A request that is being answered; says so when it is dropped.
struct Exchange {
    observer: Observer,
    tally: Tally,
    entry: Entry,
    runs_model: bool,
}

impl Exchange {
    /// The whole answer is sent.
    fn finish(mut self) {
        self.entry.cut = false;
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let counts = &self.tally.0;
        let (time, first) = (counts.started.elapsed(), counts.first.get().copied());
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let entry = &mut self.entry;
        entry.ms = millis(time);
        entry.first_token_ms = first.map(millis);
        entry.prompt_tokens = counts.prompt.load(Ordering::Relaxed);
        entry.completion_tokens = counts.completion.load(Ordering::Relaxed);
        let metrics = &self.observer.metrics;
        metrics.request(entry.route, entry.status);
        if self.runs_model && entry.status < 400 {
            metrics.answer(time, first, entry.prompt_tokens);
        }
        if let Some(log) = &self.observer.log {
            log(entry);
        }
    }
}

/// Counts and logs a request once its answer is sent, and gives the answer the
/// request's id.
pub(super) async fn observe(
    State(observer): State<Observer>,
    mut request: Request,
    next: Next,
) -> Response {
    let tally = Tally::new(observer.metrics.clone());
    let id = request_id(request.headers());
    let path = request.uri().path();
    let mut exchange = Exchange {
        runs_model: routes::runs_model(path),
        entry: Entry {
            id: id.to_str().unwrap_or_default().to_owned(),
            method: request.method().to_string(),
            route: routes::label(path),
            status: CLIENT_LEFT,
            ms: 0,
            first_token_ms: None,
            prompt_tokens: 0,
            completion_tokens: 0,
            cut: true,
        },
        tally: tally.clone(),
        observer,
    };
    request.extensions_mut().insert(tally);
    let mut response = next.run(request).await;
    exchange.entry.status = response.status().as_u16();
    response.headers_mut().insert(REQUEST_ID.clone(), id);
    until_sent(response, exchange, Exchange::finish)
}

/// The client's own id if it is a short word, or a new one.
fn request_id(headers: &HeaderMap) -> HeaderValue {
    const MOST: usize = 64;
    let is_word = |id: &&HeaderValue| {
        let bytes = id.as_bytes();
        let allowed = |&b: &u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        (1..=MOST).contains(&bytes.len()) && bytes.iter().all(allowed)
    };
    let given = headers.get(&REQUEST_ID).filter(is_word);
    given.cloned().unwrap_or_else(new_id)
}

/// An id that no other request of this process has.
fn new_id() -> HeaderValue {
    static START: LazyLock<u64> = LazyLock::new(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.map_or(0, |now| now.as_nanos() as u64)
    });
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let next = NEXT.fetch_add(1, Ordering::Relaxed);
    HeaderValue::from_str(&format!("req-{:016x}-{next:x}", *START))
        .unwrap_or(HeaderValue::from_static("req"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_short_word_is_taken_over_as_an_id() {
        let id = |given: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID.clone(), HeaderValue::from_str(given).unwrap());
            request_id(&headers)
        };
        assert_eq!(id("trace-1.a_B"), "trace-1.a_B");
        for other in ["", "a b", "a;b", "<script>", &"x".repeat(65)] {
            assert!(id(other).to_str().unwrap().starts_with("req-"), "{other}");
        }
        assert_ne!(new_id(), new_id());
    }
}
