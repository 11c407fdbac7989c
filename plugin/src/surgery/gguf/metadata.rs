//! The keys of a file: what the model is, how it is called, its tokenizer.

use std::path::Path;

use router_stats::calibration::ChatTemplate;
use router_stats::family::gguf::{Gguf, ARCHITECTURE};
use router_stats::family::Topology;
use router_stats::gguf::{tokenizer_metadata, Info, Metadata, Sources, Value};
use router_stats::Error as StatsError;
use serde_json::Value as Json;

use super::super::{Cut, UqffWeights};
use crate::Result;

pub(super) const NAME: &str = "general.name";
pub(super) const SIZE: &str = "general.size_label";
const FILE_TYPE: &str = "general.file_type";

/// The version of llama.cpp's blocks.
const QUANTIZATION_VERSION: u32 = 2;

/// The name of a model without its organisation.
fn short(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, name)| name)
}

/// The name of a model as that of a file, without an ending.
pub(super) fn stem(name: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    let stem: String = short(name)
        .chars()
        .map(|c| if plain(c) { c } else { '-' })
        .collect();
    match stem.trim_start_matches('.') {
        "" => "model".to_owned(),
        stem => stem.to_owned(),
    }
}

/// All keys of a file with these tensors.
///
/// # Errors
/// Those of [`tokenizer`].
pub(super) fn metadata(
    cut: &Cut<'_>,
    gguf: &Gguf,
    topology: &Topology,
    weights: UqffWeights,
    tensors: &[Info],
) -> Result<Metadata> {
    let mut metadata = Metadata::default();
    metadata.set(ARCHITECTURE, gguf.architecture);
    metadata.set("general.type", "model");
    metadata.set(NAME, name(cut));
    metadata.set(SIZE, size_label(topology, tensors));
    metadata.set(FILE_TYPE, file_type(weights, tensors));
    metadata.set("general.quantization_version", QUANTIZATION_VERSION);
    let tokenizer = tokenizer(cut, topology)?;
    for (key, value) in (gguf.keys)(topology).into_iter().chain(tokenizer) {
        metadata.set(key, value);
    }
    Ok(metadata)
}

/// What the model is called, which says if something is gone.
pub(super) fn name(cut: &Cut<'_>) -> String {
    let name = cut.checkpoint.name();
    let name = short(&name);
    match cut.keep.is_identity(cut.topology) {
        true => name.to_owned(),
        false => format!("{name}-pruned"),
    }
}

/// As llama.cpp's converter says how large a model is: experts, and what one
/// of them has together with everything that is not an expert: `128x1.3B`.
pub(super) fn size_label(topology: &Topology, tensors: &[Info]) -> String {
    let mut expert = 0.0;
    let mut shared = 0.0;
    for tensor in tensors {
        let elements = tensor.shape.iter().product::<usize>() as f64;
        if tensor.name.contains("_exps.") {
            expert += elements / tensor.shape[0] as f64;
        } else {
            shared += elements;
        }
    }
    let parameters = rounded(shared + expert);
    match topology.max_experts() {
        0 => parameters,
        experts => format!("{experts}x{parameters}"),
    }
}

/// Two digits at the least: `1.3B`, `128M`.
fn rounded(parameters: f64) -> String {
    let (scaled, unit) = match parameters {
        p if p > 1e12 => (p / 1e12, 'T'),
        p if p > 1e9 => (p / 1e9, 'B'),
        p if p > 1e6 => (p / 1e6, 'M'),
        p => (p / 1e3, 'K'),
    };
    let digits = if scaled.round() < 10.0 { 1 } else { 0 };
    format!("{scaled:.digits$}{unit}")
}

/// llama.cpp's number of the type that most matrices have.
fn file_type(weights: UqffWeights, tensors: &[Info]) -> u32 {
    use candle_core::quantized::GgmlDType;
    match weights {
        UqffWeights::Float => {
            let experts = tensors.iter().find(|tensor| tensor.name.contains("_exps."));
            match experts.map(|tensor| tensor.element) {
                Some(GgmlDType::F16) => 1,
                Some(GgmlDType::BF16) => 32,
                _ => 0,
            }
        }
        UqffWeights::Q8_0 => 7,
        UqffWeights::Q2K => 10,
        UqffWeights::Q3K => 11,
        UqffWeights::Q4K => 14,
        UqffWeights::Q5K => 16,
        UqffWeights::Q6K => 18,
    }
}

/// The keys of the tokenizer.
///
/// # Errors
/// [`StatsError::NoTokenizer`] if there is none, and
/// [`StatsError::Untranslated`] if llama.cpp has no such tokenizer.
pub(super) fn tokenizer(cut: &Cut<'_>, topology: &Topology) -> Result<Vec<(String, Value)>> {
    let dir = cut.checkpoint.dir();
    let path = dir.join("tokenizer.json");
    let tokenizer = read(&path)?;
    if tokenizer.is_null() {
        return Err(StatsError::NoTokenizer {
            path: dir.to_path_buf(),
        }
        .into());
    }
    let template = ChatTemplate::read(dir)?;
    let sources = Sources {
        tokenizer: &tokenizer,
        tokenizer_config: &read(&dir.join("tokenizer_config.json"))?,
        config: cut.checkpoint.config().value(),
        generation: &read(&dir.join("generation_config.json"))?,
        template: template.as_ref().map(ChatTemplate::source),
        vocab: topology.vocab,
    };
    Ok(tokenizer_metadata(&sources).map_err(|it| it.at(&path))?)
}

/// A JSON file; null if it is not there.
fn read(path: &Path) -> Result<Json> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Json::Null),
        Err(error) => return Err(StatsError::io(path)(error).into()),
    };
    Ok(
        serde_json::from_slice(&text).map_err(|source| StatsError::Json {
            path: path.to_path_buf(),
            source,
        })?,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_two_digits() {
        for (parameters, label) in [
            (1_340_000_000.0, "1.3B"),
            (46_700_000_000.0, "47B"),
            (9_970_000.0, "10M"),
            (128_400_000.0, "128M"),
            (2_040.0, "2.0K"),
        ] {
            assert_eq!(rounded(parameters), label);
        }
    }

    #[test]
    fn names_lose_their_organisation() {
        assert_eq!(short("Qwen/Qwen3-30B-A3B"), "Qwen3-30B-A3B");
        assert_eq!(short("demo"), "demo");
        assert_eq!(stem("org/Qwen3 30B.A3B"), "Qwen3-30B.A3B");
        assert_eq!(stem("../.."), "model");
    }
}
