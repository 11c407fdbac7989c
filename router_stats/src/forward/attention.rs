//! Attention: how queries, keys and values come from the residual stream and
//! how the result goes back to it. What happens between is [`super::causal`]'s.

mod grouped;
mod latent;

use candle_core::Tensor;

use super::batch::Batch;
use super::weights::{Linear, Source};
use crate::family::{Names, Projections, Topology};
use crate::Result;

/// The attention of one block.
#[derive(Debug)]
pub(super) enum Attention {
    /// Grouped-query attention.
    Grouped(grouped::Grouped),
    /// Multi-head latent attention.
    Latent(latent::Latent),
}

impl Attention {
    /// # Errors
    /// Names the tensor that is missing or malformed.
    pub(super) fn load(
        source: Source<'_>,
        names: &Names,
        topology: &Topology,
        layer: usize,
    ) -> Result<Self> {
        let module = Module {
            source,
            prefix: names.in_block(layer, names.attention),
        };
        Ok(match &topology.attention.projections {
            Projections::Grouped(spec) => {
                Self::Grouped(grouped::Grouped::load(&module, spec, topology, layer)?)
            }
            Projections::Latent(spec) => {
                Self::Latent(latent::Latent::load(&module, spec, topology, layer)?)
            }
        })
    }

    /// [N, H] → [N, H]
    ///
    /// # Errors
    /// Only if the device has no room.
    pub(super) fn forward(&self, x: &Tensor, batch: &Batch) -> Result<Tensor> {
        match self {
            Self::Grouped(grouped) => grouped.forward(x, batch),
            Self::Latent(latent) => latent.forward(x, batch),
        }
    }
}

/// The attention of one block in a checkpoint.
struct Module<'a> {
    source: Source<'a>,
    /// What its names begin with.
    prefix: String,
}

impl Module<'_> {
    /// The projection called `name`, [out, in].
    fn linear(&self, name: &str, shape: [usize; 2], bias: bool) -> Result<Linear> {
        let name = format!("{}{name}", self.prefix);
        self.source.linear(&name, shape, bias)
    }

    /// The weight of the norm called `name`, [width].
    fn norm(&self, name: &str, width: usize) -> Result<Tensor> {
        let name = format!("{}{name}.weight", self.prefix);
        self.source.tensor(&name, &[width])
    }
}

#[cfg(test)]
mod tests;
