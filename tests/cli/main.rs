//! The shipped binary, run as a user runs it.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on has failed, helpers included"
)]

mod access;
mod answers;
mod crash;
mod echo;
mod failure;
mod families;
mod hostile;
mod limits;
mod observe;
mod program;
mod report;
mod serve;
mod speed;
mod stable;
mod steps;
mod sweep;
mod tasks;
mod usage;
mod wire;
