//! Models by their id on the Hugging Face hub.
//!
//! Owns turning `org/name` into a local snapshot in the hub's own cache layout,
//! so that files are shared with other tools. Only what a checkpoint needs is
//! downloaded, several files at a time; every file is checked against the digest
//! that the hub names before it appears, and an interrupted download continues
//! where it stopped. It does not read what it downloads, apart from the names
//! in a shard index. Weights need not all be here at once: a [`Stage`] has the
//! headers of all shards and as many shards as it is asked for. It also sends a
//! directory there.
//!
//! The layout is that of [`hf_hub::Cache`]. Its downloads are not used: they
//! check no content, and break off where the hub asks to wait.
//!
//! Environment: `HF_HOME` (default `~/.cache/huggingface`), `HF_HUB_CACHE`
//! (default `$HF_HOME/hub`), `HF_TOKEN` or else the file `$HF_HOME/token` that
//! `hf auth login` leaves, `HF_ENDPOINT`, `HF_HUB_OFFLINE`, and the proxy
//! variables `HTTPS_PROXY`, `HTTP_PROXY` and `ALL_PROXY`.

mod access;
mod digest;
mod failure;
mod listing;
mod needed;
mod push;
mod ranged;
mod several;
mod stage;
mod store;
mod token;
mod transfer;
mod wire;

use std::path::{Path, PathBuf};

use hf_hub::{Repo, RepoType};
use router_stats::progress::Progress;

pub use access::Access;
pub use failure::Failure;
pub use push::Push;
pub use stage::{Listed, Stage};
pub use token::Token;

use crate::space::Space;
use crate::{format, Result};
use listing::{Entry, Listing};
use needed::CONFIG;
use store::Store;
use wire::Wire;

/// Revision of those who name none.
const MAIN: &str = "main";

/// Access to the hub and its cache.
#[derive(Debug, Clone)]
pub struct Hub {
    cache: hf_hub::Cache,
    endpoint: Option<String>,
    /// Resolved: never [`Token::Ambient`].
    token: Token,
    offline: bool,
}

/// A model's files at one commit.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// Directory that holds them.
    pub dir: PathBuf,
    /// The commit.
    pub commit: String,
}

impl Snapshot {
    /// Bytes of its files.
    ///
    /// # Errors
    /// [`router_stats::Error::Io`]
    pub fn bytes(&self) -> Result<u64> {
        let lengths = std::fs::read_dir(&self.dir).and_then(|entries| {
            let lengths = entries.map(|entry| Ok(std::fs::metadata(entry?.path())?.len()));
            lengths.sum::<std::io::Result<u64>>()
        });
        Ok(lengths.map_err(router_stats::Error::io(&self.dir))?)
    }
}

impl Hub {
    /// Access as the environment says.
    pub fn from_env(token: Token) -> Self {
        Self::from_variables(token, &|name| std::env::var(name).ok())
    }

