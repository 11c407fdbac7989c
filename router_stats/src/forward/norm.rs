//! Norms over the residual stream.

use candle_core::{Tensor, D};

use super::rows;
use super::weights::Source;
use crate::family::{Names, NormKind, Topology};
use crate::Result;

/// One norm over the residual stream; see [`NormKind`] for the formulas.
pub(super) struct Norm {
    /// [H]
    weight: Tensor,
    /// [H], of norms that subtract the mean.
    bias: Option<Tensor>,
    eps: f32,
}

impl Norm {
    /// Reads the weight called `name`, and the bias that goes with it.
    ///
    /// # Errors
    /// Names the tensor that is missing or malformed.
    pub(super) fn load(source: Source<'_>, name: &str, topology: &Topology) -> Result<Self> {
        let load = |name: &str| source.tensor(name, &[topology.hidden]);
        Ok(Self {
            weight: load(name)?,
            bias: match topology.norm.kind {
                NormKind::Rms => None,
                NormKind::Layer => Some(load(&Names::bias_of(name))?),
            },
            eps: topology.norm.eps as f32,
        })
    }

    /// [N, H] → [N, H]
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match &self.bias {
            None => rows::rms_norm(x, &self.weight, self.eps),
            // The mean square of a centred row is its variance.
            Some(bias) => {
                let centred = x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?;
                let normed = rows::rms_norm(&centred, &self.weight, self.eps)?;
                Ok(normed.broadcast_add(bias)?)
            }
        }
    }
}
