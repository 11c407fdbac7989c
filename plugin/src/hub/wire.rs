//! HTTP with the hub: who asks, where an answer comes from, how long one waits
//! and what is asked again.
//!
//! Redirects are followed here and not by the client, so that the token is
//! shown to the hub's own origin alone: files come from other hosts. Owns no
//! files.

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;
use ureq::{Agent, AgentBuilder, Request, Response};
use url::Url;

use super::{Failure, Token};

/// Where models are unless `HF_ENDPOINT` says otherwise.
pub(super) const ENDPOINT: &str = "https://huggingface.co";

const CONNECT: Duration = Duration::from_secs(10);

/// Silence after which a connection counts as lost.
const SILENCE: Duration = Duration::from_secs(20);

/// Hosts that an answer may be passed on to.
const REDIRECTS: usize = 8;

/// Tries in a row that bring nothing.
const TRIES: u32 = 5;

/// Longest wait that the hub may ask for.
const PATIENCE: Duration = Duration::from_secs(120);

/// Largest answer that is read as JSON.
const LARGEST_JSON: u64 = 64 << 20;

/// How often a wait asks whether it should end.
const POLL: Duration = Duration::from_millis(50);

/// A connection to the hub.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    agent: Agent,
    endpoint: Url,
    token: Option<String>,
}

/// Headers of a request beside those that all have.
pub(super) type Headers<'a> = &'a [(&'a str, &'a str)];

impl Wire {
    /// Asks `endpoint`, or the public hub, with what `token` stands for.
    ///
    /// # Errors
    /// [`Failure::Malformed`] if `endpoint` is not an HTTP address.
    pub(super) fn new(endpoint: Option<&str>, token: &Token) -> Result<Self, Failure> {
        let text = endpoint.unwrap_or(ENDPOINT).trim_end_matches('/');
        let endpoint = Url::parse(text)
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .ok_or_else(|| {
                Failure::Malformed(format!("HF_ENDPOINT is `{text}`, not an address"))
            })?;
        Ok(Self {
            agent: AgentBuilder::new()
                .redirects(0)
                .timeout_connect(CONNECT)
                .timeout_read(SILENCE)
                .timeout_write(SILENCE)
                .user_agent(concat!("mistralrs-prune/", env!("CARGO_PKG_VERSION")))
                .try_proxy_from_env(true)
                .build(),
            endpoint,
            token: match token {
                Token::Literal(token) => Some(token.clone()),
                Token::Ambient | Token::Anonymous => None,
            },
        })
    }

    /// The address of `path` on the hub.
    ///
    /// # Errors
    /// [`Failure::Malformed`]
    pub(super) fn address(&self, path: &str) -> Result<Url, Failure> {
        let mut url = self.endpoint.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        url.set_path(&format!("{base}/{path}"));
        url.set_query(Some(query).filter(|query| !query.is_empty()));
        Ok(url)
    }

    /// Sends a request without a body once, wherever it is passed on to.
    ///
    /// # Errors
    /// [`Trouble`], which tells whether another try may help.
    pub(super) fn send(
        &self,
        method: &str,
        path: &str,
        headers: Headers<'_>,
    ) -> Result<Response, Trouble> {
        let mut url = self.address(path)?;
        for _ in 0..REDIRECTS {
            let request = with(self.request(method, &url), headers);
            let response = answer(request.call())?;
            if !matches!(response.status(), 301 | 302 | 303 | 307 | 308) {
                return Ok(response);
            }
            let target = response.header("location").and_then(|to| url.join(to).ok());
            let target = target.ok_or_else(|| malformed("a redirect without an address"))?;
            if url.scheme() == "https" && target.scheme() != "https" {
                return Err(malformed("a redirect from https to http").into());
            }
            url = target;
        }
        Err(malformed("redirects without end").into())
    }

    /// A request to `url`, with the token if that is on the hub.
    pub(super) fn request(&self, method: &str, url: &Url) -> Request {
        let request = self.agent.request_url(method, url);
        match &self.token {
            Some(token) if url.origin() == self.endpoint.origin() => {
                request.set("authorization", &format!("Bearer {token}"))
            }
            _ => request,
        }
    }
}

/// An answer's body as JSON.
///
/// # Errors
/// [`Trouble`]: a body that breaks off may come whole another time.
pub(super) fn read_json(response: Response) -> Result<Value, Trouble> {
    let mut body = Vec::new();
    let read = response
        .into_reader()
        .take(LARGEST_JSON)
        .read_to_end(&mut body);
    read.map_err(|error| Trouble::Again(Failure::Transport(error.to_string()), None))?;
    serde_json::from_slice(&body).map_err(|error| malformed(&error.to_string()).into())
}

/// What went wrong with one try.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Another try would end the same way.
    Final(Failure),
    /// It may help to ask again, after a time if the hub names one.
    Again(Failure, Option<Duration>),
}

impl Trouble {
    /// Why it went wrong.
    pub(super) fn into_failure(self) -> Failure {
        match self {
            Self::Final(failure) | Self::Again(failure, _) => failure,
        }
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Final(failure)
    }
}

impl From<router_stats::Error> for Trouble {
    fn from(error: router_stats::Error) -> Self {
        Self::Final(error.into())
    }
}

