//! Why the hub did not give what was asked for.

use hf_hub::api::sync::ApiError;

/// Why a snapshot could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// HTTP 401.
    #[error("the hub wants a token, or does not accept the one it got (401)")]
    Unauthorized,
    /// HTTP 403.
    #[error("the token does not give access to this model (403)")]
    Forbidden,
    /// HTTP 404.
    #[error("no such model or revision on the hub (404)")]
    NotFound,
    /// Any other HTTP status.
    #[error("the hub answered with status {0}")]
    Status(u16),
    /// No answer.
    #[error("no connection to the hub: {0}")]
    Transport(String),
    /// `HF_HUB_OFFLINE` is set and the cache does not hold the model.
    #[error("HF_HUB_OFFLINE is set and the hub cache holds no {0}")]
    Offline(String),
    /// The repository holds no safetensors checkpoint.
    #[error("the repository has no {0}")]
    NoCheckpoint(&'static str),
    /// The hub's answer or an index does not make sense.
    #[error("unexpected answer: {0}")]
    Malformed(String),
}

impl Failure {
    /// One sentence of advice.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Unauthorized => "set HF_TOKEN, or run `hf auth login`; private and gated models need it",
            Self::Forbidden => "accept the model's terms on its page, with the account the token belongs to",
            Self::NotFound => "check the spelling of org/name and --hf-revision; private models also need HF_TOKEN",
            Self::Status(_) | Self::Transport(_) => {
                "the same command continues where it stopped; HF_HUB_OFFLINE=1 uses what is already there"
            }
            Self::Offline(_) => "unset HF_HUB_OFFLINE to download it, or name a local directory",
            Self::NoCheckpoint(_) => "only safetensors checkpoints can be pruned; look for another repository of the model",
            Self::Malformed(_) => "check HF_ENDPOINT; the server there does not speak the hub's protocol",
        }
    }

    /// What an HTTP status other than success means.
    pub(super) fn of_status(status: u16) -> Self {
        match status {
            401 => Self::Unauthorized,
            403 => Self::Forbidden,
            404 => Self::NotFound,
            status => Self::Status(status),
        }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        match error {
            ApiError::RequestError(error) => {
                let reason = error.to_string();
                let response = error.into_response();
                response.map_or(Self::Transport(reason), |response| {
                    Self::of_status(response.status())
                })
            }
            ApiError::MissingHeader(_)
            | ApiError::InvalidHeader(_)
            | ApiError::ParseIntError(_) => Self::Malformed(error.to_string()),
            error => Self::Transport(error.to_string()),
        }
    }
}
