//! How the server treats its clients.

use std::time::Duration;

use super::access::ApiKey;
use super::cors::Origins;
use super::log::AccessLog;

/// Who may ask, how much, and what is said of it.
#[derive(Clone)]
pub struct ServerOptions {
    /// The key that requests must show; `None` for no key.
    pub api_key: Option<ApiKey>,
    /// Whether only this machine can reach it.
    pub loopback: bool,
    /// Other web pages that may read answers.
    pub origins: Origins,
    /// Largest body of a request, in bytes.
    pub max_body: usize,
    /// Requests that the model answers at the same time.
    pub slots: usize,
    /// Requests that may wait for a slot.
    pub max_queue: usize,
    /// From a request to the end of its answer.
    pub request_timeout: Duration,
    /// From a request to the first token of its answer.
    pub first_token_timeout: Duration,
    /// Is told of every request.
    pub log: Option<AccessLog>,
}
