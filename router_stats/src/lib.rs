//! Reads Mixture-of-Experts checkpoints and measures how they route.
//!
//! Data flows one way: a [`checkpoint`] is described by its [`family`], run
//! block by block by [`forward`], which emits events that [`observer`]s turn
//! into mergeable [`stats`]; [`calibration`] drives the pass over a corpus.
//!
//! This crate owns checkpoints on disk, model families, the observed forward
//! pass and statistics. It does not decide what to prune and knows no engine.

pub mod atomic;
pub mod calibration;
pub mod checkpoint;
mod error;
pub mod family;
pub mod forward;
pub mod gguf;
pub mod observer;
pub mod progress;
pub mod size;
pub mod stats;

pub use error::{Error, Result};
