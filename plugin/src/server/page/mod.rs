//! The page at `/`: chat, and what pruning did.
//!
//! Owns files for a browser, which are part of the binary, and the headers
//! they are sent with. What they show they ask of the server's other routes,
//! as any client does. The files hold nothing secret, so they need no API key.
//!
//! The page loads nothing from elsewhere and runs no script but these files,
//! whatever models and their answers are called or say: its content security
//! policy (W3C, "Content Security Policy Level 3") allows neither, and its
//! scripts set text only as text.

use axum::extract::Path;
use axum::http::{header, HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::Router;
use sha2::{Digest, Sha256};

use crate::cache;

/// What the page may do: load its own files and talk to its own server.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                      img-src 'self' data:; connect-src 'self'; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'";

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

/// A file of the page.
struct File {
    name: &'static str,
    kind: &'static str,
    content: &'static str,
}

macro_rules! file {
    ($name:literal, $kind:ident) => {
        File {
            name: $name,
            kind: $kind,
            content: include_str!($name),
        }
    };
}

const INDEX: File = file!("index.html", HTML);

/// What is under `/assets/`.
const ASSETS: &[File] = &[
    file!("answer.js", SCRIPT),
    file!("api.js", SCRIPT),
    file!("chat.js", SCRIPT),
    file!("dom.js", SCRIPT),
    file!("gauges.js", SCRIPT),
    file!("heatmap.js", SCRIPT),
    file!("icon.svg", SVG),
    file!("locked.js", SCRIPT),
    file!("main.js", SCRIPT),
    file!("numbers.js", SCRIPT),
    file!("page.css", CSS),
    file!("pruning.js", SCRIPT),
    file!("ramp.js", SCRIPT),
    file!("settings.js", SCRIPT),
    file!("tables.js", SCRIPT),
];

/// The routes of the page: `/` and `/assets/{name}`.
pub(super) fn routes() -> Router {
    Router::new()
        .route(
            "/",
            get(|headers: HeaderMap| async move { INDEX.answer(&headers) }),
        )
        .route(
            "/assets/{name}",
            get(|Path(name): Path<String>, headers: HeaderMap| async move {
                match ASSETS.iter().find(|file| file.name == name) {
                    Some(file) => file.answer(&headers),
                    None => StatusCode::NOT_FOUND.into_response(),
                }
            }),
        )
}

impl File {
    /// The file, or that the browser's copy is still good.
    fn answer(&self, request: &HeaderMap) -> Response {
        let tag = self.tag();
        let known = request
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|known| matches!(known.trim().trim_start_matches("W/"), known if known == tag || known == "*"));
        let mut response = if known {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            self.content.into_response()
        };
        let headers = response.headers_mut();
        let mut set = |name: HeaderName, value: &'static str| {
            headers.insert(name, HeaderValue::from_static(value));
        };
        set(header::CONTENT_TYPE, self.kind);
        set(header::CONTENT_SECURITY_POLICY, POLICY);
        set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
        set(header::REFERRER_POLICY, "no-referrer");
        set(
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        );
        set(
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        );
        // Names stay when contents change: ask each time, load only what changed.
        set(header::CACHE_CONTROL, "no-cache");
        if let Ok(tag) = HeaderValue::from_str(&tag) {
            headers.insert(header::ETAG, tag);
        }
        response
    }

    /// Names the content, in quotes.
    fn tag(&self) -> String {
        format!("\"{}\"", cache::hex(&Sha256::digest(self.content)[..8]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::to_bytes;

    async fn body(response: Response) -> String {
        let bytes = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_copy_that_is_still_good_is_not_sent_again() {
        let first = INDEX.answer(&HeaderMap::new());
        assert_eq!(first.status(), StatusCode::OK);
        let tag = first.headers()[header::ETAG].clone();
        assert!(body(first).await.starts_with("<!DOCTYPE html>"));
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_NONE_MATCH, tag);
        let again = INDEX.answer(&headers);
        assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(again.headers()[header::CONTENT_SECURITY_POLICY], POLICY);
        assert_eq!(body(again).await, "");
        headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static("\"other\""));
        assert_eq!(INDEX.answer(&headers).status(), StatusCode::OK);
    }

    #[test]
    fn every_file_that_is_asked_for_is_there() {
        let files = ASSETS.iter().chain([&INDEX]);
        let mut asked = 0;
        for file in files {
            for (at, found) in file.content.match_indices("/assets/") {
                let rest = &file.content[at + found.len()..];
                let end = rest.find(['\'', '"']).unwrap();
                let name = &rest[..end];
                assert!(
                    ASSETS.iter().any(|file| file.name == name),
                    "{}: {name}",
                    file.name
                );
                asked += 1;
            }
        }
        assert!(asked > ASSETS.len(), "{asked}");
    }

    #[test]
    fn nothing_is_loaded_from_elsewhere_or_run_inline() {
        for file in ASSETS.iter().chain([&INDEX]) {
            let name = file.name;
            for outside in ["https:", "url(", "@import", "importScripts"] {
                assert!(!file.content.contains(outside), "{name}: {outside}");
            }
            // The name of a language is no address that is loaded.
            let addresses = file.content.matches("http:").count();
            let names = file.content.matches("http://www.w3.org/2000/svg").count();
            assert_eq!(addresses, names, "{name}");
        }
        for inline in ["<style", " style=", " onclick=", " onload=", "javascript:"] {
            assert!(!INDEX.content.contains(inline), "{inline}");
        }
        assert_eq!(INDEX.content.matches("<script").count(), 1);
        assert!(INDEX
            .content
            .contains("<script type=\"module\" src=\"/assets/main.js\">"));
    }

    #[test]
    fn text_is_never_html() {
        for file in ASSETS.iter().filter(|file| file.kind == SCRIPT) {
            for way in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
                "localStorage",
            ] {
                assert!(!file.content.contains(way), "{}: {way}", file.name);
            }
        }
    }
}
