//! The bias that routers add for the choice of experts.
//!
//! The engine gives the experts of groups that were not chosen a score of 0
//! where the model gives them −∞, so that they win over chosen ones whose score
//! is negative. Raising the whole bias makes every score positive and changes no
//! gate value, nor, up to rounding, any order.

use router_stats::checkpoint::TensorView;
use router_stats::family::MoeSpec;

use super::Cut;
use crate::{Error, Result};

/// Names of the biases that [`raise`] looks at: all values that are read before
/// anything is written.
pub(super) fn looked_at(cut: &Cut<'_>) -> Vec<String> {
    let names = cut.family.names();
    let kept = cut.keep.layers.iter().copied();
    let layers = kept.filter(|&layer| {
        let moe = cut.keep.moe(cut.topology, layer);
        moe.is_some_and(|moe| moe.router.correction_bias && moe.router.groups.is_some())
    });
    match names.router_bias {
        Some(bias) if cut.layout.is_for_engine() => {
            layers.map(|layer| names.in_block(layer, bias)).collect()
        }
        _ => Vec::new(),
    }
}

/// How much the bias must be raised for the engine, if `router` is the name of
/// a bias with a negative element and experts come from groups.
///
/// # Errors
/// If it cannot be read, is not finite, or is so large that raising overflows.
pub(super) fn raise(
    cut: &Cut<'_>,
    moe: &MoeSpec,
    router: &str,
    tensor: &TensorView<'_>,
) -> Result<Option<f32>> {
    let is_bias = cut.family.names().router_bias == Some(router);
    if !cut.layout.is_for_engine() || !is_bias || moe.router.groups.is_none() {
        return Ok(None);
    }
    let mut bias = vec![0f32; moe.experts];
    tensor.read_f32(&mut bias)?;
    let (least, most) = bias.into_iter().fold((0f32, 0f32), |(least, most), it| {
        (least.min(it), most.max(it))
    });
    let by = 1.0 - least;
    if least < 0.0 && !(most + by).is_finite() {
        return Err(Error::Unclassified {
            path: tensor.file().to_path_buf(),
            tensor: tensor.name.to_owned(),
            expected: "a bias of ordinary size".to_owned(),
        });
    }
    Ok((least < 0.0).then_some(by))
}
