//! The engine behind an OpenAI-compatible HTTP server.
//!
//! This file puts the layers together, one file each; what a model says is
//! [`crate::engine`]'s business. A request passes, in this order: the log and
//! the counters (`log`), `cors`, the shape of failures (`refusal`), the name
//! it calls the server by (`host`), the key (`access`), the limits (`limits`),
//! and the routes: of `variants`, which pass on to the routes of one `model`,
//! or of the server itself (`status`, `docs`, `page`). Nothing of a request
//! that shows no key is read, and it waits in no queue.

mod access;
mod answer;
mod connection;
mod cors;
mod docs;
mod echo;
mod host;
mod limits;
mod log;
mod metrics;
mod model;
mod options;
mod page;
mod plain;
mod problem;
mod refusal;
mod routes;
mod sent;
mod status;
mod time;
mod turn;
mod variants;

use std::future::Future;
use std::net::TcpListener;
use std::sync::Arc;

use axum::{middleware, Router};

pub use access::{is_open_to_all, ApiKey};
pub use connection::listen;
pub use cors::Origins;
pub use log::Entry;
pub use options::ServerOptions;
pub use plain::Plain;
pub use variants::VariantOptions;

use crate::engine::EngineOptions;
use crate::pipeline::{Job, Outcome};
use crate::Result;
use limits::Limits;
use log::Observer;
use metrics::Metrics;
use variants::Variants;

/// The variants of a model behind their routes.
pub struct Server {
    router: Router,
    variants: Arc<Variants>,
}

impl Server {
    /// Does the job and loads its result, and what is to be served beside it.
    /// Call it within a runtime that has more than one thread.
    ///
    /// # Errors
    /// Those of the job, and of the engine.
    pub async fn load(
        job: Job,
        engine: EngineOptions,
        variants: &VariantOptions,
        options: ServerOptions,
    ) -> Result<Self> {
        let variants = Variants::load(job, engine, variants, &options).await?;
        let metrics = Arc::new(Metrics::new());
        let routes = variants::routes(&variants)
            .merge(status::routes(&metrics, &variants))
            .merge(docs::routes())
            .merge(page::routes());
        Ok(Self {
            router: layers(routes, &metrics, options),
            variants,
        })
    }

    /// What is served under which name, the default first.
    pub fn outcomes(&self) -> Vec<(String, Outcome)> {
        self.variants.outcomes()
    }

    /// Answers requests until `stop` is ready, then finishes the answers that
    /// have begun. Says whether all of them were in time.
    ///
    /// # Errors
    /// If the listener fails.
    pub async fn run(self, listener: TcpListener, stop: impl Future<Output = ()>) -> Result<bool> {
        connection::serve(listener, self.router, stop).await
    }
}

/// Puts every layer around the routes, the innermost first.
fn layers(routes: Router, metrics: &Arc<Metrics>, options: ServerOptions) -> Router {
    let limits = Limits::new(metrics.clone(), &options);
    let observer = Observer::new(metrics.clone(), &options);
    let mut router = routes
        .layer(middleware::from_fn_with_state(limits.clone(), limits::slot))
        .layer(middleware::from_fn_with_state(limits, limits::body));
    if let Some(key) = options.api_key {
        router = router.layer(middleware::from_fn_with_state(key, access::check));
    }
    if options.loopback {
        router = router.layer(middleware::from_fn(host::check));
    }
    router = router.layer(middleware::from_fn(refusal::reword));
    if let Some(cors) = options.origins.layer() {
        router = router.layer(cors);
    }
    router.layer(middleware::from_fn_with_state(observer, log::observe))
}
