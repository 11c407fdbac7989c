//! A loaded model behind its own routes.

use std::convert::Infallible;
use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use axum::Router;
use mistralrs_core::MistralRs;
use serde::Serialize;
use tokio::sync::watch;
use tower_service::Service;

use crate::engine::load::Engine;
use crate::pipeline::{Change, Outcome};
use crate::server::sent::until_sent;
use crate::server::time::now;

/// Where a variant comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Origin {
    /// A budget was given.
    Flag,
    /// A plan was given.
    Plan,
    /// What clients asked went into its plan.
    Recalibrated,
    /// It is the model as it is.
    Original,
}

impl Origin {
    /// Where what `change` makes comes from.
    pub(super) fn of(change: &Change) -> Self {
        match change {
            Change::Nothing => Self::Original,
            Change::Plan(_) | Change::Given { .. } => Self::Plan,
            Change::Make(_) => Self::Flag,
        }
    }
}

/// A loaded model that answers requests. Its engine ends with it.
pub(super) struct Variant {
    /// What it is called.
    pub(super) id: String,
    /// Where it comes from.
    pub(super) origin: Origin,
    /// What was to become of the model.
    pub(super) change: Change,
    /// What became of it.
    pub(super) outcome: Outcome,
    /// Bytes of its weights in memory.
    pub(super) bytes: u64,
    /// When it was loaded, in seconds since 1970.
    pub(super) created: u64,
    routes: Router,
    running: watch::Sender<usize>,
    // Keeps the engine's thread alive.
    _engine: Arc<MistralRs>,
}

impl Variant {
    /// A variant that `routes` answer for.
    pub(super) fn new(
        engine: Engine,
        routes: Router,
        change: Change,
        origin: Origin,
        bytes: u64,
    ) -> Self {
        Self {
            id: engine.id,
            origin,
            change,
            outcome: engine.outcome,
            bytes,
            created: now(),
            routes,
            running: watch::Sender::new(0),
            _engine: engine.mistralrs,
        }
    }

    /// Requests that are being answered.
    pub(super) fn running(&self) -> usize {
        *self.running.borrow()
    }

    /// Ready once no request is being answered.
    pub(super) async fn idle(&self) {
        // Fails if the sender is gone, which this holds.
        let _ = self.running.subscribe().wait_for(|&count| count == 0).await;
    }
}

/// A variant that a request holds: it stays loaded for so long.
pub(super) struct InUse(Arc<Variant>);

impl InUse {
    /// Counts a request until the result is dropped.
    pub(super) fn new(variant: Arc<Variant>) -> Self {
        variant.running.send_modify(|count| *count += 1);
        Self(variant)
    }

    /// Answers `request`, and holds the variant until the answer is sent.
    pub(super) async fn answer(self, request: Request) -> Response {
        let mut routes = self.0.routes.clone();
        let answer: Result<Response, Infallible> = routes.call(request).await;
        let Ok(answer) = answer;
        until_sent(answer, self, drop)
    }
}

impl std::ops::Deref for InUse {
    type Target = Variant;

    fn deref(&self) -> &Variant {
        &self.0
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.running.send_modify(|count| *count -= 1);
    }
}
