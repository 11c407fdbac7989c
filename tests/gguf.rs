//! A model as a GGUF file, laid out as llama.cpp's converter does.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use router_stats::family::gguf::ARCHITECTURE;
use router_stats::family::{Pairs, Part, Projections, Role};
use router_stats::forward::Model;
use router_stats::gguf::{place, Header, Info, Metadata, DEFAULT_ALIGNMENT};

/// Writes `model`, whose experts are stored one by one, to `path`. Matrices
/// whose names, ours, `element` has a type for are stored so; all else is f32.
pub fn write(model: &Model, path: &Path, element: impl Fn(&str) -> Option<GgmlDType>) {
    let (family, topology) = (model.family(), model.topology());
    let (gguf, names) = (family.gguf().unwrap(), family.names());
    let mut files: BTreeMap<String, Vec<(Info, Vec<u8>)>> = BTreeMap::new();
    for expected in topology.tensors(names) {
        let (name, shape) = (expected.name, expected.shape);
        let mut values = vec![0.0; shape.iter().product()];
        let weight = model.checkpoint().weight(&name, &shape).unwrap();
        weight.read_f32(&mut values).unwrap();
        let mut values = Tensor::from_vec(values, shape.clone(), &Device::Cpu).unwrap();
        let theirs = match names.role(&name) {
            Role::Block {
                layer,
                part: Part::Expert { projection, .. },
            } => gguf.experts(layer, projection),
            _ => gguf.theirs(names, &name).unwrap(),
        };
        let turns = theirs.contains("attn_q.") || theirs.contains("attn_k.");
        if let (true, Pairs::Adjacent, Projections::Grouped(query)) =
            (turns, gguf.pairs, &topology.attention.projections)
        {
            // Pairs that lie half a head apart come side by side.
            let half = query.head_dim / 2;
            let heads = shape[0] / query.head_dim;
            let apart = values.reshape((heads, 2, half, shape[1])).unwrap();
            let beside = apart.transpose(1, 2).unwrap().contiguous().unwrap();
            values = beside.reshape(&shape[..]).unwrap();
        }
        let element = element(&name).filter(|_| shape.len() == 2);
        let element = element.unwrap_or(GgmlDType::F32);
        let stored = QTensor::quantize(&values, element).unwrap();
        let data = stored.data().unwrap().into_owned();
        let info = Info::new(theirs.clone(), element, shape);
        files.entry(theirs).or_default().push((info, data));
    }
    let (mut infos, mut data) = (Vec::new(), Vec::new());
    for (name, parts) in files {
        let (mut info, _) = parts[0].clone();
        if name.contains("_exps") {
            info.shape.insert(0, parts.len());
        }
        infos.push(info);
        data.extend(parts.into_iter().flat_map(|(_, data)| data));
        data.resize(data.len().next_multiple_of(DEFAULT_ALIGNMENT), 0);
    }
    place(&mut infos, DEFAULT_ALIGNMENT).unwrap();
    let mut metadata = Metadata::new((gguf.keys)(topology));
    metadata.set(ARCHITECTURE, gguf.architecture);
    for kind in ["bos", "eos"] {
        let id = model.checkpoint().config().value()[&format!("{kind}_token_id")].as_u64();
        if let Some(id) = id {
            metadata.set(format!("tokenizer.ggml.{kind}_token_id"), id as u32);
        }
    }
    let mut file = Header::encode(&metadata, &infos, DEFAULT_ALIGNMENT);
    file.extend(data);
    std::fs::write(path, file).unwrap();
    // The tokenizer is beside it, not in it.
    let from = model.checkpoint().dir().join("tokenizer.json");
    std::fs::copy(from, path.with_file_name("tokenizer.json")).unwrap();
}
