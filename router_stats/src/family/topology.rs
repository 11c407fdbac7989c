//! The structure of a model as plain numbers.

/// What a configuration says about a model's structure.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    /// Width of the residual stream, H.
    pub hidden: usize,
    /// Rows of the embedding, V.
    pub vocab: usize,
    /// Longest sequence the model was made for, in tokens.
    pub max_positions: usize,
    /// ε of every RMS norm.
    pub rms_norm_eps: f64,
    /// Whether the head shares the embedding's weights.
    pub tied_head: bool,
    /// The attention of every block.
    pub attention: AttentionSpec,
    /// The feed-forward part of each block, in order.
    pub mlps: Vec<MlpSpec>,
}

/// Grouped-query attention with rotary positions.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionSpec {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Whether queries and keys are RMS-normalised per head.
    pub qk_norm: bool,
    /// Whether q, k and v projections have a bias.
    pub qkv_bias: bool,
    /// Whether the output projection has a bias.
    pub o_bias: bool,
    /// Per block: the number of most recent tokens each token attends to,
    /// itself included; `None` for all of them.
    pub windows: Vec<Option<usize>>,
}

/// The feed-forward part of a block.
#[derive(Debug, Clone, PartialEq)]
pub enum MlpSpec {
    /// One gated MLP that every token passes through.
    Dense {
        /// Width between its projections.
        intermediate: usize,
    },
    /// A router and its experts.
    Moe(MoeSpec),
}

/// A router and its experts.
#[derive(Debug, Clone, PartialEq)]
pub struct MoeSpec {
    /// Experts, E.
    pub experts: usize,
    /// Width between an expert's projections, I.
    pub intermediate: usize,
    /// How tokens choose experts.
    pub router: RouterRule,
}

/// How router logits become experts and gate values.
#[derive(Debug, Clone, PartialEq)]
pub struct RouterRule {
    /// Experts each token is routed to.
    pub top_k: usize,
    /// From logits to scores.
    pub scoring: Scoring,
    /// Whether the scores of the chosen experts are divided by their sum.
    pub renormalize: bool,
}

/// From router logits to scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scoring {
    /// Softmax over all experts.
    Softmax,
}

impl Topology {
    /// Number of blocks.
    pub fn layers(&self) -> usize {
        self.mlps.len()
    }

    /// The router and experts of `layer`, or `None` if it is dense.
    pub fn moe(&self, layer: usize) -> Option<&MoeSpec> {
        match self.mlps.get(layer) {
            Some(MlpSpec::Moe(moe)) => Some(moe),
            _ => None,
        }
    }

    /// Experts per layer; 0 for dense layers.
    pub fn experts(&self) -> Vec<usize> {
        (0..self.layers())
            .map(|layer| self.moe(layer).map_or(0, |moe| moe.experts))
            .collect()
    }

    /// The largest number of experts of any layer.
    pub fn max_experts(&self) -> usize {
        self.experts().into_iter().max().unwrap_or(0)
    }
}
