//! One transformer block.

use candle_core::Tensor;

use super::attention::Attention;
use super::batch::Batch;
use super::event::{BlockPart, Event};
use super::moe::Mlp;
use super::norm::Norm;
use super::rows;
use super::weights::Source;
use crate::family::{Names, Topology};
use crate::Result;

/// The weights of one block: its attention and router in memory, its experts
/// still in the checkpoint.
pub struct Block<'a> {
    attention_norm: Norm,
    attention: Attention,
    mlp_norm: Norm,
    mlp: Mlp<'a>,
}

impl<'a> Block<'a> {
    pub(super) fn load(
        source: Source<'a>,
        names: &'static Names,
        topology: &Topology,
        layer: usize,
    ) -> Result<Self> {
        let norm = |name| Norm::load(source, &names.in_block(layer, name), topology);
        Ok(Self {
            attention_norm: norm(names.attention_norm)?,
            attention: Attention::load(source, names, topology, layer)?,
            mlp_norm: norm(names.mlp_norm)?,
            mlp: Mlp::load(source, names, topology, layer)?,
        })
    }

    /// Passes the residual stream [N, H] of a batch through the block.
    ///
    /// `keep` masks experts: those marked false get a router logit of −∞.
    /// `emit` sees every [`Event`] in order.
    ///
    /// # Errors
    /// Names an expert tensor that is malformed, or passes on what `emit`
    /// returns.
    pub fn forward(
        &self,
        input: &Tensor,
        batch: &Batch,
        keep: Option<&[bool]>,
        emit: &mut dyn FnMut(&Event<'_>) -> Result<()>,
    ) -> Result<Tensor> {
        let normed = self.attention_norm.forward(input)?;
        let middle = rows::add(self.attention.forward(&normed, batch)?, input)?;
        let normed = self.mlp_norm.forward(&middle)?;
        let output = match &self.mlp {
            Mlp::Dense(mlp) => rows::add(mlp.forward(&normed)?, &middle)?,
            Mlp::Moe(moe) => moe.forward(&normed, &middle, keep, emit)?,
        };
        for (part, input, output) in [
            (BlockPart::Block, input, &output),
            (BlockPart::Attention, input, &middle),
            (BlockPart::Mlp, &middle, &output),
        ] {
            emit(&Event::Residual {
                part,
                input,
                output,
            })?;
        }
        Ok(output)
    }

    /// Checks that the weights of `experts` are finite. The forward pass
    /// checks those it runs; this is for the ones no token was routed to.
    ///
    /// # Errors
    /// `NonFinite` names the tensor.
    pub fn check_experts(&self, experts: impl Iterator<Item = usize>) -> Result<()> {
        match &self.mlp {
            Mlp::Dense(_) => Ok(()),
            Mlp::Moe(moe) => moe.check(experts),
        }
    }
}
