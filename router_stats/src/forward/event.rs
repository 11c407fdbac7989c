//! What a block tells its observers while a batch passes through it.

use candle_core::Tensor;

use super::routing::Routes;

/// Something that happened while a batch passed through a block. Rows are the
/// tokens of the batch; every tensor is f32 on the model's device.
#[derive(Debug)]
pub enum Event<'a> {
    /// The router chose experts.
    Routing {
        /// Chosen experts, gate values and scores of every row.
        routes: &'a Routes,
    },
    /// An expert ran on the rows routed to it.
    Expert {
        /// Index of the expert.
        expert: usize,
        /// Rows of the batch, ascending: length n.
        rows: &'a [u32],
        /// Gate value applied to each: length n.
        gates: &'a [f32],
        /// Un-gated output f(x) [n, H].
        output: &'a Tensor,
    },
    /// The residual stream passed through a part of the block.
    Residual {
        /// Which part.
        part: BlockPart,
        /// Residual stream before it [N, H].
        input: &'a Tensor,
        /// Residual stream after it [N, H].
        output: &'a Tensor,
    },
}

/// A part of a block that adds to the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockPart {
    /// The whole block.
    Block = 0,
    /// The attention sublayer with its norm.
    Attention = 1,
    /// The dense or expert sublayer with its norm.
    Mlp = 2,
}

impl BlockPart {
    /// Number of parts.
    pub const COUNT: usize = 3;
}
