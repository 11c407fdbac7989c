//! From a GGUF file to a smaller one: blocks are moved as they are, and keys
//! that what is left contradicts are said anew.

use std::collections::HashMap;

use candle_core::quantized::GgmlDType;
use router_stats::checkpoint::{Element, TensorView};
use router_stats::family::gguf::Gguf;
use router_stats::family::{Part, Projection, Role, Topology};
use router_stats::gguf::{Header, Info, Metadata, Value};
use safetensors::Dtype;

use super::super::layout::{Output, Source};
use super::super::Cut;
use super::{float, metadata, refused, Packed};
use crate::Result;

/// Keys of a model in several files, which is one afterwards.
const PARTS: &str = "split.";

/// All tensors, in the order of the file.
///
/// # Errors
/// [`Error::NotInGguf`](crate::Error::NotInGguf) for a tensor that the family
/// does not account for.
pub(super) fn tensors(cut: &Cut<'_>, gguf: &Gguf, header: &Header) -> Result<Vec<(Info, Packed)>> {
    let places: HashMap<&str, usize> = header
        .tensors
        .iter()
        .map(|info| info.name.as_str())
        .zip(0..)
        .collect();
    let last = places.len();
    let mut found: Vec<(usize, Info, Packed)> = Vec::new();
    let mut stacks: HashMap<String, usize> = HashMap::new();
    for tensor in cut.checkpoint.tensors() {
        let Some(moved) = moved(cut, gguf, &tensor)? else {
            continue;
        };
        let place = places.get(&*moved.was).copied().unwrap_or(last);
        let Moved { name, rows, .. } = moved;
        let (shape, part) = part(&tensor, rows);
        let element = element(tensor.element);
        if moved.is_one_expert {
            // Old files have experts one by one, which llama.cpp reads no longer.
            let at = *stacks.entry(name.clone()).or_insert_with(|| {
                let info = Info::new(name, element, Vec::new());
                found.push((place, info, Packed::stored(Vec::new())));
                found.len() - 1
            });
            let (_, info, packed) = &mut found[at];
            if info.element != element {
                return Err(refused(cut, "experts of a layer have different types"));
            }
            packed.parts.push(part);
            info.shape = [&[packed.parts.len()], &shape[..]].concat();
            continue;
        }
        let info = Info::new(name, element, shape);
        found.push((place, info, Packed::stored(vec![part])));
    }
    found.sort_by_key(|(place, _, _)| *place);
    Ok(found
        .into_iter()
        .map(|(_, info, packed)| (info, packed))
        .collect())
}

/// Where a tensor goes.
struct Moved {
    /// What llama.cpp called it.
    was: String,
    /// What it calls it now.
    name: String,
    /// Which rows of it stay; all if `None`.
    rows: Option<Vec<usize>>,
    /// Whether it is a matrix of one expert, to be put on top of others.
    is_one_expert: bool,
}

/// Where `tensor` goes; `None` if it does not stay.
fn moved(cut: &Cut<'_>, gguf: &Gguf, tensor: &TensorView<'_>) -> Result<Option<Moved>> {
    let names = cut.family.names();
    let unknown = || {
        let reason = format!("llama.cpp has no place for the tensor `{}`", tensor.name);
        refused(cut, reason)
    };
    let whole = |was: String, name: String| Moved {
        was,
        name,
        rows: None,
        is_one_expert: false,
    };
    let Role::Block { layer, part } = names.role(tensor.name) else {
        let name = gguf.theirs(names, tensor.name).ok_or_else(unknown)?;
        return Ok(Some(whole(name.clone(), name)));
    };
    let Some(index) = cut.keep.layers.iter().position(|&kept| kept == layer) else {
        return Ok(None);
    };
    let kept = &cut.keep.experts[layer];
    let inside = names.inside(tensor.name).ok_or_else(unknown)?;
    if let Part::Expert { expert, projection } = part {
        return Ok(kept.contains(&expert).then(|| Moved {
            is_one_expert: true,
            ..whole(
                gguf.experts(layer, projection),
                gguf.experts(index, projection),
            )
        }));
    }
    let stack = |projection: &Projection| names.stack(*projection) == inside;
    if let Some(projection) = Projection::ALL.into_iter().find(|it| stack(it)) {
        return Ok(Some(Moved {
            rows: Some(kept.clone()),
            ..whole(
                gguf.experts(layer, projection),
                gguf.experts(index, projection),
            )
        }));
    }
    let was = gguf.theirs(names, tensor.name).ok_or_else(unknown)?;
    let name = gguf
        .theirs(names, &names.in_block(index, inside))
        .ok_or_else(unknown)?;
    let rows = (part == Part::Router).then(|| kept.clone());
    Ok(Some(Moved {
        rows,
        ..whole(was, name)
    }))
}

/// The shape of what stays of `tensor`, and where its bytes come from.
fn part(tensor: &TensorView<'_>, rows: Option<Vec<usize>>) -> (Vec<usize>, Output) {
    // A vector may be a matrix of one row to us.
    let mut shape = match tensor.shape {
        [1, width] => vec![*width],
        shape => shape.to_vec(),
    };
    let mut bytes = tensor.bytes();
    let name = tensor.name.to_owned();
    let source = match rows {
        None => Source::Copy { tensor: name },
        Some(rows) => {
            bytes = bytes / tensor.shape[0].max(1) * rows.len();
            shape[0] = rows.len();
            Source::Rows { tensor: name, rows }
        }
    };
    let output = Output {
        name: tensor.name.to_owned(),
        dtype: Dtype::U8,
        shape: vec![bytes],
        bytes: bytes as u64,
        source,
    };
    (shape, output)
}

/// The type of a tensor, as ggml has it.
fn element(element: Element) -> GgmlDType {
    match element {
        Element::Blocks(blocks) => blocks,
        Element::Plain(dtype) => float(dtype),
    }
}

/// The keys of the file with what is left of the model.
pub(super) fn keys(
    cut: &Cut<'_>,
    gguf: &Gguf,
    header: &Header,
    topology: &Topology,
    tensors: &[Info],
) -> Metadata {
    let mut metadata = header.metadata.clone();
    for (key, _) in header.metadata.entries() {
        if key.starts_with(PARTS) {
            metadata.remove(key);
        }
    }
    if cut.keep.is_identity(cut.topology) {
        return metadata;
    }
    let layers = cut.topology.layers();
    let prefix = gguf.key("");
    for (key, value) in header.metadata.entries() {
        let Some(array) = value.array().filter(|array| array.len() == layers) else {
            continue;
        };
        if let Some(kept) = array
            .select(&cut.keep.layers)
            .filter(|_| key.starts_with(&prefix))
        {
            metadata.set(key, Value::Array(kept));
        }
    }
    let before = (gguf.keys)(cut.topology);
    for (key, value) in (gguf.keys)(topology) {
        if !before.contains(&(key.clone(), value.clone())) {
            metadata.set(key, value);
        }
    }
    metadata.set(metadata::NAME, metadata::name(cut));
    if metadata.has(metadata::SIZE) {
        metadata.set(metadata::SIZE, metadata::size_label(topology, tensors));
    }
    metadata
}
