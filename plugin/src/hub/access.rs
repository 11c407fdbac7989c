//! What this machine has of the hub, without a model in mind.

use std::path::PathBuf;
use std::time::Duration;

use hf_hub::{Repo, RepoType};

use super::{Failure, Hub, Token};

/// The hub, unless `HF_ENDPOINT` names another.
const ENDPOINT: &str = "https://huggingface.co";

/// How long the hub may take to say who a token belongs to.
const PATIENCE: Duration = Duration::from_secs(10);

/// How the hub would be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// Address.
    pub endpoint: String,
    /// Where its files are kept.
    pub cache: PathBuf,
    /// Whether there is a token.
    pub token: bool,
    /// Whether `HF_HUB_OFFLINE` forbids to ask.
    pub offline: bool,
}

impl Hub {
    /// How the hub would be asked.
    pub fn access(&self) -> Access {
        Access {
            endpoint: self.address().to_owned(),
            cache: self.cache.path().clone(),
            token: matches!(self.token, Token::Literal(_)),
            offline: self.offline,
        }
    }

    /// Asks the hub for a sign of life, which with a token is whose it is.
    ///
    /// # Errors
    /// [`Failure`]
    pub fn reach(&self) -> Result<(), Failure> {
        let agent = ureq::AgentBuilder::new().timeout(PATIENCE).build();
        let path = match self.token {
            Token::Literal(_) => "api/whoami-v2",
            Token::Ambient | Token::Anonymous => "api/models?limit=1",
        };
        let mut request = agent.get(&format!("{}/{path}", self.address()));
        if let Token::Literal(token) = &self.token {
            request = request.set("authorization", &format!("Bearer {token}"));
        }
        match request.call() {
            Ok(_) => Ok(()),
            Err(ureq::Error::Status(status, _)) => Err(Failure::of_status(status)),
            Err(ureq::Error::Transport(error)) => Err(Failure::Transport(error.to_string())),
        }
    }

    /// The directory of a model that is here whole already.
    pub fn held(&self, id: &str, revision: Option<&str>) -> Option<PathBuf> {
        let revision = revision.unwrap_or("main");
        let repo = Repo::with_revision(id.to_owned(), RepoType::Model, revision.to_owned());
        Some(self.cached(&repo, revision).ok()?.dir)
    }

    fn address(&self) -> &str {
        self.endpoint
            .as_deref()
            .unwrap_or(ENDPOINT)
            .trim_end_matches('/')
    }
}
