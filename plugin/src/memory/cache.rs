//! The key-value cache of the engine.
//!
//! mistral.rs 0.8.1 without paged attention (`kv_cache/single_cache.rs`) gives
//! each sequence a tensor of keys and one of values per layer, with room for a
//! multiple of [`GROWTH`] positions. When the set of sequences that run
//! together changes, or they outgrow their room, it makes a whole new cache of
//! the batch while the sequences still hold the old one (`NormalCacheManager`),
//! so that for a moment there are two.
//!
//! Latent attention is not cached as latents there: keys and values are
//! expanded first (`models/deepseek3.rs`), and values have the width of keys,
//! for which the engine's copy pads them. With paged attention, on a GPU, there
//! is one pool, and latent attention is cached as latents (`mla/`).

use router_stats::family::{Keep, Projections, Topology};

use crate::surgery::UqffDevice;

/// Positions that a cache grows by: `NormalCache::CACHE_GROW_SIZE`.
pub(crate) const GROWTH: usize = 512;

/// Positions that a sequence of so many tokens has room for.
pub(super) fn room(tokens: usize) -> usize {
    tokens.div_ceil(GROWTH) * GROWTH
}

/// Numbers of one position of one layer.
pub(super) fn numbers(topology: &Topology, device: UqffDevice) -> usize {
    let rotary = topology.attention.rotary.dim;
    match (&topology.attention.projections, device) {
        (Projections::Grouped(grouped), _) => 2 * grouped.kv_heads * grouped.head_dim,
        (Projections::Latent(latent), UqffDevice::Cpu) => {
            2 * latent.heads * (latent.nope_dim + rotary)
        }
        (Projections::Latent(latent), UqffDevice::Gpu) => latent.kv_rank + rotary,
    }
}

/// Bytes of the cache of one sequence of so many tokens, in numbers of `size`
/// bytes.
pub(super) fn of_sequence(
    topology: &Topology,
    keep: &Keep,
    device: UqffDevice,
    tokens: usize,
    size: u64,
) -> u64 {
    let layer = (numbers(topology, device) * room(tokens)) as u64 * size;
    layer * keep.layers.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture::{model, Stored};

    #[test]
    fn room_is_made_in_steps() {
        assert_eq!([1, 512, 513].map(room), [512, 512, 1024]);
    }

    #[test]
    fn every_kept_layer_has_keys_and_values() {
        let topology = model(Stored::PerExpert).topology;
        let mut keep = Keep::all(&topology);
        keep.layers = vec![0, 3];
        let bytes = of_sequence(&topology, &keep, UqffDevice::Cpu, 600, 4);
        // One key-value head of width 4.
        assert_eq!(bytes, 2 * 1024 * 2 * 4 * 4);
    }
}
