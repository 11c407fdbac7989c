//! Flags that say what goes from layers as a whole.

use clap::builder::PossibleValuesParser;
use clap::{ArgGroup, Args};

use super::args::{default_layer_criterion, layer_criteria};
use crate::plan::{LayerBudget, PlanOptions};

/// Ids of the flags that drop layers or sublayers.
pub(super) const DROPS: [&str; 3] = ["drop_layers", "drop_attention", "drop_moe"];

/// Id of the flag that lets tokens take fewer experts.
pub(super) const TOP_K: &str = "top_k";

/// Layers, sublayers, and how many experts a token takes.
#[derive(Args, Clone)]
#[command(
    next_help_heading = "Pruning",
    group(ArgGroup::new("layer_budget").args(DROPS).multiple(true))
)]
pub(super) struct LayerArgs {
    /// Layers to drop: a number, or a fraction below 1
    #[arg(long, value_name = "N|FRACTION")]
    pub(super) drop_layers: Option<LayerBudget>,

    /// Attention sublayers to drop of layers that stay, for `plan` and `eval`:
    /// no configuration can say that a layer lacks one
    #[arg(long, value_name = "N|FRACTION")]
    pub(super) drop_attention: Option<LayerBudget>,

    /// MoE sublayers to drop of layers that stay, all experts with their router
    #[arg(long, value_name = "N|FRACTION")]
    pub(super) drop_moe: Option<LayerBudget>,

    /// Which layers and sublayers go
    #[arg(long, default_value = default_layer_criterion(), value_name = "NAME", value_parser = PossibleValuesParser::new(layer_criteria()), requires = "layer_budget")]
    pub(super) layer_criterion: String,

    /// Experts that each token takes, fewer than the model's
    #[arg(long, value_name = "N")]
    pub(super) top_k: Option<usize>,
}

impl LayerArgs {
    /// Whether anything is to go, or to be taken by fewer tokens.
    pub(super) fn asks(&self) -> bool {
        self.drops() || self.top_k.is_some()
    }

    /// Whether layers or sublayers are to go.
    fn drops(&self) -> bool {
        self.drop_layers.is_some() || self.drop_attention.is_some() || self.drop_moe.is_some()
    }

    /// Adds them to the options of a plan.
    pub(super) fn apply(&self, options: PlanOptions) -> PlanOptions {
        PlanOptions {
            drop_layers: self.drop_layers,
            drop_attention: self.drop_attention,
            drop_moe: self.drop_moe,
            layer_criterion: self.layer_criterion.clone(),
            top_k: self.top_k,
            ..options
        }
    }
}
