//! How much memory the served model may take: `--fit 24GiB`.

use std::fmt;

use router_stats::family::Topology;
use serde::{Deserialize, Serialize};

use super::SizeTarget;
use crate::error::Result;
use crate::memory::{longest, Traffic};
use crate::surgery::UqffWeights;

/// Sequences at a time, unless told otherwise: a chat page and a program or two.
/// A key-value cache for mistral.rs's own 32 would take more than the weights.
pub const SEQUENCES: usize = 4;

/// Tokens of each, unless told otherwise or the model takes fewer.
const TOKENS: usize = 4096;

/// How much memory the served model may take, and what is served with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryBudget {
    /// Bytes that may be resident.
    pub bytes: u64,
    /// Sequences at the same time.
    pub sequences: usize,
    /// Tokens of each; `None` is 4096, or as many as the model was made for.
    pub tokens: Option<usize>,
    /// Types that weights may be stored as; none are all.
    pub weights: Vec<UqffWeights>,
}

/// A memory budget that a plan was made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fit {
    /// Bytes that may be resident.
    pub bytes: u64,
    /// What is served with it at most.
    pub traffic: Traffic,
    /// Bytes that were predicted.
    pub predicted: u64,
    /// Tokens of the longest prompt that is scored in it.
    pub scored: usize,
}

impl MemoryBudget {
    /// What is served of a model of this structure.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) if the model takes no sequences
    /// as long.
    pub fn traffic(&self, topology: &Topology) -> Result<Traffic> {
        let default = match longest(TOKENS.min(topology.max_positions), topology) {
            Ok(tokens) => tokens,
            // It cannot be limited.
            Err(_) => topology.max_positions,
        };
        Ok(Traffic {
            sequences: self.sequences,
            tokens: match self.tokens {
                Some(asked) => longest(asked, topology)?,
                None => default,
            },
        })
    }

    /// The types that weights may be stored as.
    pub fn types(&self) -> impl Iterator<Item = UqffWeights> + '_ {
        let all = UqffWeights::ALL.into_iter();
        all.filter(|it| self.weights.is_empty() || self.weights.contains(it))
    }
}

/// `--fit 24GiB`.
fn flag(bytes: u64, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "--fit {}", SizeTarget::Bytes(bytes).value())
}

impl fmt::Display for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        flag(self.bytes, f)
    }
}

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        flag(self.bytes, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture::{model, Stored};

    #[test]
    fn defaults_are_for_a_few_conversations() {
        let mut topology = model(Stored::PerExpert).topology;
        let mut budget = MemoryBudget {
            bytes: 24 << 30,
            sequences: SEQUENCES,
            tokens: None,
            weights: Vec::new(),
        };
        assert_eq!(budget.to_string(), "--fit 24GiB");
        topology.max_positions = 40_960;
        assert_eq!(budget.traffic(&topology).unwrap().tokens, 4096);
        topology.max_positions = 2048;
        assert_eq!(budget.traffic(&topology).unwrap().tokens, 2048);
        budget.tokens = Some(600);
        assert_eq!(budget.traffic(&topology).unwrap().tokens, 1024);
        budget.tokens = Some(4096);
        assert!(budget.traffic(&topology).is_err());
        assert_eq!(budget.types().count(), UqffWeights::ALL.len());
        budget.weights = vec![UqffWeights::Q4K];
        assert!(budget.types().eq([UqffWeights::Q4K]));
    }
}
