//! Who is served, where, and how much: the flags of the server.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;

use super::log;
use crate::cli::output;
use crate::plan::SizeTarget;
use crate::server::{self, ApiKey, Origins, ServerOptions};
use crate::{Error, Result};

/// Who is served, and where.
#[derive(clap::Args)]
#[command(next_help_heading = "Server")]
pub(super) struct ServerArgs {
    /// Port to listen on
    #[arg(short, long, default_value_t = 1234)]
    pub(super) port: u16,

    /// Address to listen on; 0.0.0.0 for every network, which takes a key
    #[arg(long, default_value = "127.0.0.1", value_name = "ADDRESS")]
    pub(super) host: String,

    /// Answer only requests with this key as a bearer token
    #[arg(
        long,
        env = "MISTRALRS_PRUNE_API_KEY",
        hide_env_values = true,
        value_name = "KEY"
    )]
    api_key: Option<String>,

    /// The same, with the key in a file, where other users cannot read it
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,

    /// Serve everyone who can reach --host, without a key
    #[arg(long, conflicts_with_all = ["api_key", "api_key_file"])]
    no_auth: bool,

    /// Let web pages of this origin read answers, such as https://chat.example,
    /// or * for all
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<String>,

    /// Largest body of a request
    #[arg(long, default_value = "8MB", value_name = "SIZE", value_parser = bytes)]
    max_body: usize,

    /// Requests that may wait while --max-seqs are answered; more are told to
    /// come back
    #[arg(long, default_value_t = 256, value_name = "N")]
    max_queue: usize,

    /// Seconds from a request to the end of its answer
    #[arg(long, default_value_t = 600, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    request_timeout: u32,

    /// Seconds from a request to the first token of its answer
    #[arg(long, default_value_t = 300, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    first_token_timeout: u32,

    /// How requests are logged, without their text
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
}

/// How a line of the log looks.
#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// For people
    Text,
    /// An object a line
    Json,
    /// No lines
    None,
}

impl ServerArgs {
    /// How the server that listens on `address` treats its clients, of whom
    /// the model answers `slots` at a time.
    ///
    /// # Errors
    /// [`Error::Exposed`] if others could reach it without a key; those of a
    /// key that cannot be one, and of an origin that is none.
    pub(super) fn options(&self, address: SocketAddr, slots: usize) -> Result<ServerOptions> {
        let api_key = self.key()?;
        let loopback = address.ip().is_loopback();
        if api_key.is_none() && !loopback && !self.no_auth {
            let host = self.host.clone();
            return Err(Error::Exposed { host });
        }
        Ok(ServerOptions {
            api_key,
            loopback,
            origins: Origins::new(&self.allow_origin)?,
            max_body: self.max_body,
            slots,
            max_queue: self.max_queue,
            request_timeout: Duration::from_secs(self.request_timeout.into()),
            first_token_timeout: Duration::from_secs(self.first_token_timeout.into()),
            log: match self.log_format {
                LogFormat::None => None,
                LogFormat::Text => Some(Arc::new(|entry| output::plain(&log::text(entry)))),
                LogFormat::Json => Some(Arc::new(|entry| output::plain(&log::json(entry)))),
            },
        })
    }

    fn key(&self) -> Result<Option<ApiKey>> {
        if let Some(path) = &self.api_key_file {
            if self.api_key.as_deref().is_some_and(|key| !key.is_empty()) {
                return Err(Error::Option {
                    option: "--api-key-file",
                    expected: "no --api-key or MISTRALRS_PRUNE_API_KEY beside it".to_owned(),
                    found: "both".to_owned(),
                });
            }
            let key = ApiKey::from_file(path)?;
            if server::is_open_to_all(path) {
                output::hint(&format!(
                    "every user of this machine can read {}: chmod 600",
                    path.display()
                ));
            }
            return Ok(Some(key));
        }
        // An environment variable that is empty is as good as none.
        let key = self.api_key.as_deref().filter(|key| !key.is_empty());
        key.map(|key| ApiKey::new("--api-key", key)).transpose()
    }
}

/// `500kB`, `8MB`, at least a byte.
fn bytes(text: &str) -> Result<usize, String> {
    match SizeTarget::parse_bytes(text) {
        Ok(SizeTarget::Bytes(bytes)) if bytes > 0 => {
            usize::try_from(bytes).map_err(|error| error.to_string())
        }
        _ => Err("expected a size such as 500kB or 8MB".to_owned()),
    }
}
