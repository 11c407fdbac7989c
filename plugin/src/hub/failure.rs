//! Why the hub did not give, or take, what was asked for.

use crate::Error;

/// Why a snapshot could not be had or sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// HTTP 401.
    #[error("the hub wants a token, or does not accept the one it got (401)")]
    Unauthorized,
    /// HTTP 401 or 403 of a model whose terms have to be accepted.
    #[error("the model is gated: its terms have not been accepted with this token ({0})")]
    Gated(u16),
    /// HTTP 403.
    #[error("the token does not give access to this model (403)")]
    Forbidden,
    /// HTTP 404, or a 401 that says that there is no such repository.
    #[error("no such model or revision on the hub ({0})")]
    NotFound(u16),
    /// Any other HTTP status.
    #[error("the hub answered with status {0}")]
    Status(u16),
    /// HTTP 429 or 503, for longer than was waited.
    #[error("the hub is busy ({status}) and asks to wait {seconds} s")]
    Busy {
        /// 429 or 503.
        status: u16,
        /// What it asks for.
        seconds: u64,
    },
    /// No answer.
    #[error("no connection to the hub: {0}")]
    Transport(String),
    /// `HF_HUB_OFFLINE` is set and the cache does not hold the model.
    #[error("HF_HUB_OFFLINE is set and the hub cache holds no {0}")]
    Offline(String),
    /// `HF_HUB_OFFLINE` is set and something was to be sent.
    #[error("HF_HUB_OFFLINE is set, so that nothing is sent")]
    Unsent,
    /// The repository holds no safetensors checkpoint.
    #[error("the repository has no {0}")]
    NoCheckpoint(&'static str),
    /// The repository holds GGUF files, each a model, and no safetensors.
    #[error("the repository has no model.safetensors, but {0} and such")]
    OnlyGguf(String),
    /// The hub's answer or an index does not make sense.
    #[error("unexpected answer: {0}")]
    Malformed(String),
    /// What came is not what the hub says the file is, twice.
    #[error("{file}: expected {expected}, found {found}")]
    Corrupted {
        /// The file.
        file: String,
        /// Its size or digest by the hub's listing.
        expected: String,
        /// Those of what came.
        found: String,
    },
    /// Less space than the files that are missing need.
    #[error(
        "{path}: expected {expected} of free space for the files that are missing, found {found}"
    )]
    Space {
        /// Where they would go.
        path: String,
        /// What is needed.
        expected: String,
        /// What is free.
        found: String,
    },
    /// The hub's cache cannot be read or written, or the user asked to stop.
    #[error(transparent)]
    Local(Box<router_stats::Error>),
}

impl From<router_stats::Error> for Failure {
    fn from(error: router_stats::Error) -> Self {
        Self::Local(Box::new(error))
    }
}

impl Failure {
    /// One sentence of advice.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unauthorized => "set HF_TOKEN, or run `hf auth login`; private and gated models need it",
            Self::Gated(401) => "accept the model's terms on its page, then set HF_TOKEN or run `hf auth login`",
            Self::Gated(_) | Self::Forbidden => "accept the model's terms on its page, with the account the token belongs to; a fine-grained token needs leave to read gated models",
            Self::NotFound(_) => "check the spelling of org/name and of the revision; private models also need HF_TOKEN",
            Self::Status(_) | Self::Transport(_) | Self::Busy { .. } => {
                "the same command continues where it stopped; HF_HUB_OFFLINE=1 uses what is already there"
            }
            Self::Offline(_) => "unset HF_HUB_OFFLINE to download it, or name a local directory",
            Self::Unsent => "unset HF_HUB_OFFLINE to upload it",
            Self::NoCheckpoint(_) => "only safetensors checkpoints can be pruned; look for another repository of the model",
            Self::OnlyGguf(_) => "download the file, with `hf download` for one, and name it: -m model.gguf",
            Self::Malformed(_) => "check HF_ENDPOINT; the server there does not speak the hub's protocol",
            Self::Corrupted { .. } => "nothing of it was kept; run it again, and if it fails again the hub's copy or the network changes files",
            Self::Space { .. } => "free some space, or take a larger disk: HF_HUB_CACHE, or -o where a model is streamed; what is already downloaded is kept",
            Self::Local(_) => "what was downloaded stays; the same command continues where it stopped",
        }
    }

    /// The error of who asked for `id` at `revision`.
    pub(super) fn about(self, id: &str, revision: &str) -> Error {
        match self {
            // It says itself which file.
            Self::Local(error) => (*error).into(),
            failure => Error::Hub {
                id: id.to_owned(),
                revision: revision.to_owned(),
                failure: Box::new(failure),
            },
        }
    }

    /// What an HTTP status other than success means; `code` is the hub's
    /// `X-Error-Code`.
    pub(super) fn of_status(status: u16, code: Option<&str>) -> Self {
        match (status, code) {
            (401 | 403, Some("GatedRepo")) => Self::Gated(status),
            (401 | 404, Some("RepoNotFound" | "RevisionNotFound" | "EntryNotFound")) | (404, _) => {
                Self::NotFound(status)
            }
            (401, _) => Self::Unauthorized,
            (403, _) => Self::Forbidden,
            (status, _) => Self::Status(status),
        }
    }
}
