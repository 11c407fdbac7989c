//! Models as the engine is to load them.

use std::sync::Arc;

use tempfile::TempDir;

use super::variants::Origin;
use crate::cache::Cache;
use crate::cli::args::ModelArgs;
use crate::cli::job::{local, unmeasured};
use crate::cli::progress::Console;
use crate::pipeline::{Change, Job};
use crate::{plan, Result};

/// Where models are found and who is told.
pub(super) struct Jobs<'a> {
    pub(super) model: &'a ModelArgs,
    pub(super) cache: &'a Cache,
    pub(super) console: &'a Arc<Console>,
}

impl Jobs<'_> {
    /// The job that leaves a model, and the folder that must stay until it is
    /// done: a plan made on the fly has no file yet.
    ///
    /// # Errors
    /// If that file cannot be written.
    pub(super) fn of(&self, origin: Origin<'_>) -> Result<(TempDir, Job)> {
        let folder = tempfile::tempdir()
            .map_err(|error| router_stats::Error::io(&std::env::temp_dir())(error))?;
        let mut source = self.model.source();
        let change = match origin {
            Origin::Reference => Change::Nothing,
            Origin::Plan(plan) => {
                let path = folder.path().join("eval.plan.json");
                plan::write(plan.plan(), &path)?;
                Change::Plan(path)
            }
            Origin::Checkpoint(dir) => {
                source = local(dir);
                Change::Nothing
            }
        };
        let job = unmeasured(
            source,
            change,
            self.model.device()?,
            self.cache.clone(),
            self.console.clone(),
        );
        Ok((folder, job))
    }
}
