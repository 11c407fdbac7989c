//! How a kernel is compared with its tensor twin.

use candle_core::Tensor;

/// The largest difference between two tensors of one shape.
pub(crate) fn worst(a: &Tensor, b: &Tensor) -> f32 {
    let difference = (a - b).unwrap().abs().unwrap();
    difference.max_all().unwrap().to_scalar().unwrap()
}
