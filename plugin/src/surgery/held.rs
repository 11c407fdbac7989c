//! Bytes that the engine holds of a model, part by part, from names and shapes
//! alone.
//!
//! Owns which numbers the engine keeps of each tensor that a layout would
//! write; writes none. How much of it fits somewhere is [`crate::memory`]'s
//! business.

use router_stats::checkpoint::Checkpoint;
use router_stats::family::{Family, Keep, Part, Role, Topology, Uneven};
use safetensors::Dtype;

use super::layout::{self, Output, Source};
use super::{uqff, Cut, Layout};
use crate::Result;

/// What the engine holds of a model with all its experts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Outside the blocks: embedding, head, final norm, vision tower.
    shared: u64,
    /// One per original layer.
    layers: Vec<HeldLayer>,
    /// Whether routers have a row for experts that a layer has fewer of than
    /// the widest.
    levelled: bool,
}

/// What the engine holds of one layer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct HeldLayer {
    /// Attention, norms, dense MLP, shared experts.
    fixed: u64,
    /// The router's part for one expert.
    routed: u64,
    /// One expert.
    expert: u64,
}

impl Held {
    /// Of `checkpoint` in `layout`. `float` is what numbers are loaded as that
    /// are not in blocks. `uneven` is for plans whose layers keep different
    /// numbers of experts, which some families need more channels for.
    ///
    /// # Errors
    /// Those of listing the tensors of the layout.
    pub fn new(
        checkpoint: &Checkpoint,
        family: &'static dyn Family,
        topology: &Topology,
        layout: Layout,
        float: Dtype,
        uneven: bool,
    ) -> Result<Self> {
        let keep = if uneven {
            one_fewer(topology)
        } else {
            Keep::all(topology)
        };
        let cut = Cut::new(checkpoint, family, topology, &keep, layout);
        let names = family.names();
        let mut held = Self {
            shared: 0,
            layers: vec![HeldLayer::default(); topology.layers()],
            levelled: false,
        };
        let mut add = |name: &str, bytes: u64| match names.role(name) {
            Role::Global => held.shared += bytes,
            Role::Block { layer, part } => {
                let Some(held) = held.layers.get_mut(layer) else {
                    return;
                };
                match part {
                    Part::Shared => held.fixed += bytes,
                    Part::Router => held.routed += bytes,
                    Part::Expert { .. }
                    | Part::ExpertScale { .. }
                    | Part::StackedGateUp
                    | Part::StackedDown => held.expert += bytes,
                }
            }
        };
        let loaded = |output: &Output| {
            let numbers: u64 = output.shape.iter().product::<usize>() as u64;
            let size = match output.dtype {
                // Multiplied by its scales whenever it is used.
                Dtype::F8_E4M3 => 1,
                Dtype::F64 => 8,
                _ => float.bitsize() as u64 / 8,
            };
            numbers * size
        };
        match layout {
            Layout::Hf | Layout::Engine | Layout::Gguf(_) => {
                for output in layout::outputs(&cut)? {
                    // The engine takes a tied head from the embedding.
                    if !(topology.tied_head && output.name == names.head) {
                        add(&output.name, loaded(&output));
                    }
                }
            }
            Layout::Uqff(options) => {
                let files = uqff::files(&cut, options)?;
                for output in &files.residual {
                    add(&output.name, loaded(output));
                }
                for output in &files.artifacts {
                    let Source::Artifact(artifact) = &output.source else {
                        continue;
                    };
                    let numbers = artifact.shape.iter().product();
                    if let Some(first) = artifact.parts.iter().flatten().next() {
                        add(&first.name, artifact.form.bytes(numbers) as u64);
                    }
                    if let Some(bias) = &artifact.bias {
                        add(&bias.name, loaded(bias));
                    }
                }
                held.levelled = uneven && uqff::route(&cut)? != Uneven::Router;
            }
        }
        for (layer, held) in held.layers.iter_mut().enumerate() {
            let experts = keep.experts[layer].len().max(1) as u64;
            let rows = topology.moe(layer).map_or(1, |moe| moe.experts as u64);
            held.routed /= rows;
            held.expert /= experts;
        }
        Ok(held)
    }