    /// Access as `variable` says, which stands in for the environment.
    pub fn from_variables(token: Token, variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let set = |name| variable(name).filter(|value| !value.is_empty());
        let home = set("HF_HOME").map(PathBuf::from).unwrap_or_else(|| {
            let user = std::env::home_dir().unwrap_or_default();
            user.join(".cache").join("huggingface")
        });
        let cache = set("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from);
        Self {
            cache: hf_hub::Cache::new(cache),
            endpoint: set("HF_ENDPOINT"),
            token: token.resolved(set("HF_TOKEN"), &home.join("token")),
            offline: set("HF_HUB_OFFLINE").is_some_and(|value| {
                ["1", "true", "yes", "on"].contains(&value.to_lowercase().as_str())
            }),
        }
    }

    /// Makes sure that the files of `id` are here and says where.
    ///
    /// # Errors
    /// [`Error::Hub`](crate::Error::Hub), or [`router_stats::Error::Interrupted`]; what was
    /// downloaded stays and is continued next time.
    pub fn snapshot(
        &self,
        id: &str,
        revision: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<Snapshot> {
        let revision = revision.unwrap_or(MAIN);
        self.fetched(id, revision, progress)
            .map_err(|failure| failure.about(id, revision))
    }

    fn fetched(
        &self,
        id: &str,
        revision: &str,
        progress: &dyn Progress,
    ) -> std::result::Result<Snapshot, Failure> {
        let repo = Repo::with_revision(id.to_owned(), RepoType::Model, revision.to_owned());
        if self.offline {
            return self.cached(&repo, revision).map_err(Failure::Offline);
        }
        let wire = Wire::new(self.endpoint.as_deref(), &self.token)?;
        let here = self.cached(&repo, revision);
        let listing = match (Listing::get(&wire, id, revision, here.is_err()), here) {
            (Ok(listing), _) => listing,
            // Without a connection, what is here is what there is.
            (Err(Failure::Transport(_)), Ok(here)) => return Ok(here),
            (Err(failure), _) => return Err(failure),
        };
        let store = Store::new(self.cache.path(), &repo.folder_name(), &listing.commit);
        let fetch = |names: &mut dyn Iterator<Item = &str>| {
            let entries = entries(&listing, names)?;
            self.expect_room(&store, &entries)?;
            several::fetch(&wire, &store, id, &listing.commit, &entries, progress)
        };
        fetch(&mut needed::small(&listing)?.into_iter())?;
        let weights = needed::weights(store.snapshot(), |name| listing.has(name));
        let weights = weights.map_err(Failure::Malformed)?;
        fetch(&mut weights.iter().map(String::as_str))?;
        let reference = self.cache.repo(repo).create_ref(&listing.commit);
        reference.map_err(router_stats::Error::io(self.cache.path()))?;
        Ok(Snapshot {
            dir: store.snapshot().to_path_buf(),
            commit: listing.commit,
        })
    }

    /// Fails unless the disk of the cache has room for what is missing.
    fn expect_room(&self, store: &Store, entries: &[Entry]) -> std::result::Result<(), Failure> {
        let missing: u64 = entries
            .iter()
            .filter_map(|entry| store.missing(entry))
            .sum();
        match Space::at(self.cache.path()) {
            Some(Space { free, .. }) if free < missing => Err(Failure::Space {
                path: self.cache.path().display().to_string(),
                expected: format::bytes(missing),
                found: format::bytes(free),
            }),
            _ => Ok(()),
        }
    }

    /// What the cache holds, or the name of the first file it lacks.
    fn cached(&self, repo: &Repo, revision: &str) -> std::result::Result<Snapshot, String> {
        let by_reference = self.cache.repo(repo.clone()).get(CONFIG);
        let at_commit = Store::new(self.cache.path(), &repo.folder_name(), revision);
        let config = by_reference
            .or_else(|| Some(at_commit.snapshot().join(CONFIG)).filter(|path| path.exists()))
            .ok_or_else(|| CONFIG.to_owned())?;
        let dir = config.parent().map(Path::to_path_buf).unwrap_or_default();
        let weights = needed::weights(&dir, |name| dir.join(name).exists())
            .map_err(|_| needed::INDEX.to_owned())?;
        match weights.into_iter().find(|name| !dir.join(name).exists()) {
            Some(missing) => Err(missing),
            None => {
                let commit = dir
                    .file_name()
                    .map(|name| name.to_string_lossy().into_owned())
                    .unwrap_or_default();
                Ok(Snapshot { dir, commit })
            }
        }
    }
}

/// The entries of `names`.
fn entries(
    listing: &Listing,
    names: &mut dyn Iterator<Item = &str>,
) -> std::result::Result<Vec<Entry>, Failure> {
    names
        .map(|name| {
            let entry = listing.entry(name).cloned();
            entry.ok_or_else(|| {
                Failure::Malformed(format!("the index names {name}, which is not there"))
            })
        })
        .collect()
}

/// Whether `model` looks like `org/name` and not like a path.
pub fn is_id(model: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    model
        .split_once('/')
        .is_some_and(|(org, name)| part(org) && part(name))
}

/// Splits `org/name@revision`; a revision may hold slashes.
pub fn split_revision(model: &str) -> (&str, Option<&str>) {
    match model.split_once('@') {
        Some((id, revision)) if is_id(id) && !revision.is_empty() => (id, Some(revision)),
        _ => (model, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_paths() {
        for id in ["org/name", "Qwen/Qwen3-30B-A3B", "a/b_c.d"] {
            assert!(is_id(id), "{id}");
        }
        for path in [
            "",
            "name",
            "./name",
            "../name",
            "/abs/name",
            "org/name/more",
            "org/",
            "~/name",
            "a b/c",
        ] {
            assert!(!is_id(path), "{path}");
        }
    }

    #[test]
    fn a_revision_may_follow_an_id() {
        for (model, split) in [
            ("org/name", ("org/name", None)),
            ("org/name@v1", ("org/name", Some("v1"))),
            ("org/name@refs/pr/1", ("org/name", Some("refs/pr/1"))),
            ("org/name@", ("org/name@", None)),
            ("./dir@1", ("./dir@1", None)),
        ] {
            assert_eq!(split_revision(model), split);
        }
    }
}
