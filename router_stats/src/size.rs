//! What a model weighs, whole or pruned, as stored or quantised, from its tensor
//! list alone.

use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, TensorView};
use crate::family::{
    Family, Keep, Names, Part, Projection, Role, Sublayer, Topology, SCALE_SUFFIX,
};
use crate::forward::Quantization;
use crate::Result;

/// Size of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Weights; those that head and embedding share, once.
    pub parameters: u64,
    /// Weights that one token meets: all but the experts, the whole embedding
    /// included, and of every layer as many experts as a token takes.
    pub active_parameters: u64,
    /// Bytes of all tensors, without headers: in the dtypes of the checkpoint,
    /// or matrices in blocks of a [`Quantization`].
    pub bytes: u64,
    /// Layers.
    pub layers: usize,
    /// Experts of each of these layers; 0 for dense ones and for those that
    /// lose them as a whole.
    pub experts_per_layer: Vec<usize>,
}

impl Size {
    /// Size of what `keep` leaves of a checkpoint, exactly: no tensor changes
    /// its dtype. Where a layer loses its feed-forward part and the family can
    /// be written so, its norm and the [stand-in](Family::stand_in) count.
    /// `keep` has passed [`Keep::check`].
    ///
    /// # Errors
    /// [`Shape`](crate::Error::Shape) if a router or stacked tensor does not
    /// have one row per expert.
    pub fn of(
        checkpoint: &Checkpoint,
        family: &dyn Family,
        topology: &Topology,
        keep: &Keep,
    ) -> Result<Self> {
        Self::quantized(checkpoint, family, topology, keep, None)
    }

    /// [`Size::of`] with every [projection](Names::is_projection) stored as
    /// `quantization`, without the block scales of fp8 ones, and all else in
    /// the dtypes of the checkpoint. Nothing is asked of the shapes: a matrix
    /// whose last block is not full counts it whole.
    ///
    /// # Errors
    /// Those of [`Size::of`].
    pub fn quantized(
        checkpoint: &Checkpoint,
        family: &dyn Family,
        topology: &Topology,
        keep: &Keep,
        quantization: Option<Quantization>,
    ) -> Result<Self> {
        let names = family.names();
        // Of every original layer: which experts stay, or `None` if it goes.
        let mut masks: Vec<Option<Vec<bool>>> = vec![None; topology.layers()];
        for &layer in &keep.layers {
            masks[layer] = Some(keep.mask(topology, layer));
        }
        let stand_in = stand_in(family, topology, keep);
        let mut shared = 0;
        let mut experts = vec![0; topology.layers()];
        let mut bytes = 0;
        for tensor in checkpoint.tensors() {
            let whole = Amount::of(&tensor, names, quantization);
            match names.role(tensor.name) {
                Role::Global => {
                    bytes += whole.bytes;
                    if !(topology.tied_head
                        && tensor.name == names.head
                        && checkpoint.contains(names.embedding))
                    {
                        shared += whole.parameters;
                    }
                }
                Role::Block { layer, part } => {
                    let Some(mask) = masks.get(layer).and_then(Option::as_deref) else {
                        continue;
                    };
                    if goes(names, keep, layer, tensor.name, stand_in) {
                        continue;
                    }
                    let left = match part {
                        Part::Shared => whole,
                        Part::Expert { expert, .. } | Part::ExpertScale { expert, .. } => {
                            if mask.get(expert) != Some(&true) {
                                continue;
                            }
                            whole
                        }
                        Part::Router | Part::StackedGateUp | Part::StackedDown => {
                            whole.rows(tensor, mask)?
                        }
                    };
                    bytes += left.bytes;
                    match part {
                        Part::Shared | Part::Router => shared += left.parameters,
                        Part::Expert { .. }
                        | Part::ExpertScale { .. }
                        | Part::StackedGateUp
                        | Part::StackedDown => {
                            experts[layer] += left.parameters;
                        }
                    }
                }
            }
        }
        for &layer in keep.layers.iter().filter(|&&layer| keep.skip(layer).mlp) {
            let Some(width) = stand_in else { continue };
            let norm = checkpoint.tensor(&names.in_block(layer, names.mlp_norm))?;
            for _ in Projection::ALL {
                let zeros = Amount::zeros(&norm, width * topology.hidden, quantization)?;
                bytes += zeros.bytes;
                shared += zeros.parameters;
            }
        }
        let active: u64 = keep
            .layers
            .iter()
            .filter_map(|&layer| {
                let each = experts[layer] / keep.experts[layer].len().max(1) as u64;
                let model = keep.moe(topology, layer)?.router.top_k;
                Some(each * keep.top_k.unwrap_or(model) as u64)
            })
            .sum();
        Ok(Self {
            parameters: shared + experts.iter().sum::<u64>(),
            active_parameters: shared + active,
            bytes,
            layers: keep.layers.len(),
            experts_per_layer: keep
                .layers
                .iter()
                .map(|&layer| match keep.skip(layer).mlp {
                    true => 0,
                    false => keep.experts[layer].len(),
                })
                .collect(),
        })
    }
}

