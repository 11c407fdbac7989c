//! Which tensors a pruned checkpoint has, in order, and where each one's
//! bytes come from.
//!
//! Reads names and shapes only. Does not decide which file a tensor goes to
//! (see [`super::shard`]) and moves no bytes (see [`super::write`]).

use std::collections::BTreeMap;

use candle_core::quantized::GgmlDType;
use router_stats::checkpoint::{self, Element, ExpertReader, TensorView};
use router_stats::family::{MoeSpec, Part, Projection, Role, SCALE_SUFFIX};
use safetensors::Dtype;

use super::gguf::Packed;
use super::uqff::{Artifact, Uqff, UqffWeights};
use super::values::Padding;
use super::{bias, classify, pairs, sublayers, values, Cut};
use crate::Result;

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// As mistral.rs 0.8.1 loads them on every device, so that it computes what
    /// the model does; no other program should read it.
    ///
    /// Most families stack unquantised experts in two tensors per layer without
    /// a `.weight` suffix: `mlp.experts.gate_up_proj` [E, H, 2I], gate first,
    /// and `mlp.experts.down_proj` [E, I, H]. On the CPU the engine's
    /// `PackedExperts` reads no other names and no other orientation. What else
    /// differs, `pairs`, `values` and `bias` say.
    Engine,
    /// As checkpoints of the family are on the hub, for Hugging Face
    /// transformers, vLLM and llama.cpp: for most, one matrix per expert and
    /// projection, whichever way the source has them. Zeros and raised biases
    /// of a source that was written for the engine stay, and change nothing.
    Hf,
    /// As llama.cpp loads it: one file, with matrices in these numbers.
    Gguf(UqffWeights),
    /// As mistral.rs 0.8.1 loads UQFF, with a different number of experts in
    /// every layer if need be: see [`Uqff`].
    Uqff(Uqff),
}

impl Layout {
    /// Whether mistral.rs reads it, so that what it computes otherwise than the
    /// model has to be made up for.
    pub(super) fn is_for_engine(self) -> bool {
        !matches!(self, Self::Hf | Self::Gguf(_))
    }
}

impl Layout {
    /// How UQFF is written, if it is.
    pub fn uqff(self) -> Option<Uqff> {
        match self {
            Self::Uqff(uqff) => Some(uqff),
            _ => None,
        }
    }
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Engine => "engine",
            Self::Hf => "hf",
            Self::Gguf(_) => "gguf",
            Self::Uqff(_) => "uqff",
        })
    }
}

/// One tensor of the result.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Output {
    pub(super) name: String,
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    /// Size of the data.
    pub(super) bytes: u64,
    pub(super) source: Source,
}

impl Output {
    /// Whether it is a tensor of the source as it is, experts included.
    pub(super) fn is_unchanged(&self) -> bool {
        match &self.source {
            Source::Copy { tensor } => *tensor == self.name,
            Source::Rows { tensor, rows } => {
                *tensor == self.name && rows.iter().copied().eq(0..rows.len())
            }
            _ => false,
        }
    }
}

/// Where a tensor's bytes come from. Layers and experts are the source's.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Source {
    /// All of a tensor.
    Copy { tensor: String },
    /// All of a weight times the scales of its blocks, or out of blocks that
    /// are numbers by themselves, as f32.
    Weight { tensor: String },
    /// Some rows of a tensor along its first dimension, in this order.
    Rows { tensor: String, rows: Vec<usize> },
    /// Nothing but zeros.
    Zeros,
    /// All of a matrix, with zeros put between its rows or columns.
    Padded { tensor: String, padding: Padding },
    /// Some elements of a vector, each raised by the same amount, as f32.
    Raised {
        tensor: String,
        rows: Vec<usize>,
        by: f32,
    },
    /// Every element of another tensor times the same number, as f32.
    Scaled { inner: Box<Output>, by: f32 },
    /// Another tensor's rows, some of them put between fillings; see
    /// [`Widened`].
    Widened(Box<Widened>),
    /// A linear layer as UQFF stores it.
    Artifact(Box<Artifact>),
    /// A tensor as GGUF stores it.
    Packed(Box<Packed>),
    /// One matrix out of a stacked tensor: [I, H], or [H, I] for down.
    Matrix {
        layer: usize,
        expert: usize,
        projection: Projection,
    },
    /// Such a matrix out of these blocks, as f32.
    Numbers {
        layer: usize,
        expert: usize,
        projection: Projection,
        blocks: GgmlDType,
    },
    /// Gate and up projections transposed and side by side: [E, H, 2I].
    StackGateUp { layer: usize, experts: Vec<usize> },
    /// Down projections transposed: [E, I, H].
    StackDown { layer: usize, experts: Vec<usize> },
}

