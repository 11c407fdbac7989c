//! Which names the server answers to.
//!
//! A web page may have its own name resolve to 127.0.0.1 and so read a server
//! on the visitor's machine as if it were the page's (DNS rebinding). Its
//! requests still carry the page's name.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{header, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::problem::Problem;

/// On a server that listens on the loopback interface: refuses requests that
/// call it by a name that is not this machine's. One that calls it nothing is
/// from no browser.
pub(super) async fn check(request: Request, next: Next) -> Response {
    let named = request.headers().get_all(header::HOST).iter();
    let mut named = named.map(|name| name.to_str().unwrap_or_default());
    let target = request.uri().authority().map(Authority::as_str);
    if named.all(is_loopback) && target.is_none_or(is_loopback) {
        return next.run(request).await;
    }
    let message = "This server listens on the loopback interface and answers to localhost, \
                   127.0.0.1 and [::1] only; `--host` makes it listen elsewhere.";
    Problem::new(StatusCode::FORBIDDEN, message)
        .code("host_not_allowed")
        .into_response()
}

/// Whether `host[:port]` is this machine by any resolver's account.
fn is_loopback(name: &str) -> bool {
    let Ok(authority) = name.parse::<Authority>() else {
        return false;
    };
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || address
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_meant() {
        for name in [
            "localhost",
            "LocalHost:1234",
            "127.0.0.1:80",
            "127.8.0.1",
            "[::1]:1234",
        ] {
            assert!(is_loopback(name), "{name}");
        }
        for name in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "0.0.0.0:1234",
            "10.0.0.1",
            "",
            "a b",
        ] {
            assert!(!is_loopback(name), "{name}");
        }
    }
}
