//! A channel of known value in the residual stream, for routers without a bias.
//!
//! The embedding puts c = 2⁻¹⁴ there, no block adds to it, and the norm before
//! the experts makes it 1/rms > 0, which the rows of absent experts multiply by
//! a large negative number. The channel comes with zeros to the next 32, the
//! smallest block of quantised weights, or to the next 256 where the source
//! has rows of the larger ones.
//!
//! An RMS norm over H′ instead of H channels, of which the new ones hold c and
//! zeros, is the same if weights are multiplied by √(H/H′) and
//! ε′ = (H·ε − c²)/H′. The norms of queries and keys share ε but keep their
//! width, so that they see ε′ for ε, which is the only difference: relative
//! (ε − ε′)/2 over the mean square of a head.

use std::collections::BTreeMap;

use router_stats::checkpoint::{Element, TensorView};
use router_stats::family::{Names, Part, Projection, Projections, Role};
use safetensors::Dtype;
use serde_json::Value;

use super::super::layout::{Output, Source, Widened};
use super::super::Cut;
use super::{edit, moe_layers, occupied};

/// Channels that are added where numbers are not in blocks yet.
pub(super) const CHANNELS: usize = 32;

/// Channels that are added to what `cut` leaves: whole blocks in every row that
/// grows by them.
fn channels(cut: &Cut<'_>) -> usize {
    let grows = |tensor: &TensorView<'_>| tensor.shape.last() == Some(&cut.topology.hidden);
    let tensors = cut.checkpoint.tensors().filter(grows);
    let blocks = tensors.filter_map(|tensor| match tensor.element {
        Element::Blocks(blocks) => Some(blocks.block_size()),
        Element::Plain(_) => None,
    });
    blocks.max().unwrap_or(0).max(CHANNELS)
}

/// What the embedding puts into the first of them; exact in every dtype.
const VALUE: f32 = 1.0 / 16_384.0;

/// Says in `config` what [`widen`] does.
pub(super) fn spell(cut: &Cut<'_>, config: &mut Value) {
    let topology = cut.topology;
    let hidden = topology.hidden as f64;
    let wide = topology.hidden + channels(cut);
    let eps = (hidden * topology.norm.eps - f64::from(VALUE).powi(2)) / wide as f64;
    config["hidden_size"] = wide.into();
    config["rms_norm_eps"] = eps.max(0.0).into();
    if let Projections::Grouped(query) = &topology.attention.projections {
        config["head_dim"] = query.head_dim.into();
    }
}

/// Adds the channels to every tensor that reads or writes the residual stream,
/// and rows for absent experts to the routers.
pub(super) fn widen(cut: &Cut<'_>, tensors: &mut BTreeMap<String, Output>) {
    let names = cut.family.names();
    let router: BTreeMap<String, Vec<bool>> = moe_layers(cut)
        .map(|(index, layer, moe)| {
            let name = names.in_block(index, names.router);
            (name, occupied(cut, layer, moe))
        })
        .collect();
    let channels = channels(cut);
    let all: Vec<String> = tensors.keys().cloned().collect();
    for name in all {
        let change = match router.get(&name) {
            Some(occupied) => Change::Router(occupied),
            None => change(cut, names, &name),
        };
        edit(tensors, &name, |tensor| change.apply(cut, channels, tensor));
    }
}

/// What becomes of a tensor.
#[derive(Clone, Copy)]
enum Change<'a> {
    Nothing,
    /// Columns, of which the first holds this.
    Columns(f32),
    /// Rows of zeros.
    Rows,
    /// A norm's weights, the first new one being this.
    Norm(f32),
    Router(&'a [bool]),
}

fn change<'a>(cut: &Cut<'_>, names: &Names, name: &str) -> Change<'a> {
    if name == names.embedding {
        return Change::Columns(VALUE);
    }
    if name == names.head {
        return Change::Columns(0.0);
    }
    if name == names.final_norm {
        return Change::Norm(0.0);
    }
    let Role::Block { layer, part } = names.role(name) else {
        return Change::Nothing;
    };
    let inside = &name[names.in_block(layer, "").len()..];
    if let Part::Expert { projection, .. } = part {
        return match projection {
            Projection::Gate | Projection::Up => Change::Columns(0.0),
            Projection::Down => Change::Rows,
        };
    }
    if inside == names.attention_norm {
        return Change::Norm(0.0);
    }
    if inside == names.mlp_norm {
        let original = cut.keep.layers[layer];
        let routed = cut.keep.moe(cut.topology, original).is_some();
        return Change::Norm(if routed { 1.0 / VALUE } else { 0.0 });
    }
    if let Some(module) = inside.strip_prefix(names.attention) {
        return match module {
            "q_proj.weight" | "k_proj.weight" | "v_proj.weight" => Change::Columns(0.0),
            "o_proj.weight" | "o_proj.bias" => Change::Rows,
            _ => Change::Nothing,
        };
    }
    match inside.strip_prefix(names.dense) {
        Some(matrix) if matrix == names.gate || matrix == names.up => Change::Columns(0.0),
        Some(matrix) if matrix == names.down => Change::Rows,
        _ => Change::Nothing,
    }
}

impl Change<'_> {
    fn apply(self, cut: &Cut<'_>, channels: usize, tensor: Output) -> Output {
        let mut shape = tensor.shape.clone();
        let first = |value: f32| {
            let mut values = vec![0.0; channels];
            values[0] = value;
            values
        };
        let same = |rows: usize| vec![true; rows];
        let (rows, after, added) = match self {
            Self::Nothing => return tensor,
            Self::Columns(value) => {
                shape[1] += channels;
                (same(shape[0]), first(value), Vec::new())
            }
            Self::Rows => {
                let mut rows = same(shape[0]);
                shape[0] += channels;
                rows.resize(shape[0], false);
                let width = shape[1..].iter().product();
                (rows, Vec::new(), vec![0.0; width])
            }
            Self::Norm(value) => {
                let hidden = cut.topology.hidden;
                let scale = (hidden as f64 / (hidden + channels) as f64).sqrt();
                shape[0] += channels;
                let scaled = Output {
                    name: tensor.name.clone(),
                    dtype: Dtype::F32,
                    bytes: (tensor.shape.iter().product::<usize>() * 4) as u64,
                    shape: tensor.shape.clone(),
                    source: Source::Scaled {
                        inner: Box::new(tensor),
                        by: scale as f32,
                    },
                };
                let widened = Widened {
                    inner: scaled,
                    rows: same(1),
                    after: first(value * scale as f32),
                    added: Vec::new(),
                };
                return widened.output(shape);
            }
            Self::Router(occupied) => {
                shape[0] = occupied.len();
                let mut added = vec![0.0; shape[1]];
                // What f16 can hold is enough: a token's rms is far below 10⁴.
                let absent = if tensor.dtype == Dtype::F16 {
                    -65_504.0
                } else {
                    -1e9
                };
                added.extend(first(absent));
                shape[1] += channels;
                (occupied.to_vec(), first(0.0), added)
            }
        };
        let widened = Widened {
            inner: tensor,
            rows,
            after,
            added,
        };
        widened.output(shape)
    }
}