/// A matrix, or a vector taken for a column, with rows and columns added.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Widened {
    /// What it is made of.
    pub(super) inner: Output,
    /// Whether each row of the result is the next one of `inner` or added.
    pub(super) rows: Vec<bool>,
    /// What comes after each row of `inner`.
    pub(super) after: Vec<f32>,
    /// What an added row holds, if not zeros.
    pub(super) added: Vec<f32>,
}

/// All tensors of the result: the embedding, the blocks in order, the rest.
///
/// # Errors
/// [`Unclassified`](crate::Error::Unclassified); a router or expert that is missing, or has another
/// shape or dtype than it must.
pub(super) fn outputs(cut: &Cut<'_>) -> Result<Vec<Output>> {
    let names = cut.family.names();
    let mut outside = Vec::new();
    let mut blocks: BTreeMap<usize, Vec<(&str, Part)>> = BTreeMap::new();
    for name in cut.checkpoint.names() {
        match names.role(name) {
            Role::Global => outside.push(name),
            Role::Block { layer, part } => {
                if cut.topology.predicts(layer) {
                    continue;
                }
                classify::check_part(cut, name, layer, part)?;
                blocks.entry(layer).or_default().push((name, part));
            }
        }
    }
    outside.sort_by_key(|&name| name != names.embedding);
    let (first, last) = outside.split_at(outside.len().min(1));

    let mut outputs = Vec::new();
    for &name in first {
        outputs.push(copy(cut, name, name.to_owned())?);
    }
    for (index, &layer) in cut.keep.layers.iter().enumerate() {
        let tensors = blocks.remove(&layer).unwrap_or_default();
        block(cut, Block { layer, index }, &tensors, &mut outputs)?;
    }
    for &name in last {
        outputs.push(copy(cut, name, name.to_owned())?);
    }
    Ok(outputs)
}

/// A block that stays.
#[derive(Clone, Copy)]
struct Block {
    /// Its index in the source.
    layer: usize,
    /// Its index in the result.
    index: usize,
}

fn block(
    cut: &Cut<'_>,
    block: Block,
    tensors: &[(&str, Part)],
    outputs: &mut Vec<Output>,
) -> Result<()> {
    let Block { layer, index } = block;
    let names = cut.family.names();
    let prefix = names.in_block(layer, "");
    for &(name, part) in tensors {
        if part == Part::Shared && !sublayers::goes(cut, layer, name) {
            let inside = &name[prefix.len()..];
            let new = names.in_block(index, inside);
            outputs.push(if let Some(order) = pairs::rows(cut, inside, name)? {
                rows(&cut.checkpoint.tensor(name)?, new, &order)?
            } else if let Some(padding) = values::padding(cut, inside) {
                padded(&cut.checkpoint.tensor(name)?, new, padding)?
            } else {
                copy(cut, name, new)?
            });
        }
    }
    outputs.extend(sublayers::stand_in(cut, layer, index)?);
    let Some(moe) = cut.keep.moe(cut.topology, layer) else {
        return Ok(());
    };
    let kept = &cut.keep.experts[layer];
    for (router, shape) in router(cut, moe) {
        let name = names.in_block(layer, router);
        let tensor = cut.checkpoint.tensor_of_shape(&name, &shape)?;
        let new = names.in_block(index, router);
        outputs.push(match bias::raise(cut, moe, router, &tensor)? {
            None => rows(&tensor, new, kept)?,
            Some(by) => raised(&tensor, new, kept, by),
        });
    }

    let reader = ExpertReader::open(cut.checkpoint, names, layer, moe, cut.topology.hidden)?;
    classify::check_one_layout(cut, tensors, &reader)?;
    // Block scales go with single matrices.
    if cut.stacks_experts() && reader.element(Projection::Gate) != Dtype::F8_E4M3.into() {
        stacked(cut, block, moe, &reader, outputs)
    } else {
        per_expert(cut, block, moe, &reader, outputs)
    }
}

/// Names inside the block, and shapes, of what has one row per expert.
fn router(cut: &Cut<'_>, moe: &MoeSpec) -> Vec<(&'static str, Vec<usize>)> {
    let names = cut.family.names();
    let mut tensors = vec![(names.router, vec![moe.experts, cut.topology.hidden])];
    if let Some(bias) = names.router_bias.filter(|_| moe.router.correction_bias) {
        tensors.push((bias, vec![moe.experts]));
    }
    tensors
}

