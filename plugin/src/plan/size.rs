//! What experts weigh.

use router_stats::checkpoint::Checkpoint;
use router_stats::family::{Family, Part, Role, Topology};
pub use router_stats::size::Size;

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
        *bytes += tensor.bytes() as u64;
    }
    for (bytes, experts) in bytes.iter_mut().zip(topology.experts()) {
        *bytes /= experts.max(1) as u64;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture;

    #[test]
    fn an_expert_weighs_its_three_matrices() {
        for stored in [fixture::Stored::PerExpert, fixture::Stored::Stacked] {
            let fixture = fixture::model(stored);
            let bytes = expert_bytes(&fixture.checkpoint, fixture.family, &fixture.topology);
            let expert = 2 * 3 * 8 * 4;
            assert_eq!(bytes, [expert, 0, expert, expert]);
        }
    }
}
