//! One transformer block.

use candle_core::Tensor;

use super::attention::Attention;
use super::batch::Batch;
use super::event::{BlockPart, Event};
use super::moe::Mlp;
use super::norm::Norm;
use super::rows;
use super::weights::Source;
use crate::family::{Names, Skip, Topology};
use crate::Result;

/// The weights of one block, or of one of its sublayers: its attention and
/// router in memory, its experts still in the checkpoint.
pub struct Block<'a> {
    /// The norm before attention, and attention.
    attention: Option<(Norm, Attention)>,
    /// The norm before the feed-forward part, and that.
    mlp: Option<(Norm, Mlp<'a>)>,
}

impl<'a> Block<'a> {
    /// Loads what `skip` leaves of block `layer`.
    pub(super) fn load(
        source: Source<'a>,
        names: &'static Names,
        topology: &Topology,
        layer: usize,
        skip: Skip,
    ) -> Result<Self> {
        let norm = |name| Norm::load(source, &names.in_block(layer, name), topology);
        let attention = || {
            let norm = norm(names.attention_norm)?;
            Ok::<_, crate::Error>((norm, Attention::load(source, names, topology, layer)?))
        };
        let mlp = || {
            let norm = norm(names.mlp_norm)?;
            Ok::<_, crate::Error>((norm, Mlp::load(source, names, topology, layer)?))
        };
        Ok(Self {
            attention: (!skip.attention).then(attention).transpose()?,
            mlp: (!skip.mlp).then(mlp).transpose()?,
        })
    }

    /// Passes the residual stream [N, H] of a batch through the block.
    ///
    /// `keep` masks experts: those marked false get a router logit of −∞.
    /// `emit` sees every [`Event`] of the sublayers that run, in order.
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
        let middle = match &self.attention {
            Some((norm, attention)) => {
                rows::add(attention.forward(&norm.forward(input)?, batch)?, input)?
            }
            None => input.clone(),
        };
        let output = match &self.mlp {
            Some((norm, mlp)) => {
                let normed = norm.forward(&middle)?;
                match mlp {
                    Mlp::Dense(mlp) => rows::add(mlp.forward(&normed)?, &middle)?,
                    Mlp::Moe(moe) => moe.forward(&normed, &middle, keep, emit)?,
                }
            }
            None => middle.clone(),
        };
        for (part, input, output, ran) in [
            (BlockPart::Block, input, &output, true),
            (
                BlockPart::Attention,
                input,
                &middle,
                self.attention.is_some(),
            ),
            (BlockPart::Mlp, &middle, &output, self.mlp.is_some()),
        ] {
            if !ran {
                continue;
            }
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
            Some((_, Mlp::Moe(moe))) => moe.check(experts),
            Some((_, Mlp::Dense(_))) | None => Ok(()),
        }
    }
}