    /// What `keep` leaves.
    pub fn bytes(&self, keep: &Keep) -> u64 {
        let counts = || keep.layers.iter().map(|&layer| kept(keep, layer));
        let widest = counts().max().unwrap_or(0);
        let layers = keep.layers.iter().zip(counts()).map(|(&layer, kept)| {
            let held = &self.layers[layer];
            let rows = if self.levelled { widest } else { kept };
            held.fixed + held.routed * rows as u64 + held.expert * kept as u64
        });
        self.shared + layers.sum::<u64>()
    }

    /// The experts of the largest layer of what `keep` leaves.
    pub fn largest_experts(&self, keep: &Keep) -> u64 {
        let experts = keep
            .layers
            .iter()
            .map(|&layer| self.layers[layer].expert * kept(keep, layer) as u64);
        experts.max().unwrap_or(0)
    }
}

/// Experts that a kept layer keeps.
fn kept(keep: &Keep, layer: usize) -> usize {
    if keep.skip(layer).mlp {
        0
    } else {
        keep.experts[layer].len()
    }
}

/// All but one expert of every group of the first MoE layer.
fn one_fewer(topology: &Topology) -> Keep {
    let mut keep = Keep::all(topology);
    let first = (0..topology.layers()).find_map(|layer| Some((layer, topology.moe(layer)?)));
    if let Some((layer, moe)) = first {
        let last: Vec<usize> = moe
            .router
            .group_ranges(moe.experts)
            .filter_map(Iterator::last)
            .collect();
        keep.experts[layer].retain(|expert| !last.contains(expert));
    }
    keep
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture::{self, Stored};
    use crate::surgery::{Uqff, UqffDevice, UqffWeights};

    /// 16 × 8 numbers are the embedding, and as many the head; 2·8 the norms of
    /// a block, 8·8·3 its attention with norms of 4, 6·8 its router, 3·8·4 an
    /// expert.
    #[test]
    fn parts_add_up_to_the_model() {
        for stored in [Stored::PerExpert, Stored::Stacked] {
            let fixture = fixture::model(stored);
            let (family, topology) = (fixture.family, &fixture.topology);
            let held = |layout, float| {
                Held::new(&fixture.checkpoint, family, topology, layout, float, false).unwrap()
            };
            let mut keep = Keep::all(topology);
            let size = |keep: &Keep| {
                router_stats::size::Size::of(&fixture.checkpoint, family, topology, keep).unwrap()
            };
            let engine = held(Layout::Engine, Dtype::F32);
            assert_eq!(engine.bytes(&keep), size(&keep).parameters * 4);
            assert_eq!(
                held(Layout::Engine, Dtype::BF16).bytes(&keep),
                size(&keep).bytes
            );
            let floats = held(Layout::Uqff(Uqff::default()), Dtype::F32);
            assert_eq!(floats.bytes(&keep), engine.bytes(&keep));
            keep.layers = vec![0, 2];
            keep.experts[2] = vec![0, 4];
            assert_eq!(engine.bytes(&keep), size(&keep).parameters * 4);
            assert_eq!(engine.largest_experts(&keep), 6 * 3 * 8 * 4 * 4);
        }
    }

    #[test]
    fn rows_that_no_block_divides_are_held_as_they_are() {
        let fixture = fixture::model(Stored::PerExpert);
        let layout = Layout::Uqff(Uqff {
            weights: UqffWeights::Q8_0,
            device: UqffDevice::Cpu,
        });
        let (family, topology) = (fixture.family, &fixture.topology);
        let held = |layout| {
            Held::new(
                &fixture.checkpoint,
                family,
                topology,
                layout,
                Dtype::F32,
                false,
            )
            .unwrap()
        };
        let keep = Keep::all(topology);
        assert_eq!(
            held(layout).bytes(&keep),
            held(Layout::Uqff(Uqff::default())).bytes(&keep)
        );
    }
}
