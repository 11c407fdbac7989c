//! One file that llama.cpp loads.
//!
//! The tensors are those of [`Layout::Hf`](super::Layout::Hf) under other
//! names, with the experts of a layer on top of each other. Matrices keep
//! their numbers or are quantised; what llama.cpp computes with in f32 is
//! stored so: norms, biases, routers. Of a source that is such a file already,
//! blocks are moved as they are (see [`stored`]). What the keys cannot say is refused (see
//! [`Gguf::refuses`]). Does not know how a header is spelled (see
//! [`router_stats::gguf`]) nor what keys mean (see [`router_stats::family::gguf`]).

mod metadata;
mod stored;

use std::collections::HashMap;

use candle_core::quantized::GgmlDType;
use router_stats::family::gguf::Gguf;
use router_stats::family::{Config, Part, Projection, Role, Topology, SCALE_SUFFIX};
use router_stats::gguf::{place, Header, Info, DEFAULT_ALIGNMENT};
use safetensors::Dtype;

use super::layout::{self, Output, Source};
use super::shard::Shard;
use super::uqff::encode::Form;
use super::uqff::{self, UqffWeights};
use super::{companion, Cut};
use crate::{Error, Result};

/// Numbers that embedding and head have where matrices are quantised: what they
/// lose, every token does.
const OUTSIDE: GgmlDType = GgmlDType::Q8_0;

/// A tensor as GGUF stores it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Packed {
    /// What it is made of: one matrix per expert, or one tensor.
    pub(super) parts: Vec<Output>,
    /// How its numbers are stored; as in the source if `None`.
    pub(super) form: Option<Form>,
    /// Numbers in a row.
    pub(super) width: usize,
    /// Zeros after it.
    pub(super) padding: usize,
}

impl Packed {
    /// These, as they are in the source.
    fn stored(parts: Vec<Output>) -> Self {
        Self {
            parts,
            form: None,
            width: 1,
            padding: 0,
        }
    }
}

/// The file of a model called `name`, which may name its organisation too.
pub(super) fn file_name(name: &str) -> String {
    format!("{}.gguf", metadata::stem(name))
}

/// Fails if llama.cpp has no such model, or would compute something else.
///
/// # Errors
/// [`Error::NotInGguf`], and those of [`metadata::tokenizer`].
pub(super) fn check(cut: &Cut<'_>) -> Result<()> {
    let (gguf, topology) = model(cut)?;
    if cut.checkpoint.gguf().is_none() {
        metadata::tokenizer(cut, &topology)?;
    }
    if cut.keep.skipped.iter().any(|skipped| skipped.attention) {
        return Err(refused(cut, "llama.cpp has no blocks without attention"));
    }
    match (gguf.refuses)(&topology) {
        None => Ok(()),
        Some(reason) => Err(refused(cut, reason)),
    }
}

/// The whole file: its header and where every byte comes from.
///
/// # Errors
/// Those of [`check`] and [`layout::outputs`].
pub(super) fn file(cut: &Cut<'_>, weights: UqffWeights) -> Result<Shard> {
    check(cut)?;
    let (gguf, topology) = model(cut)?;
    let source = cut.checkpoint.gguf();
    let tensors = match source {
        Some(header) => stored::tensors(cut, gguf, header)?,
        None => tensors(cut, gguf, weights)?,
    };
    let (mut infos, packed): (Vec<Info>, Vec<Packed>) = tensors.into_iter().unzip();
    let alignment = source.map_or(DEFAULT_ALIGNMENT, |header| header.alignment);
    let Some(bytes) = place(&mut infos, alignment) else {
        return Err(refused(cut, "it has more bytes than can be addressed"));
    };
    let metadata = match source {
        Some(header) => stored::keys(cut, gguf, header, &topology, &infos),
        None => metadata::metadata(cut, gguf, &topology, weights, &infos)?,
    };
    let ends = infos.iter().skip(1).map(|info| info.offset).chain([bytes]);
    let outputs = infos.iter().zip(packed).zip(ends);
    let outputs = outputs.map(|((info, mut packed), end)| {
        let stored = info.bytes().unwrap_or(0);
        let bytes = end - info.offset;
        packed.padding = bytes as usize - stored;
        Output {
            name: info.name.clone(),
            dtype: Dtype::U8,
            shape: vec![bytes as usize],
            bytes,
            source: Source::Packed(Box::new(packed)),
        }
    });
    Ok(Shard {
        file: file_name(&cut.checkpoint.name()),
        outputs: outputs.collect(),
        bytes,
        header: Header::encode(&metadata, &infos, alignment),
    })
}

