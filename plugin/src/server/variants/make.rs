//! A job → a variant.

use std::sync::Arc;

use tokio::sync::{Mutex, MutexGuard};

use super::variant::{Origin, Variant};
use crate::engine::load::{Engine, Ready};
use crate::engine::EngineOptions;
use crate::pipeline::{Change, Job, Reporter};
use crate::plan::PlanOptions;
use crate::server::model;
use crate::Result;

/// Makes variants of one model.
pub(super) struct Maker {
    job: Job,
    engine: EngineOptions,
    busy: Mutex<()>,
}

/// A variant that is only to be loaded.
pub(super) struct Made {
    id: String,
    change: Change,
    ready: Ready,
    bytes: u64,
}

impl Made {
    /// What it is called.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// What becomes of the model.
    pub(super) fn change(&self) -> &Change {
        &self.change
    }

    /// Bytes of its weights in memory.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Maker {
    /// Makes what differs from `job` in its change, for the engine to run as
    /// `engine` says.
    pub(super) fn new(job: Job, engine: EngineOptions) -> Self {
        Self {
            job,
            engine,
            busy: Mutex::default(),
        }
    }

    /// Has `reporter` told of what is made from now on.
    pub(super) fn tell(&mut self, reporter: Arc<dyn Reporter>) {
        self.job.reporter = reporter;
    }

    /// What `job` is, but for `change`.
    pub(super) fn job(&self, change: Change) -> Job {
        Job {
            change,
            ..self.job.clone()
        }
    }

    /// How experts are chosen, where the job does.
    pub(super) fn options(&self) -> PlanOptions {
        match &self.job.change {
            Change::Make(options) => (**options).clone(),
            Change::Nothing | Change::Plan(_) | Change::Given { .. } => PlanOptions::default(),
        }
    }

    /// What a variant is called unless it is given a name.
    pub(super) fn id(&self, change: &Change) -> String {
        self.job(change.clone()).id()
    }

    /// Waits until no other variant is being made: one at a time takes all
    /// processors and memory that there are to spare.
    pub(super) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.busy.lock().await
    }

    /// Fails if another model does not fit beside one that is loaded.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option)
    pub(super) fn leaves_room(&self) -> Result<()> {
        let device = &self.job.device;
        self.engine.paged_attention.leaves_room(device)
    }

    /// Does the job, which takes long.
    ///
    /// # Errors
    /// Those of the job.
    pub(super) fn ready(&self, id: String, change: Change) -> Result<Made> {
        let ready = Ready::new(self.job(change.clone()), id.clone(), &self.engine)?;
        Ok(Made {
            bytes: ready.bytes(&self.engine)?,
            id,
            change,
            ready,
        })
    }

    /// Loads what is made.
    ///
    /// # Errors
    /// Those of the engine.
    pub(super) async fn load(&self, made: Made, origin: Origin) -> Result<Variant> {
        let engine = Engine::start(made.ready, &self.engine).await?;
        let routes = model::routes(&engine)?;
        Ok(Variant::new(
            engine,
            routes,
            made.change,
            origin,
            made.bytes,
        ))
    }
}
