//! Where statistics come from, and which may be added together.

use std::fmt::Debug;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What was measured, on which text, with which settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provenance {
    /// The model's name, for people.
    pub model: String,
    /// The checkpoint's fingerprint.
    pub fingerprint: String,
    /// The family's `model_type`.
    pub family: String,
    /// Hash of the packed calibration text.
    pub corpus: String,
    /// The domains, in the order of every table's first dimension.
    pub domains: Vec<DomainProvenance>,
    /// Longest sequence, in tokens.
    pub seq_len: usize,
    /// Most tokens that passed through a block together. The shard a sequence
    /// belongs to follows from it.
    pub batch_tokens: usize,
    /// Seed of the packing.
    pub seed: u64,
    /// Experts per layer; 0 for dense layers.
    pub experts: Vec<usize>,
    /// Experts each token is routed to.
    pub top_k: usize,
    /// Width of the residual stream, H.
    pub hidden: usize,
    /// Shards of the calibration text that are covered, as `[index, count]`,
    /// ascending; `[[0, 1]]` once all are.
    pub shards: Vec<[usize; 2]>,
    /// Program and version: `router-stats 0.1.0`.
    pub created_by: String,
}

/// How much of one domain was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainProvenance {
    /// Name.
    pub name: String,
    /// Weight in a mixture, unless another is asked for.
    pub weight: f64,
    /// Tokens.
    pub tokens: u64,
    /// Sequences.
    pub sequences: u64,
    /// Documents in the calibration text, of which a shard sees a part.
    pub documents: u64,
}

impl Provenance {
    /// The largest number of experts of any layer.
    pub fn max_experts(&self) -> usize {
        self.experts.iter().copied().max().unwrap_or(0)
    }

    /// What is wrong with it, if anything.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.domains.is_empty() {
            return Err("expected at least one domain, found none".to_owned());
        }
        for (index, domain) in self.domains.iter().enumerate() {
            if !(domain.weight.is_finite() && domain.weight >= 0.0) {
                let (name, weight) = (&domain.name, domain.weight);
                return Err(format!(
                    "domain `{name}`: expected a weight of at least 0, found {weight}"
                ));
            }
            if self.domains[..index]
                .iter()
                .any(|other| other.name == domain.name)
            {
                return Err(format!("domain `{}` is there twice", domain.name));
            }
        }
        let count = self.shards.first().map_or(0, |shard| shard[1]);
        let sound = self
            .shards
            .iter()
            .all(|shard| shard[0] < count && shard[1] == count)
            && self.shards.windows(2).all(|pair| pair[0] < pair[1]);
        if count == 0 || !sound {
            return Err(format!(
                "expected ascending shards of one count, found {:?}",
                self.shards
            ));
        }
        Ok(())
    }

    /// Adds what `other` covers.
    ///
    /// # Errors
    /// [`Error::StatsMismatch`] if model, text or settings differ, or a shard
    /// is covered by both.
    pub(super) fn merge(mut self, other: Self) -> Result<Self> {
        same("model", &self.fingerprint, &other.fingerprint)?;
        same("model family", &self.family, &other.family)?;
        same("calibration text", &self.corpus, &other.corpus)?;
        let domains = |provenance: &Self| -> Vec<(String, f64, u64)> {
            provenance
                .domains
                .iter()
                .map(|d| (d.name.clone(), d.weight, d.documents))
                .collect()
        };
        same(
            "domains, their weights and documents",
            &domains(&self),
            &domains(&other),
        )?;
        same("sequence length", &self.seq_len, &other.seq_len)?;
        same("batch tokens", &self.batch_tokens, &other.batch_tokens)?;
        same("seed", &self.seed, &other.seed)?;
        same("experts per layer", &self.experts, &other.experts)?;
        same("experts per token", &self.top_k, &other.top_k)?;
        same("hidden size", &self.hidden, &other.hidden)?;
        self.shards = merge_shards(&self.shards, &other.shards)?;
        for (mine, theirs) in self.domains.iter_mut().zip(&other.domains) {
            mine.tokens += theirs.tokens;
            mine.sequences += theirs.sequences;
        }
        // Copies of one model may be called differently; the choice must not
        // depend on the order of merging.
        self.model = self.model.min(other.model);
        self.created_by = self.created_by.max(other.created_by);
        Ok(self)
    }

    /// Fails if both are of one text and not certainly of different shards.
    ///
    /// # Errors
    /// [`Error::StatsMismatch`]
    pub(super) fn expect_apart(&self, other: &Self) -> Result<()> {
        if self.corpus != other.corpus {
            return Ok(());
        }
        same("batch tokens", &self.batch_tokens, &other.batch_tokens)?;
        merge_shards(&self.shards, &other.shards).map(drop)
    }
}

