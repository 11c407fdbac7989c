//! A loaded model behind its own layers and routes.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use axum::{middleware, Router};
use futures_util::StreamExt;
use mistralrs_core::MistralRs;
use mistralrs_server_core::mistralrs_server_router_builder::MistralRsServerRouterBuilder;
use serde::Serialize;
use tokio::sync::watch;
use tower_service::Service;

use crate::engine::load::Engine;
use crate::pipeline::{Change, Outcome};
use crate::server::echo::{self, Echo};
use crate::server::rename::{self, Renaming};
use crate::server::turn::{self, Turns};
use crate::Result;

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
    router: Router,
    running: watch::Sender<usize>,
    // Keeps the engine's thread alive.
    _engine: Arc<MistralRs>,
}

impl Variant {
    /// Puts the layers of this server around the engine's routes.
    ///
    /// # Errors
    /// If there is no tokenizer, or the engine refuses to build its routes.
    pub(super) async fn new(
        engine: Engine,
        change: Change,
        origin: Origin,
        bytes: u64,
    ) -> Result<Self> {
        let turns = Turns::default();
        let echo = Echo::new(&engine, turns.clone())?;
        let mut router = MistralRsServerRouterBuilder::new()
            .with_mistralrs(engine.mistralrs.clone())
            // Other web pages are not to talk to a model that runs here.
            .with_allowed_origins(Vec::new())
            .build()
            .await
            .map_err(crate::engine::failed("setting up the routes"))?;
        if engine.scores() {
            router = router.layer(middleware::from_fn_with_state(turns, turn::share));
        }
        router = router.layer(middleware::from_fn_with_state(echo, echo::answer));
        if let Some(names) = Renaming::new(&engine.name, &engine.id) {
            router = router.layer(middleware::from_fn_with_state(names, rename::rename));
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Ok(Self {
            id: engine.id,
            origin,
            change,
            outcome: engine.outcome,
            bytes,
            created: since.map_or(0, |since| since.as_secs()),
            router,
            running: watch::Sender::new(0),
            _engine: engine.mistralrs,
        })
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
        let mut router = self.0.router.clone();
        let answer: Result<Response, Infallible> = router.call(request).await;
        let Ok(answer) = answer;
        let (parts, body) = answer.into_parts();
        let data = body.into_data_stream().map(move |data| {
            // Held by this closure, which lives as long as the stream.
            let _ = &self;
            data
        });
        Response::from_parts(parts, Body::from_stream(data))
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
