//! What a file has to hash to.

use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use crate::cache::hex;

/// The name that the hub gives to a file's content: its entity tag, and the
/// name of the blob in the hub's cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Digest {
    /// SHA-256 of the content, of large files (LFS).
    Sha256(String),
    /// SHA-1 of the content behind Git's header, of small files.
    Git(String),
}

impl Digest {
    /// Reads an entity tag: 64 or 40 hexadecimal digits, quoted or not.
    pub(super) fn parse(tag: &str) -> Option<Self> {
        let tag = tag.trim().trim_start_matches("W/").trim_matches('"');
        if !tag.chars().all(|c| c.is_ascii_hexdigit()) {
            return None;
        }
        let tag = tag.to_ascii_lowercase();
        match tag.len() {
            64 => Some(Self::Sha256(tag)),
            40 => Some(Self::Git(tag)),
            _ => None,
        }
    }

    /// Its hexadecimal digits.
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Sha256(digits) | Self::Git(digits) => digits,
        }
    }

    /// Begins to hash a file of `size` bytes.
    pub(super) fn hasher(&self, size: u64) -> Hasher {
        match self {
            Self::Sha256(_) => Hasher::Sha256(Sha256::new()),
            Self::Git(_) => Hasher::Git(Sha1::new_with_prefix(format!("blob {size}\0"))),
        }
    }
}

/// Hashes a file as it passes by.
pub(super) enum Hasher {
    Sha256(Sha256),
    Git(Sha1),
}

impl Hasher {
    /// Adds the next bytes.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Git(hash) => hash.update(bytes),
        }
    }

    /// What the bytes hash to.
    pub(super) fn finish(self) -> Digest {
        match self {
            Self::Sha256(hash) => Digest::Sha256(hex(&hash.finalize())),
            Self::Git(hash) => Digest::Git(hex(&hash.finalize())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf 'hello\n' | git hash-object --stdin`, and `| sha256sum`.
    const GIT: &str = "ce013625030ba8dba906f756967f9e9ca394464a";
    const SHA256: &str = "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";

    #[test]
    fn content_hashes_as_git_and_sha256sum_say() {
        for (tag, expected) in [
            (format!("\"{GIT}\""), Digest::Git(GIT.to_owned())),
            (SHA256.to_uppercase(), Digest::Sha256(SHA256.to_owned())),
        ] {
            let digest = Digest::parse(&tag).unwrap();
            assert_eq!(digest, expected);
            let mut hasher = digest.hasher(6);
            hasher.update(b"hel");
            hasher.update(b"lo\n");
            assert_eq!(hasher.finish(), expected);
        }
    }

    #[test]
    fn other_tags_are_no_digests() {
        for tag in ["", "W/\"abc\"", "../../etc", &GIT[1..], "-org-name-resolve"] {
            assert_eq!(Digest::parse(tag), None, "{tag}");
        }
        assert!(Digest::parse(&format!("W/\"{GIT}\"")).is_some());
    }
}
