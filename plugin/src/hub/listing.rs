//! What the hub says a repository holds at a revision.

use std::sync::atomic::AtomicBool;

use serde_json::Value;

use super::digest::Digest;
use super::wire::{malformed, patiently, read_json, segment, Trouble, Wire};
use super::Failure;

/// The files of a repository at one commit.
#[derive(Debug, Clone)]
pub(super) struct Listing {
    /// The commit, hexadecimal.
    pub(super) commit: String,
    pub(super) files: Vec<Entry>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Path in the repository.
    pub(super) name: String,
    /// Bytes, if the listing says.
    pub(super) size: Option<u64>,
    /// What it hashes to, if the listing says.
    pub(super) digest: Option<Digest>,
}

impl Listing {
    /// Asks for the files of `id` at `revision`; only once unless `patient`.
    ///
    /// # Errors
    /// [`Failure`]
    pub(super) fn get(
        wire: &Wire,
        id: &str,
        revision: &str,
        patient: bool,
    ) -> Result<Self, Failure> {
        let revision = segment(revision);
        let path = format!("api/models/{id}/revision/{revision}?blobs=true");
        let ask = || read_json(wire.send("GET", &path, &[])?);
        let answer = if patient {
            patiently(&AtomicBool::new(false), ask)
        } else {
            ask().map_err(Trouble::into_failure)
        };
        Self::parse(&answer?)
    }

    fn parse(answer: &Value) -> Result<Self, Failure> {
        let commit = answer["sha"]
            .as_str()
            .filter(|sha| !sha.is_empty() && sha.chars().all(|c| c.is_ascii_hexdigit()));
        match (commit, answer["siblings"].as_array()) {
            (Some(commit), Some(files)) => Ok(Self {
                commit: commit.to_owned(),
                files: files.iter().filter_map(Entry::parse).collect(),
            }),
            _ => Err(malformed("a model listing without `sha` or `siblings`")),
        }
    }

    /// The file called `name`.
    pub(super) fn entry(&self, name: &str) -> Option<&Entry> {
        self.files.iter().find(|file| file.name == name)
    }

    /// Whether there is a file called `name`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entry(name).is_some()
    }
}

impl Entry {
    fn parse(file: &Value) -> Option<Self> {
        let large = &file["lfs"];
        let tag = large["sha256"].as_str().or_else(|| large["oid"].as_str());
        Some(Self {
            name: file["rfilename"].as_str()?.to_owned(),
            size: large["size"].as_u64().or_else(|| file["size"].as_u64()),
            digest: tag
                // A large file's `blobId` is that of its pointer.
                .or_else(|| file["blobId"].as_str().filter(|_| large.is_null()))
                .and_then(Digest::parse),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_files_are_read() {
        let git = "ce013625030ba8dba906f756967f9e9ca394464a";
        let sha = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
        let listing = Listing::parse(&serde_json::json!({ "sha": "abc123", "siblings": [
            { "rfilename": "config.json", "size": 6, "blobId": git },
            { "rfilename": "model.safetensors", "size": 9, "blobId": git, "lfs": { "sha256": sha, "size": 7, "pointerSize": 9 } },
            { "rfilename": "other" },
            { "size": 3 },
        ] }))
        .unwrap();
        assert_eq!(listing.commit, "abc123");
        assert_eq!(listing.files.len(), 3);
        let small = listing.entry("config.json").unwrap();
        assert_eq!(
            (small.size, &small.digest),
            (Some(6), &Some(Digest::Git(git.to_owned())))
        );
        let large = listing.entry("model.safetensors").unwrap();
        assert_eq!(
            (large.size, &large.digest),
            (Some(7), &Some(Digest::Sha256(sha.to_owned())))
        );
        let bare = listing.entry("other").unwrap();
        assert_eq!((bare.size, &bare.digest), (None, &None));
    }

    #[test]
    fn a_commit_cannot_be_a_path() {
        for sha in ["", "../x", "main"] {
            let answer = serde_json::json!({ "sha": sha, "siblings": [] });
            assert!(Listing::parse(&answer).is_err(), "{sha}");
        }
    }
}
