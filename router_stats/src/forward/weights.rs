//! Weights of a block as f32 tensors on the model's device.

use candle_core::{Device, Tensor};

use crate::checkpoint::Checkpoint;
use crate::Result;

/// Reads one tensor as f32, fp8 matrices by their block scales, checks its
/// shape and that it is finite, and lets go of the mapped pages.
///
/// # Errors
/// `MissingTensor`, `Shape`, `Dtype`, `Quantization`, `Scale` or `NonFinite`.
pub(super) fn load(
    checkpoint: &Checkpoint,
    name: &str,
    shape: &[usize],
    device: &Device,
) -> Result<Tensor> {
    let weight = checkpoint.weight(name, shape)?;
    let mut values = vec![0f32; shape.iter().product()];
    weight.read_f32(&mut values)?;
    weight.release();
    Ok(Tensor::from_vec(values, shape, device)?)
}

/// y = x Wᵀ + b.
#[derive(Debug)]
pub(super) struct Linear {
    /// [out, in]
    weight: Tensor,
    /// [out]
    bias: Option<Tensor>,
}

impl Linear {
    pub(super) fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias }
    }

    /// Reads `{module}.weight` [out, in] and, if asked, `{module}.bias` [out].
    pub(super) fn load(
        checkpoint: &Checkpoint,
        module: &str,
        shape: [usize; 2],
        bias: bool,
        device: &Device,
    ) -> Result<Self> {
        let weight = load(checkpoint, &format!("{module}.weight"), &shape, device)?;
        let bias = bias
            .then(|| load(checkpoint, &format!("{module}.bias"), &shape[..1], device))
            .transpose()?;
        Ok(Self::new(weight, bias))
    }

    /// [n, in] → [n, out]
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = x.matmul(&self.weight.t()?)?;
        Ok(match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        })
    }
}
