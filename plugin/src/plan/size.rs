//! What a model weighs before and after, from its tensor list alone.

use router_stats::checkpoint::{Checkpoint, TensorView};
use router_stats::family::{Family, Keep, Part, Role, Topology, SCALE_SUFFIX};
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// Size of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Weights; those that head and embedding share, once.
    pub parameters: u64,
    /// Weights that one token meets: all but the experts, the whole embedding
    /// included, and the top-k experts of every layer.
    pub active_parameters: u64,
    /// Bytes of all tensors in the dtypes of the checkpoint, without headers.
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
    /// [`Shape`](router_stats::Error::Shape) if a router or stacked tensor does
    /// not have one row per expert.
    pub fn of(
        checkpoint: &Checkpoint,
        family: &dyn Family,
        topology: &Topology,
        keep: &Keep,
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
            let whole = Amount::of(&tensor);
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

/// Bytes of one expert of each layer, its router row left out: `[L]`, 0 for
/// dense layers.
pub(super) fn expert_bytes(
    checkpoint: &Checkpoint,
    family: &dyn Family,
    topology: &Topology,
) -> Vec<u64> {
    let mut bytes = vec![0; topology.layers()];
    for tensor in checkpoint.tensors() {
        let Role::Block { layer, part } = family.names().role(tensor.name) else {
            continue;
        };
        let (Some(bytes), false) = (
            bytes.get_mut(layer),
            matches!(part, Part::Shared | Part::Router),
        ) else {
            continue;
        };
        *bytes += tensor.data.len() as u64;
    }
    for (bytes, experts) in bytes.iter_mut().zip(topology.experts()) {
        *bytes /= experts.max(1) as u64;
    }
    bytes
}

/// Size of a tensor or of some of its rows.
#[derive(Clone, Copy)]
struct Amount {
    parameters: u64,
    bytes: u64,
}

impl Amount {
    /// Scales of fp8 weights have bytes but are no parameters.
    fn of(tensor: &TensorView<'_>) -> Self {
        let scales = tensor.name.ends_with(SCALE_SUFFIX);
        Self {
            parameters: if scales { 0 } else { tensor.elements() as u64 },
            bytes: tensor.data.len() as u64,
        }
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
mod tests {
    use super::*;
    use crate::plan::fixture::{self, Fixture};

    fn size(fixture: &Fixture, keep: &Keep) -> Size {
        Size::of(&fixture.checkpoint, fixture.family, &fixture.topology, keep).unwrap()
    }

    #[test]
    fn everything_is_the_whole_checkpoint() {
        let fixture = fixture::model(fixture::Stored::PerExpert);
        let all = size(&fixture, &Keep::all(&fixture.topology));
        assert_eq!(all.bytes, fixture.checkpoint.bytes());
        assert_eq!(all.bytes, 2 * all.parameters);
        assert_eq!(all.experts_per_layer, [6, 0, 6, 6]);
        let expert = 3 * 8 * 4;
        assert_eq!(all.parameters - all.active_parameters, 3 * (6 - 2) * expert);
    }

    #[test]
    fn removed_experts_take_their_weights_and_router_rows_along() {
        let fixture = fixture::model(fixture::Stored::PerExpert);
        let all = Keep::all(&fixture.topology);
        let mut keep = all.clone();
        for layer in [0, 2, 3] {
            keep.experts[layer] = vec![1, 2, 5];
        }
        let (before, after) = (size(&fixture, &all), size(&fixture, &keep));
        let (expert, row) = (3 * 8 * 4, 8);
        assert_eq!(before.parameters - after.parameters, 3 * 3 * (expert + row));
        assert_eq!(
            before.active_parameters - after.active_parameters,
            3 * 3 * row
        );
        assert_eq!(after.bytes, 2 * after.parameters);
        assert_eq!(after.experts_per_layer, [3, 0, 3, 3]);
    }

    #[test]
    fn stacked_experts_weigh_the_same() {
        let per_expert = fixture::model(fixture::Stored::PerExpert);
        let stacked = fixture::model(fixture::Stored::Stacked);
        let mut keep = Keep::all(&per_expert.topology);
        assert_eq!(size(&per_expert, &keep), size(&stacked, &keep));
        keep.layers = vec![0, 1, 3];
        keep.experts = vec![vec![0, 5], vec![], vec![], vec![2, 3]];
        assert_eq!(size(&per_expert, &keep), size(&stacked, &keep));
    }

    #[test]
    fn an_expert_weighs_its_three_matrices() {
        for stored in [fixture::Stored::PerExpert, fixture::Stored::Stacked] {
            let fixture = fixture::model(stored);
            let bytes = expert_bytes(&fixture.checkpoint, fixture.family, &fixture.topology);
            let expert = 2 * 3 * 8 * 4;
            assert_eq!(bytes, [expert, 0, expert, expert]);
        }
    }

    #[test]
    fn a_dropped_layer_is_gone() {
        let fixture = fixture::model(fixture::Stored::PerExpert);
        let mut keep = Keep::all(&fixture.topology);
        let before = size(&fixture, &keep);
        keep.layers = vec![0, 2, 3];
        let after = size(&fixture, &keep);
        assert_eq!(
            before.parameters - after.parameters,
            fixture::ATTENTION + fixture::DENSE
        );
        assert_eq!(after.experts_per_layer, [6, 6, 6]);
        assert_eq!(after.layers, 3);
    }

    #[test]
    fn a_tied_head_that_is_stored_has_bytes_but_no_parameters() {
        let tied = fixture::tied();
        let untied = fixture::model(fixture::Stored::PerExpert);
        let keep = Keep::all(&tied.topology);
        let (tied, untied) = (size(&tied, &keep), size(&untied, &keep));
        assert_eq!(tied.bytes, untied.bytes);
        assert_eq!(untied.parameters - tied.parameters, 16 * 8);
    }
}
