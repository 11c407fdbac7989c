//! Models by their id on the Hugging Face hub.
//!
//! Owns turning `org/name` into a local snapshot in the hub's own cache layout,
//! so that files are shared with other tools. Only what a checkpoint needs is
//! downloaded; an interrupted download continues where it stopped. It does not
//! read what it downloads, apart from the names in a shard index.
//!
//! Environment: `HF_HOME` (default `~/.cache/huggingface`), `HF_HUB_CACHE`
//! (default `$HF_HOME/hub`), `HF_TOKEN` or else the file `$HF_HOME/token` that
//! `hf auth login` leaves, `HF_ENDPOINT`, `HF_HUB_OFFLINE`.

mod access;
mod failure;
mod token;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Repo, RepoType};
use router_stats::progress::{Progress, Update};
use serde_json::Value;

pub use access::Access;
pub use failure::Failure;
pub use token::Token;

use crate::{Error, Result};

const CONFIG: &str = "config.json";
const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Small files that a checkpoint carries if they exist.
const OPTIONAL: [&str; 9] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
];

/// How often a running download is asked for news.
const POLL: Duration = Duration::from_millis(100);

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

impl Hub {
    /// Access as the environment says.
    pub fn from_env(token: Token) -> Self {
        Self::from_variables(token, &|name| std::env::var(name).ok())
    }

    fn from_variables(token: Token, variable: &dyn Fn(&str) -> Option<String>) -> Self {
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
    /// [`Error::Hub`], or [`router_stats::Error::Interrupted`]; what was
    /// downloaded stays and is continued next time.
    pub fn snapshot(
        &self,
        id: &str,
        revision: Option<&str>,
        progress: &dyn Progress,
    ) -> Result<Snapshot> {
        let revision = revision.unwrap_or("main");
        let fail = |failure| Error::Hub {
            id: id.to_owned(),
            revision: revision.to_owned(),
            failure,
        };
        let repo = Repo::with_revision(id.to_owned(), RepoType::Model, revision.to_owned());
        if self.offline {
            return self
                .cached(&repo, revision)
                .map_err(|missing| fail(Failure::Offline(missing)));
        }
        let api = self.api().map_err(|error| fail(Failure::from(error)))?;
        let listing = match list(&api, &repo) {
            Ok(listing) => listing,
            // Without a connection, what is here is what there is.
            Err(Failure::Transport(reason)) => {
                return self
                    .cached(&repo, revision)
                    .map_err(|_| fail(Failure::Transport(reason)));
            }
            Err(failure) => return Err(fail(failure)),
        };
        let pinned = Repo::with_revision(id.to_owned(), RepoType::Model, listing.commit.clone());
        let dir = self.snapshot_dir(&repo, &listing.commit);
        self.download(&api, &pinned, &dir, &listing, progress, &fail)?;
        let reference = self.cache.repo(repo).create_ref(&listing.commit);
        reference.map_err(router_stats::Error::io(self.cache.path()))?;
        Ok(Snapshot {
            dir,
            commit: listing.commit,
        })
    }

    fn api(&self) -> std::result::Result<Api, ApiError> {
        let mut builder = ApiBuilder::from_cache(self.cache.clone()).with_progress(false);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
        }
        let token = match &self.token {
            Token::Literal(token) => Some(token.clone()),
            Token::Ambient | Token::Anonymous => None,
        };
        // Always set: hf-hub would look for a file beside the cache.
        builder.with_token(token).build()
    }

    fn snapshot_dir(&self, repo: &Repo, commit: &str) -> PathBuf {
        self.cache
            .path()
            .join(repo.folder_name())
            .join("snapshots")
            .join(commit)
    }

