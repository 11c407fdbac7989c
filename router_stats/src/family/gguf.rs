//! How llama.cpp stores families.
//!
//! Owns the names of tensors both ways and what the keys of all families have
//! in common; each family's file has its [`Gguf`]. The format is read and
//! written by [`crate::gguf`]. Checked against llama.cpp as of llama-cpp-python
//! 0.3.36.

mod keys;
mod names;
#[cfg(test)]
mod tests;

use std::path::Path;

use serde_json::json;

pub use names::Stored;
pub(super) use names::{ATTENTION, DENSE, NORMS, QK_NORMS};

pub use keys::Refusal;
pub(super) use keys::{
    count, expert_keys, expert_width, grouped_config, grouped_keys, plain_attention, plain_softmax,
    shared_heads, NO_DENSE_LAYERS, SIGMOID,
};

use super::{Config, Family, Pairs, Projection, Topology, FAMILIES};
pub(super) use crate::gguf::Value;
use crate::gguf::{Metadata, Unusable};
use crate::{Error, Result};

/// Key of the architecture.
pub const ARCHITECTURE: &str = "general.architecture";

/// How llama.cpp stores a family.
#[derive(Debug)]
pub struct Gguf {
    /// What it calls the family: `qwen3moe`.
    pub architecture: &'static str,
    /// Modules of a block, ours and theirs: `self_attn.q_proj`, `attn_q`. What
    /// follows, `.weight` or `.bias`, is the same on both sides.
    pub modules: &'static [&'static [(&'static str, &'static str)]],
    /// Which dimensions of a head turn together: if others than in the model,
    /// rows of the query and key projections are stored in another order.
    pub pairs: Pairs,
    /// Why a model of this structure is not what llama.cpp would compute, if so.
    pub refuses: fn(&Topology) -> Option<Refusal>,
    /// Keys of the architecture, from the structure.
    pub keys: fn(&Topology) -> Vec<(String, Value)>,
    /// The `config.json` that the keys amount to, but for what
    /// [`config`](Self::config) adds.
    pub(super) read: fn(&Metadata, &Has<'_>) -> Result<serde_json::Value, Unusable>,
}

/// Whether a file has a tensor called so.
pub(super) type Has<'a> = dyn Fn(&str) -> bool + 'a;

/// Stem of the stack of one projection of all experts of a block, a suffix of
/// which each expert's own tensor has in old files.
pub(super) fn stack(projection: Projection) -> &'static str {
    match projection {
        Projection::Gate => "ffn_gate",
        Projection::Up => "ffn_up",
        Projection::Down => "ffn_down",
    }
}

impl Gguf {
    /// The key called `name` of this architecture: `qwen3moe.block_count`.
    pub fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    /// The `config.json` that a file amounts to. `shape` is the row-major shape
    /// of one of its tensors, by llama.cpp's name.
    ///
    /// # Errors
    /// [`Unusable`] for the first key that is absent or cannot be used.
    pub fn config<'a>(
        &self,
        metadata: &Metadata,
        shape: impl Fn(&str) -> Option<&'a [usize]>,
    ) -> Result<serde_json::Value, Unusable> {
        let mut config = (self.read)(metadata, &|name| shape(name).is_some())?;
        let embedding = shape("token_embd.weight").map(<[usize]>::to_vec);
        let Some([vocab, _]) = embedding.as_deref() else {
            return Err(Unusable {
                key: "token_embd.weight".to_owned(),
                expected: "the embedding, a matrix".to_owned(),
                found: embedding.map_or_else(|| "nothing".to_owned(), |it| format!("{it:?}")),
            });
        };
        config["vocab_size"] = json!(vocab);
        config["tie_word_embeddings"] = json!(shape("output.weight").is_none());
        for (theirs, ours) in [
            ("tokenizer.ggml.bos_token_id", "bos_token_id"),
            ("tokenizer.ggml.eos_token_id", "eos_token_id"),
            ("tokenizer.ggml.padding_token_id", "pad_token_id"),
        ] {
            if let Some(id) = metadata.get(theirs).and_then(Value::natural) {
                config[ours] = json!(id);
            }
        }
        Ok(config)
    }
}

/// The family of a file, and the configuration it amounts to. `shape` is as in
/// [`Gguf::config`]; `path` is only used in errors.
///
/// # Errors
/// [`Error::UnknownFamily`] if llama.cpp's architecture is of no family that is
/// read; [`Error::Config`] for a key that cannot be used.
pub fn config_of<'a>(
    path: &Path,
    metadata: &Metadata,
    shape: impl Fn(&str) -> Option<&'a [usize]>,
) -> Result<(&'static Gguf, Config)> {
    let architecture = metadata.text(ARCHITECTURE).map_err(|it| it.at(path))?;
    let gguf = known().find(|gguf| gguf.architecture == architecture);
    let Some(gguf) = gguf else {
        let mut known: Vec<_> = known().map(|gguf| gguf.architecture).collect();
        known.dedup();
        return Err(Error::UnknownFamily {
            path: path.to_path_buf(),
            found: architecture.to_owned(),
            known: known.join(", "),
        });
    };
    let config = gguf.config(metadata, shape).map_err(|it| it.at(path))?;
    Ok((gguf, Config::new(path, config)?))
}

/// Every family that llama.cpp has and this build reads and writes.
fn known() -> impl Iterator<Item = &'static Gguf> {
    FAMILIES.iter().copied().filter_map(Family::gguf)
}