/// How wide the zeros are in the place of feed-forward parts that go, if any
/// does and the family can be written so.
fn stand_in(family: &dyn Family, topology: &Topology, keep: &Keep) -> Option<usize> {
    let any = keep.layers.iter().any(|&layer| keep.skip(layer).mlp);
    any.then(|| family.stand_in(topology, keep).ok()).flatten()
}

/// Whether a tensor of `layer`, which stays, goes with its sublayer. The norm
/// before a stand-in stays.
fn goes(names: &Names, keep: &Keep, layer: usize, name: &str, stand_in: Option<usize>) -> bool {
    match names.sublayer(name) {
        Some(Sublayer::Attention) => keep.skip(layer).attention,
        Some(Sublayer::Mlp) => {
            keep.skip(layer).mlp && !(stand_in.is_some() && names.is_mlp_norm(name))
        }
        None => false,
    }
}

/// Size of a tensor or of some of its rows.
#[derive(Clone, Copy)]
struct Amount {
    parameters: u64,
    bytes: u64,
}

impl Amount {
    /// Scales of fp8 weights have bytes but are no parameters; quantised
    /// weights have none of these scales.
    fn of(tensor: &TensorView<'_>, names: &Names, quantization: Option<Quantization>) -> Self {
        let scaled = tensor.name.strip_suffix(SCALE_SUFFIX);
        let stored = tensor.bytes() as u64;
        let parameters = if scaled.is_some() {
            0
        } else {
            tensor.elements() as u64
        };
        let projection = names.is_projection(scaled.unwrap_or(tensor.name));
        let bytes = match quantization.filter(|_| projection) {
            None => stored,
            Some(quantization) => quantization.bytes(parameters),
        };
        Self { parameters, bytes }
    }

    /// A matrix of zeros in the dtype of `like`.
    fn zeros(
        like: &TensorView<'_>,
        elements: usize,
        quantization: Option<Quantization>,
    ) -> Result<Self> {
        let parameters = elements as u64;
        let bytes = match quantization {
            None => parameters * (like.plain()?.bitsize() / 8) as u64,
            Some(quantization) => quantization.bytes(parameters),
        };
        Ok(Self { parameters, bytes })
    }

    /// The part of `tensor` whose rows `mask` keeps, one row per expert.
    fn rows(self, tensor: TensorView<'_>, mask: &[bool]) -> Result<Self> {
        let mut expected = tensor.shape.to_vec();
        match expected.first_mut() {
            Some(rows) => *rows = mask.len(),
            None => expected.push(mask.len()),
        }
        tensor.expect_shape(&expected)?;
        let all = mask.len().max(1) as u64;
        let kept = mask.iter().filter(|&&stays| stays).count() as u64;
        Ok(Self {
            parameters: self.parameters / all * kept,
            bytes: self.bytes / all * kept,
        })
    }
}

#[cfg(test)]
mod tests;
