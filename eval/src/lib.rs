//! Measures what a pruned model lost.
//!
//! [`evaluate`] runs a reference model and its variants over held-out text;
//! [`evaluator`]s turn the two next-token [`distribution`]s at each position
//! into outcomes; [`compare`] puts intervals around their means and a
//! [`report`] keeps and prints them.
//!
//! This crate owns evaluators, comparison statistics and reports. It runs
//! models through [`router_stats::forward`] and decides nothing about pruning.

pub mod backend;
pub mod compare;
pub mod distribution;
mod error;
mod evaluate;
pub mod evaluator;
pub mod figure;
pub mod page;
pub mod report;
mod score;
mod student;
pub mod sweep;
pub mod task;

pub use compare::Estimate;
pub use error::{Error, Result};
pub use evaluate::{evaluate, EvalOptions, Evaluation, Variant};
pub use report::Report;
pub use sweep::Sweep;
