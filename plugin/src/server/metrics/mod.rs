//! What the server has done so far: counters that every layer adds to.
//!
//! Nothing here is of a single request, its words or its sender.

mod histogram;
mod rate;
mod text;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use histogram::Histogram;
use rate::Rate;
pub(super) use text::KIND;

/// Why requests are turned away before the model sees them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Rejection {
    /// The queue is full.
    Queue,
    /// It waited in the queue for too long.
    Time,
    /// The body is too large.
    Body,
}

/// Counters of one server.
#[derive(Debug)]
pub(super) struct Metrics {
    started: Instant,
    /// By route and status.
    requests: Mutex<BTreeMap<(&'static str, u16), u64>>,
    prompt_tokens: AtomicU64,
    completion_tokens: AtomicU64,
    latency: Histogram,
    first_token: Histogram,
    rate: Rate,
    /// Requests that have a slot.
    running: AtomicU64,
    /// Requests that wait for one.
    queued: AtomicU64,
    rejected: [AtomicU64; 3],
}

impl Metrics {
    /// All zero.
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            requests: Mutex::default(),
            prompt_tokens: AtomicU64::new(0),
            completion_tokens: AtomicU64::new(0),
            latency: Histogram::default(),
            first_token: Histogram::default(),
            rate: Rate::default(),
            running: AtomicU64::new(0),
            queued: AtomicU64::new(0),
            rejected: Default::default(),
        }
    }

    /// Counts a finished request to a route.
    pub(super) fn request(&self, route: &'static str, status: u16) {
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        *requests.entry((route, status)).or_default() += 1;
    }

    /// Counts an answer of the model.
    pub(super) fn answer(&self, time: Duration, first_token: Option<Duration>, prompt: u64) {
        self.latency.observe(time);
        if let Some(first) = first_token {
            self.first_token.observe(first);
        }
        self.prompt_tokens.fetch_add(prompt, Ordering::Relaxed);
    }

    /// Counts tokens as they are generated.
    pub(super) fn generated(&self, tokens: u64) {
        self.completion_tokens.fetch_add(tokens, Ordering::Relaxed);
        self.rate.add(self.started.elapsed().as_secs(), tokens);
    }

    /// Counts a request that was turned away.
    pub(super) fn reject(&self, why: Rejection) {
        self.rejected[why as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// One more request runs until the guard is dropped.
    pub(super) fn run(self: &Arc<Self>) -> Gauge {
        Gauge::new(self.clone(), |metrics| &metrics.running)
    }

    /// One more request waits until the guard is dropped.
    pub(super) fn wait(self: &Arc<Self>) -> Gauge {
        Gauge::new(self.clone(), |metrics| &metrics.queued)
    }

    /// Seconds since the start.
    pub(super) fn uptime(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }

    /// Requests that have a slot.
    pub(super) fn running(&self) -> u64 {
        self.running.load(Ordering::Relaxed)
    }

    /// Requests that wait for a slot.
    pub(super) fn queued(&self) -> u64 {
        self.queued.load(Ordering::Relaxed)
    }

    /// Finished requests to all routes.
    pub(super) fn requests(&self) -> u64 {
        let requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        requests.values().sum()
    }

    /// Tokens of prompts, and those generated.
    pub(super) fn tokens(&self) -> (u64, u64) {
        (
            self.prompt_tokens.load(Ordering::Relaxed),
            self.completion_tokens.load(Ordering::Relaxed),
        )
    }

    /// Tokens generated in a second, over the last few.
    pub(super) fn tokens_per_second(&self) -> f64 {
        self.rate.per_second(self.started.elapsed().as_secs())
    }

    /// Mean seconds of an answer.
    pub(super) fn mean_latency(&self) -> Option<f64> {
        self.latency.mean()
    }
}

/// One of what is there at the moment, as long as it lives.
pub(super) struct Gauge {
    metrics: Arc<Metrics>,
    of: fn(&Metrics) -> &AtomicU64,
}

impl Gauge {
    fn new(metrics: Arc<Metrics>, of: fn(&Metrics) -> &AtomicU64) -> Self {
        of(&metrics).fetch_add(1, Ordering::Relaxed);
        Self { metrics, of }
    }
}

impl Drop for Gauge {
    fn drop(&mut self) {
        (self.of)(&self.metrics).fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_goes_down_when_dropped() {
        let metrics = Arc::new(Metrics::new());
        let (one, two) = (metrics.run(), metrics.run());
        let waiting = metrics.wait();
        assert_eq!((metrics.running(), metrics.queued()), (2, 1));
        drop((one, waiting));
        assert_eq!((metrics.running(), metrics.queued()), (1, 0));
        drop(two);
        assert_eq!(metrics.running(), 0);
    }
}
