//! A sample of what clients ask, to learn from.
//!
//! Kept in memory alone, as text, up to a number of tokens; nothing here is
//! written to disk or logged. Owns what of a request is kept; which requests
//! are is [`reservoir`]'s business, and what is made of them that of
//! [`crate::pipeline::replan`].

mod document;
mod reservoir;

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use axum::http::request;
use serde_json::{json, Value};
use tokio::sync::Semaphore;

use crate::Result;
use document::{Kind, Reader};
use reservoir::Reservoir;

/// Domain of the sample in statistics and plans.
pub(super) const DOMAIN: &str = "traffic";

/// Requests that are read at the same time; beyond them, requests are missed
/// rather than kept waiting.
const READERS: usize = 2;

/// No document takes more than this part of the sample.
const LARGEST_PART: usize = 8;

/// A bounded sample of requests.
pub(super) struct Sample {
    most: usize,
    reader: Reader,
    readers: Arc<Semaphore>,
    reservoir: Mutex<Reservoir>,
    missed: AtomicU64,
}

/// A request that may be kept.
pub(super) struct Candidate {
    kind: Kind,
    body: Bytes,
}

impl Sample {
    /// A sample of at most `most` tokens of what the model in `dir` is asked.
    ///
    /// # Errors
    /// If its tokenizer or its chat template cannot be read.
    pub(super) fn new(most: usize, dir: &Path) -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            most,
            reader: Reader::new(dir, (most / LARGEST_PART).max(1))?,
            readers: Arc::new(Semaphore::new(READERS)),
            reservoir: Mutex::new(Reservoir::new(most)),
            missed: AtomicU64::new(0),
        }))
    }

    /// What of a request could be kept, should it be answered.
    pub(super) fn candidate(parts: &request::Parts, body: &Bytes) -> Option<Candidate> {
        let kind = match parts.uri.path() {
            "/v1/chat/completions" => Kind::Chat,
            "/v1/completions" => Kind::Completion,
            _ => return None,
        };
        Some(Candidate {
            kind,
            body: body.clone(),
        })
    }

    /// Considers a request that was answered, beside those that are served.
    pub(super) fn offer(self: &Arc<Self>, candidate: Candidate) {
        let Ok(permit) = self.readers.clone().try_acquire_owned() else {
            self.missed.fetch_add(1, Ordering::Relaxed);
            return;
        };
        let sample = self.clone();
        tokio::task::spawn_blocking(move || {
            let documents = sample.reader.read(candidate.kind, &candidate.body);
            let mut reservoir = sample.lock();
            for document in documents {
                reservoir.offer(document);
            }
            drop(permit);
        });
    }

    /// Tokens of the sample, at most.
    pub(super) fn most(&self) -> usize {
        self.most
    }

    /// The texts of the sample.
    pub(super) fn texts(&self) -> Vec<String> {
        self.lock().texts()
    }

    /// How much there is, and of how much it is a sample.
    pub(super) fn describe(&self) -> Value {
        let reservoir = self.lock();
        json!({
            "most_tokens": self.most,
            "tokens": reservoir.tokens(),
            "prompts": reservoir.len(),
            "seen": reservoir.seen(),
            "missed": self.missed.load(Ordering::Relaxed),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Reservoir> {
        self.reservoir
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
