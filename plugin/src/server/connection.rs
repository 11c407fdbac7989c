//! Connections: accepting them, HTTP/1.1 on each, and closing all in good
//! order.
//!
//! Knows bytes and time, and no route.

mod writing;

use std::future::Future;
use std::net::TcpListener;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch, Semaphore};

use crate::{Error, Result};
use writing::Writing;

/// How long answers may take to finish once the server is asked to stop.
const GRACE: Duration = Duration::from_secs(30);
/// How long the headers of a request may take to arrive, and a connection may
/// do nothing.
const HEADER_TIME: Duration = Duration::from_secs(15);
/// How long a client may take no byte of its answer.
const WRITE_TIME: Duration = Duration::from_secs(30);
/// Most headers of a request.
const MOST_HEADERS: usize = 64;
/// Most bytes of the headers of a request.
const MOST_HEADER_BYTES: usize = 32 << 10;
/// Most connections; more wait until one closes.
const MOST_CONNECTIONS: usize = 1024;
/// Pause after a connection could not be accepted, such as for want of files.
const PAUSE: Duration = Duration::from_millis(50);

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

/// Answers requests until `stop` is ready. Then no connection is accepted any
/// more, those that wait for a request are closed, and answers that have begun
/// have some time to end. Says whether all did.
///
/// # Errors
/// If the listener is none.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()>,
) -> Result<bool> {
    let listener = tokio::net::TcpListener::from_std(listener).map_err(|error| Error::Engine {
        what: "serving",
        reason: error.to_string(),
    })?;
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let (closing, closed) = watch::channel(());
    // Every connection holds a sender, so that the receiver knows the last.
    let (open, mut last) = mpsc::channel::<()>(1);
    let mut stop = pin!(stop);
    loop {
        let accepted = async {
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = &mut stop => break,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (router, closed, open) = (router.clone(), closed.clone(), open.clone());
        tokio::spawn(async move {
            converse(stream, router, closed).await;
            drop((place, open));
        });
    }
    drop((listener, closing, open));
    Ok(tokio::time::timeout(GRACE, last.recv()).await.is_ok())
}

/// Answers the requests of one connection, one after the other.
async fn converse(stream: TcpStream, router: Router, mut closed: watch::Receiver<()>) {
    // Tokens are to be sent as they come; a socket that refuses still works.
    let _ = stream.set_nodelay(true);
    let stream = Writing::new(stream, WRITE_TIME);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIME)
        .max_headers(MOST_HEADERS)
        .max_header_size(MOST_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    // A connection that breaks concerns its client alone.
    tokio::select! {
        _ = connection.as_mut() => return,
        // The sender is dropped.
        _ = closed.changed() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
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
