//! Measures what a pruned model lost.
//!
//! [`evaluate`] runs a reference model and its variants over held-out text;
//! [`evaluator`]s turn the two next-token [`distribution`]s at each position
//! into outcomes; [`compare`] puts intervals around their means and a
//! [`report`] keeps and prints them.
//!
//! [`task`]s are items that have an answer: questions with choices, words to
//! guess, text to generate. A [`backend`] answers them:
//!
//! ```no_run
//! # use prune_eval::backend::{Http, HttpOptions};
//! # use prune_eval::{compare::Bootstrap, report::Subject, task, Report, Result};
//! # use router_stats::progress::Silent;
//! # fn compare(tokenizer: &tokenizers::Tokenizer, bootstrap: Bootstrap) -> Result<Report> {
//! let sets = [
//!     task::TaskSet::open("arc=arc_easy_val.jsonl", Some(200), 0)?,
//!     task::TaskSet::open("arithmetic", Some(100), 0)?,
//! ];
//! let mut outcomes = Vec::new();
//! for port in [1234, 1235] {
//!     let options = HttpOptions::new(format!("http://127.0.0.1:{port}"), "default");
//!     let mut backend = Http::new(options, tokenizer.clone(), &[2]);
//!     outcomes.push(task::run_tasks(&mut backend, &sets, &Silent)?);
//! }
//! let subject = |name: &str| Subject {
//!     name: name.to_owned(),
//!     fingerprint: name.to_owned(),
//!     masked: false,
//!     quantization: None,
//!     bytes: None,
//! };
//! Report::of_tasks(subject("original"), vec![subject("pruned")], bootstrap)
//!     .with_tasks(&sets, &outcomes)
//! # }
//! ```
//!
//! This crate owns evaluators, tasks, comparison statistics and reports. It
//! runs models through [`router_stats::forward`], or asks a server, and decides
//! nothing about pruning.

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
pub mod speed;
mod student;
pub mod sweep;
pub mod task;

pub use compare::Estimate;
pub use error::{Error, Result};
pub use evaluate::{evaluate, EvalOptions, Evaluation, Variant};
pub use report::Report;
pub use sweep::Sweep;