fn per_expert(
    cut: &Cut<'_>,
    Block { layer, index }: Block,
    moe: &MoeSpec,
    reader: &ExpertReader<'_>,
    outputs: &mut Vec<Output>,
) -> Result<()> {
    let names = cut.family.names();
    for (new, &expert) in cut.keep.experts[layer].iter().enumerate() {
        for projection in Projection::ALL {
            let name = names.expert(index, new, projection);
            if reader.layout() == checkpoint::Layout::PerExpert {
                let stored = names.expert(layer, expert, projection);
                let [scales, new_scales] = [&stored, &name].map(|it| format!("{it}{SCALE_SUFFIX}"));
                outputs.push(copy(cut, &stored, name)?);
                if cut.checkpoint.contains(&scales) {
                    outputs.push(copy(cut, &scales, new_scales)?);
                }
                continue;
            }
            let shape = match projection {
                Projection::Gate | Projection::Up => vec![moe.intermediate, cut.topology.hidden],
                Projection::Down => vec![cut.topology.hidden, moe.intermediate],
            };
            outputs.push(match reader.element(projection) {
                Element::Blocks(blocks) if cut.takes_blocks() => {
                    let source = Source::Numbers {
                        layer,
                        expert,
                        projection,
                        blocks,
                    };
                    output(name, Dtype::F32, shape, source)
                }
                _ => {
                    let source = Source::Matrix {
                        layer,
                        expert,
                        projection,
                    };
                    output(name, reader.plain(projection)?, shape, source)
                }
            });
        }
    }
    Ok(())
}

fn stacked(
    cut: &Cut<'_>,
    Block { layer, index }: Block,
    moe: &MoeSpec,
    reader: &ExpertReader<'_>,
    outputs: &mut Vec<Output>,
) -> Result<()> {
    let names = cut.family.names();
    let experts = &cut.keep.experts[layer];
    let gate_up = names.in_block(index, names.stacked_gate_up);
    let down = names.in_block(index, names.stacked_down);
    if reader.layout() == ENGINE_ORIENTATION {
        for (stored, name) in [(names.stacked_gate_up, gate_up), (names.stacked_down, down)] {
            let tensor = cut.checkpoint.tensor(&names.in_block(layer, stored))?;
            outputs.push(rows(&tensor, name, experts)?);
        }
        return Ok(());
    }
    let (hidden, intermediate) = (cut.topology.hidden, moe.intermediate);
    outputs.push(output(
        gate_up,
        reader.plain(Projection::Gate)?,
        vec![experts.len(), hidden, 2 * intermediate],
        Source::StackGateUp {
            layer,
            experts: experts.clone(),
        },
    ));
    outputs.push(output(
        down,
        reader.plain(Projection::Down)?,
        vec![experts.len(), intermediate, hidden],
        Source::StackDown {
            layer,
            experts: experts.clone(),
        },
    ));
    Ok(())
}

/// The stacked layout that the engine reads: [E, H, 2I] and [E, I, H].
const ENGINE_ORIENTATION: checkpoint::Layout = checkpoint::Layout::Stacked { transposed: true };

fn copy(cut: &Cut<'_>, tensor: &str, name: String) -> Result<Output> {
    let view = cut.checkpoint.tensor(tensor)?;
    if matches!(view.element, Element::Blocks(_)) && cut.takes_blocks() {
        let source = Source::Weight {
            tensor: tensor.to_owned(),
        };
        return Ok(output(name, Dtype::F32, view.shape.to_vec(), source));
    }
    if view.is_reordered() {
        let all: Vec<usize> = (0..view.shape[0]).collect();
        return rows(&view, name, &all);
    }
    Ok(Output {
        name,
        dtype: view.plain()?,
        shape: view.shape.to_vec(),
        bytes: view.bytes() as u64,
        source: Source::Copy {
            tensor: tensor.to_owned(),
        },
    })
}

/// `rows` of a tensor with at least one dimension.
fn rows(tensor: &TensorView<'_>, name: String, rows: &[usize]) -> Result<Output> {
    let mut shape = tensor.shape.to_vec();
    let row = tensor.bytes() / shape[0].max(1);
    shape[0] = rows.len();
    Ok(Output {
        name,
        dtype: tensor.plain()?,
        shape,
        bytes: (row * rows.len()) as u64,
        source: Source::Rows {
            tensor: tensor.name.to_owned(),
            rows: rows.iter().map(|&row| tensor.stored_row(row)).collect(),
        },
    })
}

/// A matrix with zeros between its rows or columns.
fn padded(tensor: &TensorView<'_>, name: String, padding: Padding) -> Result<Output> {
    let mut shape = tensor.shape.to_vec();
    shape[padding.axis] = shape[padding.axis] / padding.width * padding.padded;
    let source = Source::Padded {
        tensor: tensor.name.to_owned(),
        padding,
    };
    Ok(output(name, tensor.plain()?, shape, source))
}

/// Elements of a vector, raised.
fn raised(tensor: &TensorView<'_>, name: String, rows: &[usize], by: f32) -> Output {
    let source = Source::Raised {
        tensor: tensor.name.to_owned(),
        rows: rows.to_vec(),
        by,
    };
    output(name, Dtype::F32, vec![rows.len()], source)
}

/// A tensor made from weights whose elements are two or four bytes.
fn output(name: String, dtype: Dtype, shape: Vec<usize>, source: Source) -> Output {
    let bytes = (shape.iter().product::<usize>() * (dtype.bitsize() / 8)) as u64;
    Output {
        name,
        dtype,
        shape,
        bytes,
        source,
    }
}
