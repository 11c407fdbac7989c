//! The laws of ARCHITECTURE.md, for the golden checkpoints of every family.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed, helpers included"
)]

mod configs;
mod cut;
mod engine;
mod from_gguf;
mod gguf;
mod golden;
mod identity;
mod load;
mod oracle;
mod quantized;
mod readme;
mod resume;
mod shards;
mod sliced;
mod statistics;
mod stored;
mod uneven;
mod unrouted;
