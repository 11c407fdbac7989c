//! mistral.rs's own router with none of our layers: what ours are measured
//! against.

use std::future::Future;
use std::net::TcpListener;
use std::sync::Arc;

use axum::Router;
use mistralrs_core::MistralRs;
use mistralrs_server_core::mistralrs_server_router_builder::MistralRsServerRouterBuilder;

use crate::engine::load::Engine;
use crate::engine::{failed, EngineOptions};
use crate::pipeline::Job;
use crate::Result;

/// A loaded model behind the engine's routes.
pub struct Plain {
    router: Router,
    // Keeps the engine's thread alive.
    _engine: Arc<MistralRs>,
}

impl Plain {
    /// Does the job and loads its result. Call it within a runtime that has
    /// more than one thread.
    ///
    /// # Errors
    /// Those of the job, and of the engine.
    pub async fn load(job: Job, options: &EngineOptions) -> Result<Self> {
        let engine = Engine::load(job, options).await?;
        let router = MistralRsServerRouterBuilder::new()
            .with_mistralrs(engine.mistralrs.clone())
            .with_allowed_origins(Vec::new())
            .build()
            .await
            .map_err(failed("setting up the routes"))?;
        Ok(Self {
            router,
            _engine: engine.mistralrs,
        })
    }

    /// Answers requests until `stop` is ready.
    ///
    /// # Errors
    /// If the listener fails.
    pub async fn run(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<()> {
        let serve = async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            axum::serve(listener, self.router)
                .with_graceful_shutdown(stop)
                .await
        };
        serve
            .await
            .map_err(anyhow::Error::from)
            .map_err(failed("serving"))
    }
}