pub(super) fn same<T: PartialEq + Debug>(what: &str, left: &T, right: &T) -> Result<()> {
    if left == right {
        return Ok(());
    }
    Err(Error::StatsMismatch {
        what: what.to_owned(),
        left: format!("{left:?}"),
        right: format!("{right:?}"),
    })
}

fn merge_shards(left: &[[usize; 2]], right: &[[usize; 2]]) -> Result<Vec<[usize; 2]>> {
    let count = |shards: &[[usize; 2]]| shards.first().map_or(0, |shard| shard[1]);
    same("the number of shards", &count(left), &count(right))?;
    let mut shards = [left, right].concat();
    shards.sort_unstable();
    if shards.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Error::StatsMismatch {
            what: "shards, which must not overlap".to_owned(),
            left: format!("{left:?}"),
            right: format!("{right:?}"),
        });
    }
    Ok(if shards.len() == count(left) {
        vec![[0, 1]]
    } else {
        shards
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::testing::sample;

    #[test]
    fn shards_are_collected_until_they_are_complete() {
        assert_eq!(
            merge_shards(&[[2, 3]], &[[0, 3]]).unwrap(),
            [[0, 3], [2, 3]]
        );
        assert_eq!(
            merge_shards(&[[0, 3], [2, 3]], &[[1, 3]]).unwrap(),
            [[0, 1]]
        );
        for (left, right) in [
            ([[0, 1]], [[0, 1]]),
            ([[1, 3]], [[1, 3]]),
            ([[0, 2]], [[1, 3]]),
        ] {
            assert!(matches!(
                merge_shards(&left, &right),
                Err(Error::StatsMismatch { .. })
            ));
        }
    }

    #[test]
    fn only_like_may_be_merged_and_the_difference_is_named() {
        type Change = fn(&mut Provenance);
        let changes: [(&str, Change); 11] = [
            ("model", |p| p.fingerprint.push('0')),
            ("model family", |p| p.family.push('0')),
            ("calibration text", |p| p.corpus.push('0')),
            ("domains, their weights and documents", |p| {
                p.domains[0].name.push('0');
            }),
            ("domains, their weights and documents", |p| {
                p.domains[0].weight += 1.0;
            }),
            ("sequence length", |p| p.seq_len += 1),
            ("batch tokens", |p| p.batch_tokens += 1),
            ("seed", |p| p.seed += 1),
            ("experts per layer", |p| p.experts[0] += 1),
            ("experts per token", |p| p.top_k += 1),
            ("hidden size", |p| p.hidden += 1),
        ];
        let left = Provenance {
            shards: vec![[0, 2]],
            ..sample().provenance
        };
        for (named, change) in changes {
            let mut right = Provenance {
                shards: vec![[1, 2]],
                ..left.clone()
            };
            change(&mut right);
            match left.clone().merge(right) {
                Err(Error::StatsMismatch { what, .. }) => assert_eq!(what, named),
                other => panic!("{named}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_was_measured_adds_up() {
        let left = Provenance {
            shards: vec![[0, 2]],
            ..sample().provenance
        };
        let right = Provenance {
            shards: vec![[1, 2]],
            model: "a copy".to_owned(),
            ..left.clone()
        };
        let merged = left.clone().merge(right.clone()).unwrap();
        assert_eq!(merged, right.merge(left.clone()).unwrap());
        assert_eq!(merged.model, "a copy");
        let (one, both) = (&left.domains[1], &merged.domains[1]);
        assert_eq!(
            (both.tokens, both.sequences, both.documents),
            (2 * one.tokens, 2 * one.sequences, one.documents)
        );
    }
}
