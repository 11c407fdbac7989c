//! Looking for the plan that loses least, by running candidates.
//!
//! An [`Objective`] says how good a candidate is on calibration text, in a
//! masked forward pass; a [`Journal`] keeps every answer, so that a search that
//! was killed goes on where it was. Searches run forwards only and never see
//! held-out text.
//!
//! Owns how candidates are measured. It does not own what a plan has to respect
//! ([`crate::plan`]), which text is used ([`crate::pipeline`]), nor how a model
//! is run ([`prune_eval`]).

mod journal;
mod objective;
mod progress;
#[cfg(test)]
mod tests;
mod text;

pub use journal::{Header, Journal};
pub use objective::{Fitness, Objective};
pub use text::SearchText;

/// Tokens over all domains that candidates are measured on unless told
/// otherwise.
pub const SEARCH_TOKENS: usize = 8192;
