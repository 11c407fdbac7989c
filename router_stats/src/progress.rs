//! How long work reports what it is doing and learns that it should stop.
//!
//! Libraries emit [`Update`]s; only a command line turns them into bars.

use crate::{Error, Result};

/// One step of a long stage.
#[derive(Debug, Clone, Copy)]
pub struct Update<'a> {
    /// What is being done, a present participle: `Calibrating`.
    pub stage: &'a str,
    /// Where in the stage: `layer 3/48`; empty if there is nothing to say.
    pub detail: &'a str,
    /// What is counted: `tok`, `B`.
    pub unit: &'a str,
    /// Work done so far, in `unit`.
    pub done: u64,
    /// All work of the stage, in `unit`.
    pub total: u64,
}

/// Receives progress and carries the user's wish to stop.
pub trait Progress: Sync {
    /// Called often; must be cheap.
    fn update(&self, update: &Update<'_>);

    /// True once the user has asked to stop.
    fn cancelled(&self) -> bool {
        false
    }

    /// Reports `update`, then fails if the user has asked to stop.
    ///
    /// # Errors
    /// [`Error::Interrupted`] if [`cancelled`](Self::cancelled).
    fn step(&self, update: &Update<'_>) -> Result<()> {
        self.update(update);
        if self.cancelled() {
            return Err(Error::Interrupted);
        }
        Ok(())
    }
}

/// Reports nothing and never stops.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn update(&self, _: &Update<'_>) {}
}
