//! What goes and what stays, as a file a person can read.
//!
//! [`plan()`] turns statistics into a decision; a [`Plan`] records it with its
//! reasons and provenance; a [`ValidPlan`] is one that was checked against the
//! checkpoint at hand, so that nothing downstream can meet a bad plan.
//!
//! Scores come from [`crate::saliency`] and [`crate::layers`], counts from
//! [`crate::allocate`]; applying a plan is surgery.

mod budget;
mod choose;
mod constraints;
mod coverage;
mod diff;
mod drops;
mod file;
#[cfg(test)]
pub(crate) mod fixture;
mod json;
mod make;
mod memory_budget;
mod options;
mod searched;
mod size;
mod space;
mod super_experts;
mod target;
#[cfg(test)]
mod tests;
mod validate;

use router_stats::family::Skip;
use serde::{Deserialize, Serialize};

use crate::layers::Unit;
use crate::surgery::UqffWeights;

pub use budget::{ExpertBudget, LayerBudget};
pub use constraints::{Constraints, ExpertId};
pub use diff::{diff, Difference, LayerDifference, Relation};
pub use drops::measurements;
pub use file::{read, write};
pub(crate) use make::weights;
pub use make::{check, check_target, plan, Planner};
pub use memory_budget::{Fit, MemoryBudget, SEQUENCES};
pub use options::{PlanOptions, SearchOptions};
pub use searched::{Fitness, Searched};
pub use size::Size;
pub use space::{Open, Space};
pub use target::SizeTarget;
pub use validate::ValidPlan;

/// Version of the plan format that this build writes. It also reads version 2,
/// which has neither [`Method::search`] nor [`LayerPlan::skipped`] nor
/// [`Plan::weights`] and what asks for them, and version 1, which lacks
/// [`Method::constraints`] and [`DomainShare::coverage`] too.
pub const VERSION: u32 = 3;

/// A decision about one model, with its reasons.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Version of the format, at most [`VERSION`].
    pub version: u32,
    /// Program and version that wrote it: `mistralrs-prune 0.1.0`.
    pub created_by: String,
    /// The only model it applies to.
    pub model: PlannedModel,
    /// What it was decided from.
    pub stats: PlannedFrom,
    /// How it was decided.
    pub method: Method,
    /// The model as it is.
    pub before: Size,
    /// The model as it will be.
    pub after: Size,
    /// The type that its weights are to be served in; `None` leaves them as they
    /// are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<UqffWeights>,
    /// Every layer of the original model, in order. These lists are the
    /// decision; the sizes follow from them.
    pub layers: Vec<LayerPlan>,
}

impl Plan {
    /// That no expert has to go, if a size was asked for that the model has
    /// without it.
    pub fn unneeded(&self) -> Option<String> {
        let target = self.method.asked.target?;
        let none = self.layers.iter().all(|layer| layer.removed.is_empty());
        none.then(|| {
            let size = target.measure(&self.after);
            format!("no expert has to go: the model has {size}, within {target}")
        })
    }
}

/// The model a plan was made for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedModel {
    /// Name of its directory, for people.
    pub name: String,
    /// Fingerprint of configuration and weights.
    pub fingerprint: String,
    /// `model_type` of its family.
    pub family: String,
}

/// The statistics a plan was made from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedFrom {
    /// Hash of the statistics.
    pub hash: String,
    /// Hash of the calibration tokens.
    pub corpus: String,
    /// Calibration tokens over all domains.
    pub tokens: u64,
    /// The domains and their weights in this plan.
    pub domains: Vec<DomainShare>,
}

/// One domain's part in the mixture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DomainShare {
    /// Name.
    pub name: String,
    /// Weight of its sums in the mixture.
    pub weight: f64,
    /// Calibration tokens.
    pub tokens: u64,
    /// Share of its gated output norm Σ g‖f‖ that the kept experts carry, when
    /// the plan was made; `None` if it has none.
    #[serde(default)]
    pub coverage: Option<f64>,
}

/// How a plan was decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Method {
    /// Which experts: a name of [`crate::saliency::CRITERIA`].
    pub criterion: String,
    /// How many in which layer: a name of [`crate::allocate::ALLOCATORS`].
    pub allocator: String,
    /// What was found in place of the allocator's split, if it was searched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<Searched>,
    /// Which layers: a name of [`crate::layers::LAYER_CRITERIA`].
    pub layer_criterion: String,
    /// Seed of criteria that draw at random.
    pub seed: u64,
    /// What was asked for.
    pub asked: Asked,
    /// What was respected beside it.
    #[serde(default)]
    pub constraints: Constraints,
}

