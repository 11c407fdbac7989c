//! What candidates are measured on, and against.

use prune_eval::{EvalOptions, Variant};
use router_stats::calibration::Sequences;
use router_stats::forward::Model;

use super::Header;
use crate::Result;

/// A model and calibration text, packed.
pub struct SearchText<'a> {
    /// The model as it is.
    pub(super) reference: Variant<'a>,
    /// The text.
    pub(super) sequences: Sequences,
    /// Size of batches; nothing is resampled.
    pub(super) options: EvalOptions,
    tokenizer: String,
}

impl<'a> SearchText<'a> {
    /// Measures what is left of `model` on `sequences`, whose weights are those
    /// of the mixture. `tokenizer` is a hash of what made them of text.
    pub fn new(model: &'a Model, sequences: Sequences, tokenizer: &str) -> Self {
        Self {
            reference: Variant {
                name: "the model".to_owned(),
                model,
                keep: None,
            },
            sequences,
            options: EvalOptions::default(),
            tokenizer: tokenizer.to_owned(),
        }
    }

    /// Tokens over all domains.
    pub fn tokens(&self) -> usize {
        self.sequences.tokens.len()
    }

    /// Hash of the token stream.
    pub fn hash(&self) -> &str {
        &self.sequences.hash
    }

    /// What a measurement depends on beside the candidate.
    ///
    /// # Errors
    /// If the checkpoint's tensor list cannot be read.
    pub fn header(&self) -> Result<Header> {
        let domains = self.sequences.names.iter().cloned();
        Ok(Header {
            journal: super::journal::VERSION,
            model: self.reference.model.checkpoint().fingerprint()?,
            tokenizer: self.tokenizer.clone(),
            text: self.sequences.hash.clone(),
            weights: domains
                .zip(self.sequences.weights.iter().copied())
                .collect(),
        })
    }
}
