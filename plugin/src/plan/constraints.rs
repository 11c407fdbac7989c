//! What a plan respects, whatever the scores.
//!
//! Owns which experts are protected and how they are named. Scores stay as the
//! criterion gave them; [`Ranking`](crate::saliency::Ranking) puts protected
//! experts first. The floor and the groups of a router are properties of the
//! model and belong to [`super::budget`].

use std::fmt;
use std::str::FromStr;

use router_stats::family::Topology;
use router_stats::stats::Stats;
use serde::{Deserialize, Serialize};

use super::super_experts::super_experts;
use super::PlanOptions;
use crate::error::{Error, Result};

/// What a plan had to respect beside what every model requires.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constraints {
    /// The super experts, which stay; `None` if they were not looked for.
    pub super_experts: Option<Vec<ExpertId>>,
    /// Experts that stay because they were named.
    pub protected: Vec<ExpertId>,
    /// Whether the weights of domains were chosen so that the domain that
    /// loses most loses least.
    pub balanced_domains: bool,
}

impl Constraints {
    /// What `options` ask for of a model whose domains weigh `weights`.
    ///
    /// # Errors
    /// [`Error::Option`] for experts that the model does not have, and those of
    /// reading a table that `stats` lacks.
    pub(super) fn new(
        options: &PlanOptions,
        stats: &Stats,
        topology: &Topology,
        weights: &[f64],
    ) -> Result<Self> {
        check(options, topology)?;
        let mut protected = options.protect.clone();
        protected.sort_unstable();
        protected.dedup();
        Ok(Self {
            super_experts: (!options.prune_super_experts)
                .then(|| super_experts(stats, topology, weights))
                .transpose()?,
            protected,
            balanced_domains: options.balance_domains,
        })
    }

    /// The experts of every layer that stay: `[L]`, ascending.
    pub(super) fn by_layer(&self, layers: usize) -> Vec<Vec<usize>> {
        let mut protected = vec![Vec::new(); layers];
        for id in self.super_experts.iter().flatten().chain(&self.protected) {
            if let Some(layer) = protected.get_mut(id.layer) {
                layer.push(id.expert);
            }
        }
        for layer in &mut protected {
            layer.sort_unstable();
            layer.dedup();
        }
        protected
    }
}

/// Fails if `options` name an expert that the model does not have.
///
/// # Errors
/// [`Error::Option`]
pub(super) fn check(options: &PlanOptions, topology: &Topology) -> Result<()> {
    for id in &options.protect {
        let expected = match topology.moe(id.layer) {
            Some(moe) if id.expert < moe.experts => continue,
            Some(moe) => format!("an expert below {} in layer {}", moe.experts, id.layer),
            None if id.layer < topology.layers() => "a layer with experts".to_owned(),
            None => format!("a layer below {}", topology.layers()),
        };
        return Err(Error::Option {
            option: ExpertId::FLAG,
            expected,
            found: id.to_string(),
        });
    }
    Ok(())
}

/// An expert by its layer and its index there. Displays and parses as `3:17`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ExpertId {
    /// Index of its layer in the original model.
    pub layer: usize,
    /// Its index in that layer.
    pub expert: usize,
}

impl ExpertId {
    const FLAG: &'static str = "--protect";
}

impl fmt::Display for ExpertId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.layer, self.expert)
    }
}

impl From<ExpertId> for String {
    fn from(id: ExpertId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for ExpertId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl FromStr for ExpertId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text
            .split_once(':')
            .map(|(layer, expert)| (layer.parse(), expert.parse()));
        match parts {
            Some((Ok(layer), Ok(expert))) => Ok(Self { layer, expert }),
            _ => Err(Error::Option {
                option: Self::FLAG,
                expected: "LAYER:EXPERT, such as 3:17".to_owned(),
                found: format!("`{text}`"),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn experts_are_spelled_by_layer_and_index() {
        let id: ExpertId = "3:17".parse().unwrap();
        assert_eq!((id.layer, id.expert), (3, 17));
        assert_eq!(serde_json::to_string(&id).unwrap(), "\"3:17\"");
        assert_eq!(serde_json::from_str::<ExpertId>("\"3:17\"").unwrap(), id);
        for text in ["", "3", "3:", ":1", "3:-1", "a:b", "1:2:3"] {
            assert!(text.parse::<ExpertId>().unwrap_err().is_usage(), "{text}");
        }
        assert!(serde_json::from_str::<ExpertId>("\"3\"").is_err());
    }

    #[test]
    fn layers_gather_both_kinds_once() {
        let id = |layer, expert| ExpertId { layer, expert };
        let constraints = Constraints {
            super_experts: Some(vec![id(2, 5), id(0, 1)]),
            protected: vec![id(2, 3), id(2, 5)],
            balanced_domains: false,
        };
        assert_eq!(constraints.by_layer(3), [vec![1], vec![], vec![3, 5]]);
        assert!(Constraints::default().by_layer(1)[0].is_empty());
    }
}
