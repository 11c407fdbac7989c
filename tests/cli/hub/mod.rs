//! A model hub on the loopback interface, and what happens between it and the
//! binary.

mod faults;
mod journey;
mod push;
mod pushed;
mod server;
mod sharded;
#[cfg(unix)]
mod stream;
#[cfg(unix)]
mod stream_calibrate;
