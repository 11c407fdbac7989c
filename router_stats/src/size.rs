//! What a model weighs, whole or pruned, as stored or quantised, from its tensor
//! list alone.

use serde::{Deserialize, Serialize};

use crate::checkpoint::{Checkpoint, TensorView};
use crate::family::{Family, Keep, Names, Part, Role, Topology, SCALE_SUFFIX};
use crate::forward::Quantization;
use crate::Result;

/// Size of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Weights; those that head and embedding share, once.
    pub parameters: u64,
    /// Weights that one token meets: all but the experts, the whole embedding
    /// included, and the top-k experts of every layer.
    pub active_parameters: u64,
    /// Bytes of all tensors, without headers: in the dtypes of the checkpoint,
    /// or matrices in blocks of a [`Quantization`].
    pub bytes: u64,
    /// Layers.
    pub layers: usize,
    /// Experts of each of these layers; 0 for dense ones.
    pub experts_per_layer: Vec<usize>,
}

impl Size {
    /// Size of what `keep` leaves of a checkpoint, exactly: no tensor changes
    /// its dtype. `keep` has passed [`Keep::check`].
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
        let active: u64 = keep
            .layers
            .iter()
            .filter_map(|&layer| {
                let each = experts[layer] / keep.experts[layer].len().max(1) as u64;
                Some(each * topology.moe(layer)?.router.top_k as u64)
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
                .map(|&layer| keep.experts[layer].len())
                .collect(),
        })
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
        let stored = tensor.data.len() as u64;
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
