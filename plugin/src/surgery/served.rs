//! Whether the engine takes a checkpoint: what its family says, and what its
//! tensors add.

use router_stats::checkpoint::Checkpoint;
use router_stats::family::{Family, Serving, Topology};

use super::fp8;

/// Why the engine does not take a checkpoint; `None` if it does.
pub fn refusal(
    checkpoint: &Checkpoint,
    family: &dyn Family,
    topology: &Topology,
    on_cpu: bool,
) -> Option<&'static str> {
    if let Serving::No(reason) = family.serving(topology) {
        return Some(reason);
    }
    if let Some(vision) = family.vision() {
        if !checkpoint.names().any(|name| name.starts_with(vision)) {
            return Some("mistral.rs 0.8.1 needs its vision tower, which is not there");
        }
    }
    fp8::refusal(checkpoint, family, topology, on_cpu)
}