impl Method {
    /// What decided how many experts stay in which layer: the search if there
    /// was one, else the allocator.
    pub fn allocation(&self) -> &str {
        let search = self.search.as_ref();
        search.map_or(&self.allocator, |search| &search.name)
    }
}

/// What was asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Of the experts; `None` keeps all.
    pub experts: Option<ExpertBudget>,
    /// The size that [`experts`](Self::experts) was found for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<SizeTarget>,
    /// The memory that everything was found for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fit: Option<Fit>,
    /// The change of perplexity that [`experts`](Self::experts) was found for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_loss: Option<f64>,
    /// Of the layers; `None` keeps all.
    pub layers: Option<LayerBudget>,
    /// Of the attention sublayers of layers that stay; `None` keeps all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attention: Option<LayerBudget>,
    /// Of the MoE sublayers of layers that stay; `None` keeps all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moe: Option<LayerBudget>,
    /// Experts that each token takes; `None` takes as many as the model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<usize>,
}

impl Asked {
    /// The flags that asked, those of the experts first: `--target-size 12GiB`,
    /// `--drop-layers 2`. A target stands in for the budget it led to.
    pub fn flags(&self) -> Vec<String> {
        let target = self.target.map(|target| target.to_string());
        let loss = self.max_loss.map(|most| format!("--max-loss {most}"));
        let experts = target
            .or(loss)
            .or_else(|| self.experts.map(|budget| budget.to_string()));
        if let Some(fit) = self.fit {
            return vec![fit.to_string()];
        }
        let drops = self.drops();
        let drops = drops.map(|(unit, budget)| format!("{} {budget}", unit.flag()));
        let top_k = self.top_k.map(|top_k| format!("--top-k {top_k}"));
        experts.into_iter().chain(drops).chain(top_k).collect()
    }

    /// What goes from layers as a whole, and how much.
    pub fn drops(&self) -> impl Iterator<Item = (Unit, LayerBudget)> {
        let asked = [self.layers, self.attention, self.moe];
        let drops = Unit::ALL.into_iter().zip(asked);
        drops.filter_map(|(unit, budget)| Some((unit, budget?)))
    }
}

/// What happens to one layer. The lists hold original indices, ascending, and
/// together every expert once; a dense layer's are empty.
///
/// A dropped layer lists the split that it would have if it stayed, so that
/// setting `dropped` to false is all it takes to keep it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerPlan {
    /// Index in the original model.
    pub layer: usize,
    /// Whether the whole layer goes.
    pub dropped: bool,
    /// Which sublayers go if it stays. One that loses its experts lists the
    /// split that it would have with them.
    #[serde(default, skip_serializing_if = "Skip::is_none")]
    pub skipped: Skip,
    /// 1 − mean cosine of the residual stream before and after the layer.
    pub block_influence: f64,
    /// Experts that stay.
    pub kept: Vec<usize>,
    /// Experts that go.
    pub removed: Vec<usize>,
    /// Saliency of every expert, by original index.
    pub scores: Vec<f64>,
}

impl LayerPlan {
    /// Whether its feed-forward part stays.
    pub fn keeps_mlp(&self) -> bool {
        !self.dropped && !self.skipped.mlp
    }

    /// The experts that stay: [`kept`](Self::kept), or none if its feed-forward
    /// part goes.
    pub fn staying(&self) -> &[usize] {
        if self.keeps_mlp() {
            &self.kept
        } else {
            &[]
        }
    }

    /// What becomes of the layer as a whole, in a word or two: `dropped`,
    /// `no attention`, `no experts`; `None` if nothing does.
    pub fn fate(&self) -> Option<&'static str> {
        match self.skipped {
            _ if self.dropped => Some("dropped"),
            Skip {
                attention: true, ..
            } => Some("no attention"),
            Skip { mlp: true, .. } if self.scores.is_empty() => Some("no MLP"),
            Skip { mlp: true, .. } => Some("no experts"),
            Skip { .. } => None,
        }
    }
}