    /// What the cache holds, or the name of the first file it lacks.
    fn cached(&self, repo: &Repo, revision: &str) -> std::result::Result<Snapshot, String> {
        let by_reference = self.cache.repo(repo.clone()).get(CONFIG);
        let config = by_reference
            .or_else(|| {
                Some(self.snapshot_dir(repo, revision).join(CONFIG)).filter(|path| path.exists())
            })
            .ok_or_else(|| CONFIG.to_owned())?;
        let dir = config.parent().map(Path::to_path_buf).unwrap_or_default();
        let has = |name: &str| dir.join(name).exists();
        let weights = if is_sharded(has) {
            shards(&dir.join(INDEX)).map_err(|_| INDEX.to_owned())?
        } else {
            BTreeSet::from([WEIGHTS.to_owned()])
        };
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

    /// Downloads what `dir` lacks: first the small files, then the weights
    /// that the index, if there is one, names.
    fn download(
        &self,
        api: &Api,
        repo: &Repo,
        dir: &Path,
        listing: &Listing,
        progress: &dyn Progress,
        fail: &dyn Fn(Failure) -> Error,
    ) -> Result<()> {
        if !listing.has(CONFIG) {
            return Err(fail(Failure::NoCheckpoint(CONFIG)));
        }
        let sharded = is_sharded(|name| listing.has(name));
        if !sharded && !listing.has(WEIGHTS) {
            return Err(fail(Failure::NoCheckpoint(
                "model.safetensors, nor an index with shards",
            )));
        }
        let mut small: Vec<String> = vec![CONFIG.to_owned()];
        small.extend(
            OPTIONAL
                .iter()
                .filter(|name| listing.has(name))
                .map(ToString::to_string),
        );
        if sharded {
            small.push(INDEX.to_owned());
        }
        let mut tally = Tally {
            done: 0,
            total: 0,
            progress,
        };
        for name in &small {
            tally.fetch(api, repo, dir, name, fail)?;
        }
        let weights: Vec<String> = if sharded {
            shards(&dir.join(INDEX))
                .map_err(|reason| fail(Failure::Malformed(reason)))?
                .into_iter()
                .collect()
        } else {
            vec![WEIGHTS.to_owned()]
        };
        tally = Tally {
            done: 0,
            total: weights.iter().map(|name| listing.size(name)).sum(),
            progress,
        };
        for name in &weights {
            tally.fetch(api, repo, dir, name, fail)?;
            tally.done += listing.size(name);
        }
        Ok(())
    }
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

/// Whether the weights are the shards of the index. One file with all of them
/// goes before an index, as it does when a checkpoint is opened.
fn is_sharded(has: impl Fn(&str) -> bool) -> bool {
    has(INDEX) && !has(WEIGHTS)
}

/// What the hub says about a repository at a revision.
struct Listing {
    commit: String,
    files: Vec<(String, u64)>,
}

impl Listing {
    fn has(&self, name: &str) -> bool {
        self.files.iter().any(|(file, _)| file == name)
    }

    fn size(&self, name: &str) -> u64 {
        self.files
            .iter()
            .find(|(file, _)| file == name)
            .map_or(0, |(_, size)| *size)
    }
}

fn list(api: &Api, repo: &Repo) -> std::result::Result<Listing, Failure> {
    let request = api.repo(repo.clone()).info_request().query("blobs", "true");
    let response = request.call().map_err(|error| {
        let reason = error.to_string();
        error
            .into_response()
            .map_or(Failure::Transport(reason), |response| {
                Failure::of_status(response.status())
            })
    })?;
    let answer: Value = response
        .into_json()
        .map_err(|error| Failure::Malformed(error.to_string()))?;
    let commit = answer["sha"]
        .as_str()
        .filter(|sha| !sha.is_empty() && sha.chars().all(|c| c.is_ascii_hexdigit()));
    let files = answer["siblings"].as_array();
    match (commit, files) {
        (Some(commit), Some(files)) => Ok(Listing {
            commit: commit.to_owned(),
            files: files
                .iter()
                .filter_map(|file| {
                    Some((
                        file["rfilename"].as_str()?.to_owned(),
                        file["size"].as_u64().unwrap_or(0),
                    ))
                })
                .collect(),
        }),
        _ => Err(Failure::Malformed(
            "a model listing without `sha` or `siblings`".to_owned(),
        )),
    }
}

/// Names of the shards in an index. A name with a separator would leave the
/// snapshot, so it is refused.
fn shards(index: &Path) -> std::result::Result<BTreeSet<String>, String> {
    let text = std::fs::read(index).map_err(|error| error.to_string())?;
    let index: Value =
        serde_json::from_slice(&text).map_err(|error| format!("{INDEX}: {error}"))?;
    let map = index["weight_map"]
        .as_object()
        .ok_or_else(|| format!("{INDEX}: no `weight_map`"))?;
    map.values()
        .map(|name| match name.as_str() {
            Some(name) if name.ends_with(".safetensors") && !name.contains(['/', '\\']) => {
                Ok(name.to_owned())
            }
            _ => Err(format!("{INDEX}: {name} is not the name of a shard")),
        })
        .collect()
}

/// Counts bytes over the files of one stage.
struct Tally<'a> {
    done: u64,
    total: u64,
    progress: &'a dyn Progress,
}

impl Tally<'_> {
    /// Downloads `name` unless it is there. The transfer runs on its own
    /// thread, so that a wish to stop is heard in the middle of a shard.
    fn fetch(
        &self,
        api: &Api,
        repo: &Repo,
        dir: &Path,
        name: &str,
        fail: &dyn Fn(Failure) -> Error,
    ) -> Result<()> {
        let path = dir.join(name);
        if path.exists() {
            return Ok(());
        }
        let (sender, receiver) = mpsc::channel();
        let (repo, file) = (api.repo(repo.clone()), name.to_owned());
        let transfer =
            std::thread::spawn(move || repo.download_with_progress(&file, Bytes(sender)));
        let mut bytes = 0;
        loop {
            match receiver.recv_timeout(POLL) {
                Ok(more) => bytes += more,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            self.progress.step(&Update {
                stage: "Downloading",
                detail: name,
                unit: "B",
                done: self.done + bytes,
                total: self.total.max(self.done + bytes),
            })?;
        }
        match transfer.join() {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(fail(Failure::from(error))),
            Err(_) => Err(fail(Failure::Transport(format!(
                "the transfer of {name} broke off"
            )))),
        }
    }
}

struct Bytes(mpsc::Sender<u64>);

impl hf_hub::api::Progress for Bytes {
    fn init(&mut self, _: usize, _: &str) {}

    fn update(&mut self, bytes: usize) {
        // Nobody listens any more once the user has asked to stop.
        let _ = self.0.send(bytes as u64);
    }

    fn finish(&mut self) {}
}

#[cfg(test)]
mod tests;
