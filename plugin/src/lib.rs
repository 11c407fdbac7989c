//! Prunes Mixture-of-Experts checkpoints and serves them with mistral.rs.
//!
//! Data flows one way: statistics ([`router_stats`]) become scores
//! ([`saliency`]), scores become kept counts ([`allocate`], [`layers`]), those
//! a [`plan`], and the plan a smaller checkpoint ([`surgery`]). [`pipeline`]
//! strings the steps together and [`cache`]s each of them; [`engine`] loads the
//! result and [`server`] puts it behind HTTP. [`stream`] does the same for models
//! that the disk has no room for.
//!
//! This crate owns what to prune, writing it, and everything that names
//! mistral.rs. It owns no forward pass (`router_stats`) and no metric
//! (`prune_eval`).

pub mod allocate;
pub mod cache;
mod check;
pub mod cli;
mod companions;
pub mod demo;
pub mod device;
pub mod engine;
mod error;
mod format;
pub mod hub;
pub mod layers;
pub mod memory;
pub mod pipeline;
pub mod plan;
mod registry;
pub mod report;
pub mod saliency;
pub mod search;
pub mod server;
pub mod solve;
mod space;
pub mod stability;
pub mod stream;
pub mod surgery;
pub mod sweep;

pub use error::{Error, Result};
