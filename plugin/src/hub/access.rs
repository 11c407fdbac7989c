//! What this machine has of the hub, without a model in mind.

use std::path::PathBuf;

use hf_hub::{Repo, RepoType};

use super::wire::{Trouble, Wire, ENDPOINT};
use super::{Failure, Hub, Token, MAIN};

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
        let wire = Wire::new(self.endpoint.as_deref(), &self.token)?;
        let path = match self.token {
            Token::Literal(_) => "api/whoami-v2",
            Token::Ambient | Token::Anonymous => "api/models?limit=1",
        };
        let answer = wire.send("GET", path, &[]);
        answer.map(|_| ()).map_err(Trouble::into_failure)
    }

    /// The directory of a model that is here whole already.
    pub fn held(&self, id: &str, revision: Option<&str>) -> Option<PathBuf> {
        let revision = revision.unwrap_or(MAIN);
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