/// Tells an answer from trouble.
///
/// # Errors
/// [`Trouble`]
pub(super) fn answer(sent: Result<Response, ureq::Error>) -> Result<Response, Trouble> {
    match sent {
        Ok(response) => Ok(response),
        Err(ureq::Error::Transport(error)) => {
            Err(Trouble::Again(Failure::Transport(error.to_string()), None))
        }
        Err(ureq::Error::Status(status, response)) => {
            let wait = response.header("retry-after").and_then(retry_after);
            let failure = Failure::of_status(status, response.header("x-error-code"));
            Err(match status {
                429 | 503 => Trouble::Again(
                    Failure::Busy {
                        status,
                        seconds: wait.unwrap_or_default().as_secs(),
                    },
                    wait,
                ),
                408 | 425 | 500..=599 => Trouble::Again(failure, wait),
                _ => Trouble::Final(failure),
            })
        }
    }
}

/// Reads `Retry-After`: seconds or a date.
fn retry_after(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = httpdate::parse_http_date(text).ok()?;
    Some(
        until
            .duration_since(std::time::SystemTime::now())
            .unwrap_or_default(),
    )
}

/// Adds headers to a request.
pub(super) fn with(request: Request, headers: Headers<'_>) -> Request {
    headers
        .iter()
        .fold(request, |request, (name, value)| request.set(name, value))
}

/// A revision as one part of a path: it may be a path itself, refs/pr/1.
pub(super) fn segment(revision: &str) -> String {
    revision.replace('%', "%25").replace('/', "%2F")
}

/// The failure of an answer that makes no sense.
pub(super) fn malformed(reason: &str) -> Failure {
    Failure::Malformed(reason.to_owned())
}

/// Counts tries that bring nothing, and waits between them: 0.5 s, 1 s, 2 s, …
/// or as long as the hub asks for.
#[derive(Debug, Default)]
pub(super) struct Tries(u32);

impl Tries {
    /// Something came: the count begins anew.
    pub(super) fn progress(&mut self) {
        self.0 = 0;
    }

    /// Waits for the next try.
    ///
    /// # Errors
    /// The failure itself if there is none, or [`Failure::Local`] if `stop` is
    /// set meanwhile.
    pub(super) fn wait(&mut self, trouble: Trouble, stop: &AtomicBool) -> Result<(), Failure> {
        let (failure, asked) = match trouble {
            Trouble::Final(failure) => return Err(failure),
            Trouble::Again(failure, asked) => (failure, asked),
        };
        self.0 += 1;
        if self.0 >= TRIES || asked.is_some_and(|asked| asked > PATIENCE) {
            return Err(failure);
        }
        let mut left = asked.unwrap_or(Duration::from_millis(250) * 2_u32.pow(self.0));
        while !left.is_zero() {
            stopped(stop)?;
            let nap = left.min(POLL);
            std::thread::sleep(nap);
            left -= nap;
        }
        stopped(stop)
    }
}

/// Tries until it works or tries run out.
///
/// # Errors
/// The last [`Failure`].
pub(super) fn patiently<T>(
    stop: &AtomicBool,
    mut attempt: impl FnMut() -> Result<T, Trouble>,
) -> Result<T, Failure> {
    let mut tries = Tries::default();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(trouble) => tries.wait(trouble, stop)?,
        }
    }
}

/// Fails once `stop` is set.
///
/// # Errors
/// [`Failure::Local`]
pub(super) fn stopped(stop: &AtomicBool) -> Result<(), Failure> {
    match stop.load(Ordering::Relaxed) {
        true => Err(router_stats::Error::Interrupted.into()),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_keep_the_path_of_a_mirror() {
        let address = |endpoint, path| {
            let wire = Wire::new(endpoint, &Token::Anonymous).unwrap();
            wire.address(path).unwrap().to_string()
        };
        assert_eq!(
            address(None, "api/x?a=b"),
            "https://huggingface.co/api/x?a=b"
        );
        assert_eq!(
            address(Some("http://h:1/hub/"), "o/n"),
            "http://h:1/hub/o/n"
        );
        for wrong in ["huggingface.co", "ftp://host", "http://", ""] {
            assert!(
                Wire::new(Some(wrong), &Token::Anonymous).is_err(),
                "{wrong}"
            );
        }
    }

    #[test]
    fn waits_are_seconds_or_dates() {
        assert_eq!(retry_after(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(
            retry_after("Sun, 06 Nov 1994 08:49:37 GMT"),
            Some(Duration::ZERO)
        );
        assert_eq!(retry_after("soon"), None);
    }

    #[test]
    fn tries_run_out_unless_something_comes() {
        let stop = AtomicBool::new(false);
        let again = || Trouble::Again(Failure::Status(500), Some(Duration::ZERO));
        let mut tries = Tries::default();
        for _ in 1..TRIES {
            tries.wait(again(), &stop).unwrap();
        }
        tries.progress();
        tries.wait(again(), &stop).unwrap();
        for _ in 2..TRIES {
            tries.wait(again(), &stop).unwrap();
        }
        assert!(matches!(
            tries.wait(again(), &stop),
            Err(Failure::Status(500))
        ));
        let long = Trouble::Again(Failure::Status(429), Some(PATIENCE * 2));
        assert!(Tries::default().wait(long, &stop).is_err());
        stop.store(true, Ordering::Relaxed);
        assert!(matches!(
            Tries::default().wait(again(), &stop),
            Err(Failure::Local(_))
        ));
    }
}
