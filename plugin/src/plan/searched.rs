//! What a plan says of the search that it comes from.

use serde::{Deserialize, Serialize};

/// What a candidate is worth on the text of a search. Domains are mixed by
/// their weights, as in an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fitness {
    /// E Σ_v min(p_v, q_v) with p of the original and q of the candidate:
    /// between 0 and 1, higher is better (EvoESAP, arXiv 2603.06003).
    pub overlap: f64,
    /// Mean negative log-likelihood in nats a token, lower is better.
    pub nll: f64,
}

/// The search that a plan comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Searched {
    /// A name of [`crate::search::SEARCHES`].
    pub name: String,
    /// Tokens of calibration text that candidates were measured on.
    pub tokens: u64,
    /// Hash of those tokens.
    pub text: String,
    /// Different candidates that were measured.
    pub candidates: u64,
    /// What the plan without a search is worth.
    pub before: Fitness,
    /// What this plan is worth; it does not share less with the original.
    pub after: Fitness,
}
