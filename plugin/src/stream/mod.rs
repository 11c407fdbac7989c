//! Models that are never here whole: their shards come one by one, each is used
//! and let go.
//!
//! ```text
//! arriving   shards of a hub's model: brought, verified, sampled for the fingerprint, let go
//! remote     a model that can be planned for and, block by block, calibrated
//! prune      a plan → a checkpoint, whose size and a few shards are all the disk it takes
//! journal    what a killed run had finished
//! overall    the progress of all shards as one
//! ```
//!
//! Owns which shards are here when. What is made of them is the business of
//! [`crate::surgery`] and of calibration; how they come, of [`crate::hub`].

mod arriving;
mod journal;
mod overall;
mod prune;
mod remote;

pub use prune::{prune, Pruned, Request};
pub use remote::Remote;
