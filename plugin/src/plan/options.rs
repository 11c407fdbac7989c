//! What can be asked of a plan.

use std::time::Duration;

use super::{ExpertBudget, ExpertId, LayerBudget, MemoryBudget, Plan, SizeTarget};
use crate::layers::{self, Unit};
use crate::{allocate, saliency};

/// What is asked of a plan. The default keeps everything.
#[derive(Debug, Clone, PartialEq)]
pub struct PlanOptions {
    /// Which experts go: a name of [`saliency::CRITERIA`].
    pub criterion: String,
    /// How many in which layer: a name of [`allocate::ALLOCATORS`].
    pub allocator: String,
    /// Whether candidates are run to find something better than the allocator's
    /// split; it takes calibration text: [`searched`](crate::pipeline::searched).
    pub search: Option<SearchOptions>,
    /// How many experts go; `None` keeps all.
    pub experts: Option<ExpertBudget>,
    /// What the result may weigh; it stands in for [`experts`](Self::experts).
    pub target: Option<SizeTarget>,
    /// What the served result may take in memory; it takes text to find
    /// [`experts`](Self::experts), layers and types of weights for it:
    /// [`solved`](crate::pipeline::solved).
    pub fit: Option<MemoryBudget>,
    /// What the result may lose, as a fraction of perplexity; it takes held-out
    /// text to find [`experts`](Self::experts) for it:
    /// [`within_loss`](crate::pipeline::within_loss).
    pub max_loss: Option<f64>,
    /// How many layers go; `None` keeps all.
    pub drop_layers: Option<LayerBudget>,
    /// How many attention sublayers go; `None` keeps all.
    pub drop_attention: Option<LayerBudget>,
    /// How many MoE sublayers go; `None` keeps all.
    pub drop_moe: Option<LayerBudget>,
    /// Which layers and sublayers go: a name of [`layers::LAYER_CRITERIA`].
    pub layer_criterion: String,
    /// Experts that each token takes, fewer than the model's; `None` takes as
    /// many.
    pub top_k: Option<usize>,
    /// Seed of criteria that draw at random.
    pub seed: u64,
    /// Weights by domain name, in place of those the statistics were made
    /// with; domains that are not named keep theirs.
    pub domain_weights: Option<Vec<(String, f64)>>,
    /// Whether super experts may go too.
    pub prune_super_experts: bool,
    /// Experts that stay, and with them their layers.
    pub protect: Vec<ExpertId>,
    /// Whether the weights are only where to begin, to find those under which
    /// the worst domain keeps most of its expert output.
    pub balance_domains: bool,
    /// Budgets of other plans that this one is to be nested with, as
    /// [`Planner::nested`](super::Planner::nested) has it.
    pub nested_with: Vec<ExpertBudget>,
}

impl PlanOptions {
    /// What `plan` was asked for, to be asked again of other statistics, without
    /// a search and without the type of its weights. Its domains have the weights
    /// that it gave them.
    pub fn of(plan: &Plan) -> Self {
        let method = &plan.method;
        let constraints = &method.constraints;
        let domains = plan.stats.domains.iter();
        Self {
            criterion: method.criterion.clone(),
            allocator: method.allocator.clone(),
            // How much time it had is not in the plan.
            search: None,
            experts: method.asked.experts,
            target: method.asked.target,
            // It led to the budgets of experts and layers, which are asked again.
            fit: None,
            max_loss: method.asked.max_loss,
            drop_layers: method.asked.layers,
            drop_attention: method.asked.attention,
            drop_moe: method.asked.moe,
            top_k: method.asked.top_k,
            layer_criterion: method.layer_criterion.clone(),
            seed: method.seed,
            domain_weights: Some(domains.map(|it| (it.name.clone(), it.weight)).collect()),
            prune_super_experts: constraints.super_experts.is_none(),
            protect: constraints.protected.clone(),
            balance_domains: constraints.balanced_domains,
            nested_with: Vec::new(),
        }
    }
}

/// How a plan is searched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchOptions {
    /// A name of [`crate::search::SEARCHES`].
    pub name: String,
    /// Tokens of calibration text over all domains to measure candidates on.
    pub tokens: usize,
    /// Time for measuring them.
    pub time: Duration,
}

impl Default for PlanOptions {
    fn default() -> Self {
        Self {
            criterion: saliency::CRITERIA[0].name().to_owned(),
            allocator: allocate::ALLOCATORS[0].name().to_owned(),
            search: None,
            experts: None,
            target: None,
            fit: None,
            max_loss: None,
            drop_layers: None,
            drop_attention: None,
            drop_moe: None,
            top_k: None,
            layer_criterion: layers::LAYER_CRITERIA[0].name().to_owned(),
            seed: 0,
            domain_weights: None,
            prune_super_experts: false,
            protect: Vec::new(),
            balance_domains: false,
            nested_with: Vec::new(),
        }
    }
}

impl PlanOptions {
    /// What goes from layers as a whole, and how much.
    pub fn drops(&self) -> impl Iterator<Item = (Unit, LayerBudget)> {
        let asked = [self.drop_layers, self.drop_attention, self.drop_moe];
        let drops = Unit::ALL.into_iter().zip(asked);
        drops.filter_map(|(unit, budget)| Some((unit, budget?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture;

    #[test]
    fn what_a_plan_was_asked_for_can_be_asked_again() {
        let plan = fixture::half();
        let again = PlanOptions::of(plan.plan());
        assert_eq!(again.experts, plan.plan().method.asked.experts);
        assert_eq!(again.criterion, plan.plan().method.criterion);
        let domains = plan.plan().stats.domains.len();
        assert_eq!(again.domain_weights.map(|it| it.len()), Some(domains));
    }

    #[test]
    fn defaults_are_registered() {
        let options = PlanOptions::default();
        assert_eq!(
            saliency::criterion(&options.criterion).unwrap().name(),
            "reap"
        );
        assert_eq!(
            allocate::allocator(&options.allocator).unwrap().name(),
            "uniform"
        );
        assert_eq!(
            layers::layer_criterion(&options.layer_criterion)
                .unwrap()
                .name(),
            "block-influence"
        );
    }
}
