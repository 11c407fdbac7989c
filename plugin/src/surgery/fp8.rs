//! What the engine cannot be given in fp8.
//!
//! fp8 weights are kept as they are, since rows and columns of a block share a
//! scale. Where the engine needs them in another order or with zeros, it does
//! not take the model.

use router_stats::checkpoint::Checkpoint;
use router_stats::family::{Family, Topology};
use safetensors::Dtype;

use super::{pairs, values};

/// Why the engine cannot run the model, because of its fp8 weights.
pub(super) fn refusal(
    checkpoint: &Checkpoint,
    family: &dyn Family,
    topology: &Topology,
    on_cpu: bool,
) -> Option<&'static str> {
    if pairs::fp8(checkpoint, family, topology) {
        return Some(
            "mistral.rs 0.8.1 pairs other rotary dimensions, and fp8 rows keep their order",
        );
    }
    (on_cpu && values::narrow_fp8(checkpoint, family, topology))
        .then_some("mistral.rs 0.8.1 needs a GPU for fp8 weights and values narrower than queries")
}

/// Whether any of these matrices of the attention is fp8, in any layer.
pub(super) fn in_attention(
    checkpoint: &Checkpoint,
    family: &dyn Family,
    topology: &Topology,
    matrices: &[&str],
) -> bool {
    let names = family.names();
    let is_fp8 = |layer, matrix: &str| {
        let name = names.in_block(layer, &format!("{}{matrix}.weight", names.attention));
        let tensor = checkpoint.tensor(&name);
        tensor.is_ok_and(|tensor| tensor.element == Dtype::F8_E4M3.into())
    };
    (0..topology.layers()).any(|layer| matrices.iter().any(|matrix| is_fp8(layer, matrix)))
}
