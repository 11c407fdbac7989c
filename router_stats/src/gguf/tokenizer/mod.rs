//! Tokenizers as GGUF has them, and as `tokenizer.json` does.
//!
//! Two kinds are translated, both ways. `gpt2` is byte-level BPE: tokens, kinds
//! and merges are data, but how text is split into words first is one of a list
//! that llama.cpp has built in; see [`pre`]. `llama` is what SentencePiece's BPE
//! amounts to: pieces with scores; see [`pieces`]. Anything else is refused, so
//! that no text is ever split another way than the model learnt.
//!
//! Two things GGUF cannot say, as for every file of these models: llama.cpp does
//! not bring text into NFC first; and where [`pieces`] have a space before the
//! first word, it puts one before text that begins with a space, and after every
//! special token, too.

mod from;
mod pieces;
mod pre;
#[cfg(test)]
mod tests;
mod to;

use std::path::Path;

use serde_json::Value as Json;
use tokenizers::Tokenizer;

use super::{Metadata, Value};
use crate::Error;

/// Why a tokenizer cannot be translated, as a clause.
#[derive(Debug, Clone, PartialEq)]
pub struct Untranslated(pub String);

impl Untranslated {
    /// The public error about the file at `path`.
    pub fn at(self, path: &Path) -> Error {
        Error::Untranslated {
            path: path.to_path_buf(),
            reason: self.0,
        }
    }
}

fn refuse<T>(reason: impl Into<String>) -> Result<T, Untranslated> {
    Err(Untranslated(reason.into()))
}

/// The files of a checkpoint that say how text becomes tokens; absent ones are
/// null.
#[derive(Debug, Clone, Copy)]
pub struct Sources<'a> {
    /// `tokenizer.json`.
    pub tokenizer: &'a Json,
    /// `tokenizer_config.json`.
    pub tokenizer_config: &'a Json,
    /// `config.json`.
    pub config: &'a Json,
    /// `generation_config.json`.
    pub generation: &'a Json,
    /// The chat template.
    pub template: Option<&'a str>,
    /// Rows of the embedding.
    pub vocab: usize,
}

/// The keys `tokenizer.*` of a file.
///
/// # Errors
/// [`Untranslated`] if llama.cpp has no such tokenizer.
pub fn tokenizer_metadata(sources: &Sources<'_>) -> Result<Vec<(String, Value)>, Untranslated> {
    to::metadata(sources)
}

/// The `tokenizer.json` that the keys `tokenizer.*` of a file amount to.
///
/// # Errors
/// [`Untranslated`] for a kind of tokenizer that is not read, or keys that
/// contradict each other.
pub fn tokenizer_json(metadata: &Metadata) -> Result<Json, Untranslated> {
    from::json(metadata)
}

/// The tokenizer of a file.
///
/// # Errors
/// Those of [`tokenizer_json`].
pub fn tokenizer(metadata: &Metadata) -> Result<Tokenizer, Untranslated> {
    let json = tokenizer_json(metadata)?;
    serde_json::from_value(json).or_else(|error| refuse(format!("it does not load: {error}")))
}

/// Kinds of tokens, by llama.cpp's numbers.
mod kind {
    pub(super) const NORMAL: i32 = 1;
    pub(super) const UNKNOWN: i32 = 2;
    pub(super) const CONTROL: i32 = 3;
    pub(super) const USER_DEFINED: i32 = 4;
    pub(super) const UNUSED: i32 = 5;
    pub(super) const BYTE: i32 = 6;
}

/// Keys of a file.
mod key {
    pub(super) const MODEL: &str = "tokenizer.ggml.model";
    pub(super) const PRE: &str = "tokenizer.ggml.pre";
    pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";
    pub(super) const KINDS: &str = "tokenizer.ggml.token_type";
    pub(super) const SCORES: &str = "tokenizer.ggml.scores";
    pub(super) const MERGES: &str = "tokenizer.ggml.merges";
    pub(super) const BOS: &str = "tokenizer.ggml.bos_token_id";
    pub(super) const EOS: &str = "tokenizer.ggml.eos_token_id";
    pub(super) const EOT: &str = "tokenizer.ggml.eot_token_id";
    pub(super) const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
    pub(super) const PADDING: &str = "tokenizer.ggml.padding_token_id";
    pub(super) const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
    pub(super) const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
    pub(super) const ADD_SPACE: &str = "tokenizer.ggml.add_space_prefix";
    pub(super) const TEMPLATE: &str = "tokenizer.chat_template";
}