/// How llama.cpp stores the family, and the structure of what is left.
fn model(cut: &Cut<'_>) -> Result<(&'static Gguf, Topology)> {
    let Some(gguf) = cut.family.gguf() else {
        let architecture = cut.family.architectures()[0];
        return Err(refused(
            cut,
            format!("{architecture} has no counterpart in llama.cpp that computes the same"),
        ));
    };
    let config = Config::new(cut.checkpoint.config().path(), companion::config(cut)?)?;
    Ok((gguf, cut.family.topology(&config)?))
}

/// All tensors with llama.cpp's names, in the order of the blocks.
fn tensors(cut: &Cut<'_>, gguf: &Gguf, weights: UqffWeights) -> Result<Vec<(Info, Packed)>> {
    let names = cut.family.names();
    let mut tensors: Vec<(Info, Packed)> = Vec::new();
    let mut stacks: HashMap<(usize, Projection), usize> = HashMap::new();
    for mut output in layout::outputs(cut)? {
        // The head that llama.cpp takes from the embedding may be stored beside it.
        let twice = cut.topology.tied_head && output.name == names.head;
        if twice || output.name.ends_with(SCALE_SUFFIX) {
            continue;
        }
        uqff::multiplied(&mut output);
        let form = form(cut, weights, &output);
        if let Role::Block {
            layer,
            part: Part::Expert { projection, .. },
        } = names.role(&output.name)
        {
            let at = *stacks.entry((layer, projection)).or_insert_with(|| {
                let name = gguf.experts(layer, projection);
                tensors.push(empty(name, form, &output));
                tensors.len() - 1
            });
            let (info, packed) = &mut tensors[at];
            // Experts of a layer have one shape and dtype, as their reader checks.
            info.shape = [&[packed.parts.len() + 1], &output.shape[..]].concat();
            packed.parts.push(output);
            continue;
        }
        let Some(name) = gguf.theirs(names, &output.name) else {
            let reason = format!("llama.cpp has no place for the tensor `{}`", output.name);
            return Err(refused(cut, reason));
        };
        let (mut info, mut packed) = empty(name, form, &output);
        // The gate of shared experts is a vector there.
        info.shape = match &output.shape[..] {
            [1, width] => vec![*width],
            shape => shape.to_vec(),
        };
        packed.parts.push(output);
        tensors.push((info, packed));
    }
    Ok(tensors)
}

fn empty(name: String, form: Form, first: &Output) -> (Info, Packed) {
    let element = match form {
        Form::Float(dtype) => float(dtype),
        Form::Blocks(blocks) => blocks,
    };
    let packed = Packed {
        parts: Vec::new(),
        form: Some(form),
        width: first.shape.last().copied().unwrap_or(1),
        padding: 0,
    };
    (Info::new(name, element, first.shape.clone()), packed)
}

/// ggml's name of a type of single numbers.
fn float(dtype: Dtype) -> GgmlDType {
    match dtype {
        Dtype::F16 => GgmlDType::F16,
        Dtype::BF16 => GgmlDType::BF16,
        _ => GgmlDType::F32,
    }
}

/// How the numbers of a tensor are stored.
fn form(cut: &Cut<'_>, weights: UqffWeights, output: &Output) -> Form {
    let names = cut.family.names();
    let width = output.shape.last().copied().unwrap_or(1);
    let blocks = if names.is_projection(&output.name) && output.shape.len() > 1 {
        weights.blocks(width)
    } else if [names.embedding, names.head].contains(&&*output.name) {
        let quantised = weights.quantization().is_some();
        (quantised && width.is_multiple_of(OUTSIDE.block_size())).then_some(OUTSIDE)
    } else {
        return Form::Float(Dtype::F32);
    };
    match blocks {
        None => Form::Float(output.dtype),
        Some(GgmlDType::F32) => Form::Float(Dtype::F32),
        Some(blocks) => Form::Blocks(blocks),
    }
}

fn refused(cut: &Cut<'_>, reason: impl Into<String>) -> Error {
    Error::NotInGguf {
        model: cut.checkpoint.name(),
        reason: reason.into(),
    }
}
