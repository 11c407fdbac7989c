//! Names of entries, made of what they depend on.

use router_stats::family::{Keep, Skip};
use serde::Serialize;
use sha2::{Digest, Sha256};

use super::hex;
use crate::{Error, Result};

/// Part of every key. Raise it when an entry made by an older build must not
/// be taken for one of this build.
const GENERATION: &str = "3";

/// Hashes what an entry depends on into its name.
///
/// Every part is hashed with its length, so that neighbouring parts cannot be
/// mistaken for one another.
#[derive(Debug, Clone)]
pub struct Key(Sha256);

impl Key {
    /// Starts the key of one kind of entry.
    pub fn new(kind: &str) -> Self {
        Self(Sha256::new()).with(GENERATION).with(kind)
    }

    /// Adds something that the entry depends on.
    pub fn with(mut self, part: &str) -> Self {
        self.0.update((part.len() as u64).to_le_bytes());
        self.0.update(part.as_bytes());
        self
    }

    /// Adds options, by their JSON.
    ///
    /// # Errors
    /// If they cannot be written as JSON.
    pub fn with_json<T: Serialize>(self, part: &T) -> Result<Self> {
        Ok(self.with(&serde_json::to_string(part).map_err(Error::Serialize)?))
    }

    /// Adds what stays of a model.
    ///
    /// # Errors
    /// If it cannot be written as JSON.
    pub fn with_keep(self, keep: &Keep) -> Result<Self> {
        let mut key = self.with_json(&(&keep.layers, &keep.experts))?;
        if !keep.skipped.iter().all(Skip::is_none) {
            key = key.with("skipped").with_json(&keep.skipped)?;
        }
        if let Some(top_k) = keep.top_k {
            key = key.with("top-k").with(&top_k.to_string());
        }
        Ok(key)
    }

    /// The name: 32 hexadecimal digits.
    pub fn finish(self) -> String {
        hex(&self.0.finalize()[..16])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_depend_on_every_part_and_its_place() {
        let key = |parts: &[&str]| {
            parts
                .iter()
                .fold(Key::new("stats"), |key, part| key.with(part))
                .finish()
        };
        assert_eq!(key(&["a", "b"]), key(&["a", "b"]));
        assert_ne!(key(&["a", "b"]), key(&["b", "a"]));
        assert_ne!(key(&["ab", ""]), key(&["a", "b"]));
        assert_ne!(key(&[]), Key::new("plan").finish());
        assert_eq!(key(&["a"]).len(), 32);
    }

    #[test]
    fn what_stays_is_told_apart_by_all_that_goes() {
        let keep = Keep {
            layers: vec![0, 1],
            experts: vec![vec![0, 1]; 2],
            skipped: vec![Skip::default(); 2],
            top_k: None,
        };
        let mut keeps = vec![keep.clone(); 5];
        keeps[1].skipped[0].attention = true;
        keeps[2].skipped[0].mlp = true;
        keeps[3].top_k = Some(1);
        keeps[4].experts[1] = vec![1];
        let name = |keep: &Keep| Key::new("x").with_keep(keep).unwrap().finish();
        let names: std::collections::BTreeSet<_> = keeps.iter().map(name).collect();
        assert_eq!(names.len(), keeps.len());
        // Of older builds.
        let old = Key::new("x").with_json(&(&keep.layers, &keep.experts));
        assert_eq!(name(&keep), old.unwrap().finish());
    }
}
