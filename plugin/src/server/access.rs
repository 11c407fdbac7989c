//! Who may ask: the optional API key.

use std::path::Path;

use axum::extract::{Request, State};
use axum::http::{header, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use super::problem::Problem;
use super::routes;
use crate::{Error, Result};

/// The digest of an API key. The key itself is not kept.
#[derive(Clone)]
pub struct ApiKey([u8; 32]);

impl ApiKey {
    /// Accepts requests that show `key`, which `option` gave.
    ///
    /// # Errors
    /// [`Error::Option`], without the key, for one that no header can carry.
    pub fn new(option: &'static str, key: &str) -> Result<Self> {
        let found = match key {
            "" => "nothing",
            key if key.contains(char::is_whitespace) => "white space within it",
            key if key.chars().any(|c| !c.is_ascii_graphic()) => "other characters",
            key => return Ok(Self(Sha256::digest(key).into())),
        };
        Err(Error::Option {
            option,
            expected: "a key of visible ASCII characters".to_owned(),
            found: found.to_owned(),
        })
    }

    /// Accepts requests that show the key that `path` holds; white space
    /// around it does not count.
    ///
    /// # Errors
    /// [`Error::KeyFile`] if it cannot be read, and as [`ApiKey::new`].
    pub fn from_file(path: &Path) -> Result<Self> {
        let key = std::fs::read_to_string(path).map_err(|source| Error::KeyFile {
            path: path.to_owned(),
            source,
        })?;
        Self::new("--api-key-file", key.trim())
    }

    /// Whether `key` is the right one. The time this takes does not depend on
    /// how much of it is right.
    fn accepts(&self, key: &str) -> bool {
        let other: [u8; 32] = Sha256::digest(key).into();
        self.0
            .iter()
            .zip(other)
            .fold(0, |difference, (a, b)| difference | (a ^ b))
            == 0
    }
}

impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiKey")
    }
}

/// Whether other users of this machine can read a file.
pub fn is_open_to_all(path: &Path) -> bool {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::metadata(path).is_ok_and(|file| file.permissions().mode() & 0o004 != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        false
    }
}

/// Lets a request pass if it shows the key as a bearer token, or asks for what
/// everyone may see.
pub(super) async fn check(State(key): State<ApiKey>, request: Request, next: Next) -> Response {
    let shown = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
        .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    if routes::is_open(request.uri().path())
        || shown.is_some_and(|(_, token)| key.accepts(token.trim()))
    {
        return next.run(request).await;
    }
    let message = match shown {
        Some(_) => "Incorrect API key provided.",
        None => "You did not provide an API key. Send it as `Authorization: Bearer KEY`.",
    };
    Problem::new(StatusCode::UNAUTHORIZED, message)
        .code("invalid_api_key")
        .into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_whole_key_is_accepted() {
        let key = ApiKey::new("--api-key", "secret").unwrap();
        assert!(key.accepts("secret"));
        for other in ["", "secre", "secret ", "Secret"] {
            assert!(!key.accepts(other), "{other}");
        }
        assert!(!format!("{key:?}").contains("secret"));
    }

    #[test]
    fn a_key_that_no_header_can_carry_is_refused_without_saying_it() {
        for key in ["", "two words", "schlüssel", "nul\0"] {
            let error = ApiKey::new("--api-key", key).unwrap_err();
            assert!(error.is_usage());
            assert!(
                key.is_empty() || !error.to_string().contains(key),
                "{error}"
            );
        }
    }

    #[test]
    fn a_file_holds_a_key_and_a_line_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, " secret\r\n").unwrap();
        assert!(ApiKey::from_file(&path).unwrap().accepts("secret"));
        std::fs::write(&path, "one\ntwo\n").unwrap();
        let error = ApiKey::from_file(&path).unwrap_err();
        assert!(error.to_string().contains("--api-key-file"), "{error}");
        let absent = ApiKey::from_file(&folder.path().join("absent")).unwrap_err();
        assert!(absent.to_string().contains("absent"), "{absent}");
    }
}
