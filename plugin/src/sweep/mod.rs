//! What several criteria, budgets, calibration sets and seeds cost one model.
//!
//! A [`Grid`] is what is varied; [`run`] makes the plans, measures what each
//! costs and keeps a file of results that an interruption does not lose. What
//! the file says is read by [`prune_eval::sweep`].

mod grid;
mod run;

pub use grid::{every_fraction, CalibrateOn, Grid, Wanted};
pub use run::{run, SweepJob};
