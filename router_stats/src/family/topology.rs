//! The structure of a model as plain numbers.

mod attention;
mod router;

pub use attention::{
    AttentionSpec, GroupedQuery, Latent, LongRope, Pairs, Projections, QkNorm, RotarySpec, Scaling,
    Yarn,
};
pub use router::{GroupScore, Groups, RouterRule, Scoring};

/// What a configuration says about a model's structure.
#[derive(Debug, Clone, PartialEq)]
pub struct Topology {
    /// Width of the residual stream, H.
    pub hidden: usize,
    /// Rows of the embedding, V.
    pub vocab: usize,
    /// Longest sequence the model was made for, in tokens.
    pub max_positions: usize,
    /// The norms before attention, the feed-forward part and the head.
    pub norm: NormSpec,
    /// Whether the head shares the embedding's weights.
    pub tied_head: bool,
    /// Whether the head has a bias.
    pub head_bias: bool,
    /// The attention of every block.
    pub attention: AttentionSpec,
    /// The feed-forward part of each block, in order.
    pub mlps: Vec<MlpSpec>,
    /// Multi-token-prediction blocks that are stored after these. The model
    /// answers without them, so they are neither run nor carried over.
    pub prediction_layers: usize,
}

/// Normalisation over the residual stream.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NormSpec {
    /// Which.
    pub kind: NormKind,
    /// ε under the root.
    pub eps: f64,
}

impl NormSpec {
    /// An RMS norm.
    pub fn rms(eps: f64) -> Self {
        Self {
            kind: NormKind::Rms,
            eps,
        }
    }
}

/// The two norms in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// x / √(mean x² + ε) · w.
    Rms,
    /// (x − mean x) / √(var x + ε) · w + b.
    Layer,
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
    /// Routed experts, E.
    pub experts: usize,
    /// Width between an expert's projections, I.
    pub intermediate: usize,
    /// How tokens choose experts.
    pub router: RouterRule,
    /// What every token passes through beside its experts.
    pub shared: Option<SharedExperts>,
}

/// Experts that every token passes through, as one gated MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedExperts {
    /// Width between the projections of all of them together.
    pub intermediate: usize,
    /// Whether their output is multiplied by σ(w·x) (Qwen2-MoE).
    pub gated: bool,
}

impl Topology {
    /// Number of blocks.
    pub fn layers(&self) -> usize {
        self.mlps.len()
    }

    /// Whether `layer` is one of the multi-token-prediction blocks.
    pub fn predicts(&self, layer: usize) -> bool {
        (self.layers()..self.layers() + self.prediction_layers).contains(&layer)
    }

    /// The router and experts of `layer`, or `None` if it is dense.
    pub fn moe(&self, layer: usize) -> Option<&MoeSpec> {
        match self.mlps.get(layer) {
            Some(MlpSpec::Moe(moe)) => Some(moe),
            _ => None,
        }
    }

    /// The routers and experts of all layers that have them, in order.
    pub fn moes(&self) -> impl Iterator<Item = &MoeSpec> {
        (0..self.layers()).filter_map(|layer| self.moe(layer))
    }

    /// Number of layers without a router.
    pub fn dense_layers(&self) -> usize {
        self.layers() - self.moes().count()
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
