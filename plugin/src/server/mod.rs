//! The engine behind an OpenAI-compatible HTTP server.
//!
//! This file puts the layers together, one file each; what a model says is
//! [`crate::engine`]'s business.

mod access;
mod echo;
mod page;
mod refusal;
mod rename;
mod turn;

use std::future::Future;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::routing::get;
use axum::{middleware, Json, Router};
use mistralrs_core::MistralRs;
use mistralrs_server_core::mistralrs_server_router_builder::MistralRsServerRouterBuilder;
use serde_json::{json, Value};

pub use access::ApiKey;

use crate::engine::load::Engine;
use crate::engine::{self, EngineOptions};
use crate::pipeline::{Job, Outcome};
use crate::{Error, Result};
use echo::Echo;
use rename::Renaming;
use turn::Turns;

/// How long answers may take to finish once the server is asked to stop.
const GRACE: Duration = Duration::from_secs(10);

/// Binds an address, so that one that is taken is known before the long work.
///
/// # Errors
/// [`Error::Listen`]
pub fn listen(host: &str, port: u16) -> Result<TcpListener> {
    let fail = |source| Error::Listen {
        host: host.to_owned(),
        port,
        source,
    };
    let listener = TcpListener::bind((host, port)).map_err(fail)?;
    listener.set_nonblocking(true).map_err(fail)?;
    Ok(listener)
}

/// A loaded model behind its routes.
pub struct Server {
    router: Router,
    outcome: Outcome,
    // Keeps the engine's thread alive.
    _engine: Arc<MistralRs>,
}

impl Server {
    /// Does the job and loads its result. Call it within a runtime that has
    /// more than one thread.
    ///
    /// # Errors
    /// Those of the job, and of the engine.
    pub async fn load(job: Job, options: EngineOptions, api_key: Option<ApiKey>) -> Result<Self> {
        let engine = Engine::load(job, &options).await?;
        let turns = Turns::default();
        let echo = Echo::new(&engine, turns.clone())?;
        let Engine {
            mistralrs, outcome, ..
        } = &engine;
        let pruning = description(&engine.id, outcome)?;
        let mut router = MistralRsServerRouterBuilder::new()
            .with_mistralrs(mistralrs.clone())
            // Other web pages are not to talk to a model that runs here.
            .with_allowed_origins(Vec::new())
            .build()
            .await
            .map_err(engine::failed("setting up the routes"))?
            .route(
                "/v1/pruning",
                get(move || std::future::ready(Json(pruning))),
            );
        if engine.scores() {
            router = router.layer(middleware::from_fn_with_state(turns.clone(), turn::share));
        }
        let mut router = router
            .layer(middleware::from_fn_with_state(echo, echo::answer))
            .layer(middleware::from_fn(refusal::reword));
        if let Some(names) = Renaming::new(&engine.name, &engine.id) {
            router = router.layer(middleware::from_fn_with_state(names, rename::rename));
        }
        if let Some(key) = api_key {
            router = router.layer(middleware::from_fn_with_state(key, access::check));
        }
        Ok(Self {
            // The page is for anyone; what it shows it asks for as they do.
            router: page::routes().fallback_service(router),
            outcome: engine.outcome,
            _engine: engine.mistralrs,
        })
    }

    /// What is served.
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// Answers requests until `stop` is ready, then finishes the answers that
    /// have begun.
    ///
    /// # Errors
    /// If the listener fails.
    pub async fn run(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<()> {
        let failed = |error: std::io::Error| Error::Engine {
            what: "serving",
            reason: error.to_string(),
        };
        let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
        let (stopping, stopped) = tokio::sync::oneshot::channel();
        let server = axum::serve(listener, self.router).with_graceful_shutdown(async move {
            stop.await;
            // Nobody waits any more if the server has failed meanwhile.
            let _ = stopping.send(());
        });
        tokio::select! {
            result = async { server.await } => result.map_err(failed),
            () = grace(stopped) => Ok(()),
        }
    }
}

/// Ready some time after `stopped` is.
async fn grace(stopped: tokio::sync::oneshot::Receiver<()>) {
    match stopped.await {
        Ok(()) => tokio::time::sleep(GRACE).await,
        Err(_) => std::future::pending().await,
    }
}

/// What `/v1/pruning` answers: the plan and what it cost.
fn description(id: &str, outcome: &Outcome) -> Result<Value> {
    Ok(json!({
        "object": "pruning",
        "model": id,
        "pruned": outcome.plan.is_some(),
        "plan": outcome.plan,
        "evaluation": outcome.report,
        "caveat": outcome.caveat,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_an_error_with_advice() {
        let first = listen("127.0.0.1", 0).unwrap();
        let port = first.local_addr().unwrap().port();
        let error = listen("127.0.0.1", port).unwrap_err();
        assert!(error.to_string().contains(&port.to_string()));
        assert!(error.hint().unwrap().contains("--port"));
    }
}
