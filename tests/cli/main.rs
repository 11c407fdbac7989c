//! The shipped binary, run as a user runs it.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed, helpers included"
)]

mod access;
mod answers;
mod browser;
mod config;
mod crash;
mod doctor;
mod echo;
mod errors;
mod failure;
mod families;
mod fit;
mod gguf;
mod hostile;
mod hub;
mod limits;
mod manual;
mod observe;
mod page;
mod program;
mod report;
mod search;
mod serve;
mod speed;
mod stable;
mod steps;
mod sublayers;
mod sweep;
mod tasks;
mod traffic;
mod usage;
mod variants;
mod wire;
