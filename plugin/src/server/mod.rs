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
mod variants;

use std::future::Future;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::{middleware, Router};

pub use access::ApiKey;
pub use variants::VariantOptions;

use crate::engine::EngineOptions;
use crate::pipeline::{Job, Outcome};
use crate::{Error, Result};
use variants::Variants;

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
        options: EngineOptions,
        variants: &VariantOptions,
        api_key: Option<ApiKey>,
    ) -> Result<Self> {
        let variants = Variants::load(job, options, variants).await?;
        let mut router = variants
            .clone()
            .router()
            .layer(middleware::from_fn(refusal::reword));
        if let Some(key) = api_key {
            router = router.layer(middleware::from_fn_with_state(key, access::check));
        }
        Ok(Self {
            // The page is for anyone; what it shows it asks for as they do.
            router: page::routes().fallback_service(router),
            variants,
        })
    }

    /// What is served under which name, the default first.
    pub fn outcomes(&self) -> Vec<(String, Outcome)> {
        self.variants.outcomes()
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
