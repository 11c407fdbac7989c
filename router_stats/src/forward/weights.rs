//! Weights of a block as f32 tensors on the model's device.

use candle_core::{Device, Tensor};

use super::rounding::{Kind, Rounding};
use crate::checkpoint::Checkpoint;
use crate::{Error, Result};

/// Where weights are read from, and what becomes of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) checkpoint: &'a Checkpoint,
    pub(super) device: &'a Device,
    /// What becomes of weights.
    pub(super) rounding: Option<Rounding>,
    /// Width of the residual stream.
    pub(super) hidden: usize,
}

impl Source<'_> {
    /// Reads one tensor as f32, fp8 matrices by their block scales, checks its
    /// shape and that it is finite, and lets go of the mapped pages.
    ///
    /// # Errors
    /// `MissingTensor`, `Shape`, `Dtype`, `Quantization`, `Scale` or `NonFinite`.
    pub(super) fn tensor(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        self.read(name, shape, Kind::Other)
    }

    /// Reads the head [V, H].
    ///
    /// # Errors
    /// Those of [`tensor`](Self::tensor), and of [`round`](Self::round).
    pub(super) fn head(&self, name: &str, shape: [usize; 2]) -> Result<Tensor> {
        self.read(name, &shape, Kind::Head)
    }

    /// Reads a matrix [out, in] that quantisation rounds.
    ///
    /// # Errors
    /// Those of [`tensor`](Self::tensor), and of [`round`](Self::round).
    pub(super) fn projection(&self, name: &str, shape: [usize; 2]) -> Result<Tensor> {
        self.read(name, &shape, Kind::Projection)
    }

    /// Reads `{module}.weight` [out, in], which quantisation rounds, and, if
    /// asked, `{module}.bias` [out].
    ///
    /// # Errors
    /// Those of [`projection`](Self::projection).
    pub(super) fn linear(&self, module: &str, shape: [usize; 2], bias: bool) -> Result<Linear> {
        let weight = self.projection(&format!("{module}.weight"), shape)?;
        let bias = bias
            .then(|| self.tensor(&format!("{module}.bias"), &shape[..1]))
            .transpose()?;
        Ok(Linear::new(weight, bias))
    }

    /// Rounds the values of the weight called `name`, if weights are rounded.
    ///
    /// # Errors
    /// `Unquantizable` if they are too large for the type's scales.
    pub(super) fn round(
        &self,
        values: &mut [f32],
        shape: &[usize],
        kind: Kind,
        name: impl FnOnce() -> String,
    ) -> Result<()> {
        let Some(rounding) = self.rounding else {
            return Ok(());
        };
        let width = shape.last().copied().unwrap_or(1);
        let rounded = rounding.round(values, width, self.hidden, kind);
        rounded.map_err(|(index, value)| match rounding.quantization() {
            Some(quantization) => Error::Unquantizable {
                path: self.checkpoint.dir().to_path_buf(),
                tensor: name(),
                quantization,
                expected: "weights that f16 scales hold".to_owned(),
                found: format!("{value} at element {index} once rounded"),
            },
            None => Error::Structure {
                what: name(),
                expected: "finite weights".to_owned(),
                found: format!("{value} at element {index} once rounded"),
            },
        })
    }

    fn read(&self, name: &str, shape: &[usize], kind: Kind) -> Result<Tensor> {
        let weight = self.checkpoint.weight(name, shape)?;
        let mut values = vec![0f32; shape.iter().product()];
        weight.read_f32(&mut values)?;
        weight.release();
        self.round(&mut values, shape, kind, || name.to_owned())?;
        Ok(Tensor::from_vec(values, shape, self.device)?)
    }
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

    /// [n, in] → [n, out]
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let y = x.matmul(&self.weight.t()?)?;
        Ok(match &self.bias {
            Some(bias) => y.broadcast_add(bias)?,
            None => y,
        })
    }
}
