//! The attention of a model as plain numbers.

/// Causal softmax attention with rotary positions.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionSpec {
    /// How queries, keys and values come from the residual stream.
    pub projections: Projections,
    /// Positions.
    pub rotary: RotarySpec,
    /// What q·k is multiplied by before the softmax.
    pub scale: f64,
    /// Per block: the number of most recent tokens each token attends to,
    /// itself included; `None` for all of them.
    pub windows: Vec<Option<usize>>,
}

/// How queries, keys and values come from the residual stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Projections {
    /// Each by one matrix; several query heads share a key-value head.
    Grouped(GroupedQuery),
    /// Through low-rank latents.
    Latent(Latent),
}

/// Grouped-query attention (arXiv 2305.13245).
#[derive(Debug, Clone, PartialEq)]
pub struct GroupedQuery {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// How queries and keys are RMS-normalised, if they are.
    pub qk_norm: Option<QkNorm>,
    /// Largest magnitude that queries, keys and values are clipped to.
    pub clip: Option<f64>,
    /// Whether q, k and v projections have a bias.
    pub qkv_bias: bool,
    /// Whether the output projection has a bias.
    pub o_bias: bool,
}

/// What the norm of queries and keys is taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// Each head.
    Head,
    /// All heads together (OLMoE).
    Whole,
}

/// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1).
///
/// The part of queries and keys that carries no position, `nope_dim`, is
/// followed by [`RotarySpec::dim`] dimensions that do; the latter are the same
/// for the keys of all heads.
#[derive(Debug, Clone, PartialEq)]
pub struct Latent {
    /// Heads.
    pub heads: usize,
    /// Width of the latent that queries come from; `None` if they come from
    /// the residual stream.
    pub q_rank: Option<usize>,
    /// Width of the latent that keys and values come from.
    pub kv_rank: usize,
    /// Width of the part of a head without position.
    pub nope_dim: usize,
    /// Width of a value head.
    pub value_dim: usize,
    /// ε of the norms over the latents.
    pub eps: f64,
    /// Whether the projections from and to the residual stream have a bias.
    pub bias: bool,
}

/// Rotary positions (RoFormer, arXiv 2104.09864).
#[derive(Debug, Clone, PartialEq)]
pub struct RotarySpec {
    /// Dimensions of a head that turn, an even number; the others keep still.
    pub dim: usize,
    /// Base of the frequencies.
    pub theta: f64,
    /// Which dimensions turn together.
    pub pairs: Pairs,
    /// How frequencies are changed for long contexts.
    pub scaling: Scaling,
}

/// Which dimensions of a head turn together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairs {
    /// i and i + dim/2.
    Halves,
    /// 2i and 2i + 1.
    Adjacent,
}

/// How rotary frequencies are changed for long contexts.
#[derive(Debug, Clone, PartialEq)]
pub enum Scaling {
    /// Not at all.
    None,
    /// YaRN.
    Yarn(Yarn),
    /// LongRoPE.
    Long(LongRope),
}

/// YaRN (arXiv 2309.00071): low frequencies are divided by `factor`, high ones
/// stay, those between are blended.
#[derive(Debug, Clone, PartialEq)]
pub struct Yarn {
    /// By how much the context was extended.
    pub factor: f64,
    /// Context before that, in tokens.
    pub original: usize,
    /// Turns within `original` above which a frequency stays.
    pub beta_fast: f64,
    /// Turns within `original` below which it is divided by `factor`.
    pub beta_slow: f64,
    /// What cosines and sines are multiplied by.
    pub magnitude: f64,
}

/// LongRoPE (arXiv 2402.13753): every frequency has a divisor of its own, and
/// sequences longer than `original` have others.
#[derive(Debug, Clone, PartialEq)]
pub struct LongRope {
    /// Longest sequence, in tokens, that `short` is for.
    pub original: usize,
    /// Divisors of the frequencies of short sequences [dim / 2].
    pub short: Vec<f64>,
    /// Divisors for longer ones [dim / 2].
    pub long: Vec<f64>,
    /// What cosines and sines of short sequences are multiplied by.
    pub short_magnitude: f64,
    /// The same for longer ones.
    pub long_magnitude: f64,
}

impl RotarySpec {
    /// Unscaled positions over `dim` dimensions, paired in halves.
    pub fn plain(dim: usize, theta: f64) -> Self {
        Self {
            dim,
            theta,
            pairs: Pairs::Halves,
            scaling: Scaling::None,
        }
    }
}

impl GroupedQuery {
    /// Without norms, clipping or biases.
    pub fn plain(heads: usize, kv_heads: usize, head_dim: usize) -> Self {
        Self {
            heads,
            kv_heads,
            head_dim,
            qk_norm: None,
            clip: None,
            qkv_bias: false,
            o_bias: false,
        }
    }
}

impl AttentionSpec {
    /// Grouped-query attention with a scale of 1/√head_dim.
    pub fn grouped(query: GroupedQuery, rotary: RotarySpec, windows: Vec<Option<usize>>) -> Self {
        Self {
            scale: 1.0 / (query.head_dim as f64).sqrt(),
            projections: Projections::Grouped(query),
            rotary,
            windows,
        }
    }
}
