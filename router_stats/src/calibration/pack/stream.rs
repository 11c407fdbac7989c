//! One domain's documents to one stream of tokens, no longer than asked for.

use std::borrow::Cow;
use std::ops::Range;
use std::path::PathBuf;

use rand::seq::SliceRandom;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;
use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;

use super::super::Domain;
use crate::{Error, Result};

/// Bytes of text that give a token with any usual vocabulary; more text than
/// this times the tokens wanted is only tokenised if that was not enough.
const BYTES_PER_TOKEN: usize = 16;

/// Tokens of a domain, and which document each is of.
pub(super) struct Stream {
    pub(super) tokens: Vec<u32>,
    /// Where each document ends, its separator included. Every document gave
    /// at least one token; the last may end beyond `tokens`.
    pub(super) ends: Vec<usize>,
}

impl Stream {
    /// The document that most of these tokens are of, the earliest of several.
    pub(super) fn document(&self, window: &Range<usize>) -> u32 {
        let first = self.ends.partition_point(|&end| end <= window.start);
        let (mut document, mut most, mut start) = (first, 0, window.start);
        for (index, &end) in self.ends.iter().enumerate().skip(first) {
            let own = end.min(window.end) - start;
            if own > most {
                (document, most) = (index, own);
            }
            if end >= window.end {
                break;
            }
            start = end;
        }
        document as u32
    }
}

/// The tokenizer without the truncation and padding that some
/// `tokenizer.json` files ask for: both would change what is measured.
pub(super) fn unlimited(tokenizer: &Tokenizer) -> Result<Cow<'_, Tokenizer>> {
    if tokenizer.get_truncation().is_none() && tokenizer.get_padding().is_none() {
        return Ok(Cow::Borrowed(tokenizer));
    }
    let mut unlimited = tokenizer.clone();
    unlimited.with_padding(None);
    unlimited.with_truncation(None).map_err(tokenizer_error)?;
    Ok(Cow::Owned(unlimited))
}

/// The first `budget` tokens of the shuffled, joined documents.
pub(super) fn take(
    domain: &Domain,
    tokenizer: &Tokenizer,
    separator: Option<u32>,
    budget: usize,
    seed: u64,
) -> Result<Stream> {
    let mut order: Vec<&str> = domain.documents.iter().map(String::as_str).collect();
    order.shuffle(&mut generator(seed, &domain.name));

    let mut stream = Stream {
        tokens: Vec::new(),
        ends: Vec::new(),
    };
    let mut rest = order.as_slice();
    while stream.tokens.len() < budget && !rest.is_empty() {
        let wanted = budget - stream.tokens.len();
        let (batch, later) = rest.split_at(batch_len(rest, wanted));
        rest = later;
        let encoded: Vec<Result<Vec<u32>>> = batch
            .par_iter()
            .map(|text| encode(tokenizer, text, wanted))
            .collect();
        for document in encoded {
            let document = document?;
            if stream.tokens.len() >= budget || document.is_empty() {
                continue;
            }
            stream.tokens.extend(document);
            stream.tokens.extend(separator);
            stream.ends.push(stream.tokens.len());
        }
    }
    stream.tokens.truncate(budget);
    Ok(stream)
}

/// How many documents to tokenise next: about enough at four bytes a token,
/// never none.
fn batch_len(documents: &[&str], wanted: usize) -> usize {
    let mut bytes = wanted.saturating_mul(4);
    let enough = documents.iter().position(|text| {
        bytes = bytes.saturating_sub(text.len());
        bytes == 0
    });
    enough.map_or(documents.len(), |last| last + 1)
}

/// At least the first `wanted` tokens of a text, or all there are.
fn encode(tokenizer: &Tokenizer, text: &str, wanted: usize) -> Result<Vec<u32>> {
    let ids = |text: &str| {
        let encoding = tokenizer
            .encode_fast(text, false)
            .map_err(tokenizer_error)?;
        Ok::<_, Error>(encoding.get_ids().to_vec())
    };
    let prefix = prefix(text, wanted.saturating_mul(BYTES_PER_TOKEN));
    let tokens = ids(prefix)?;
    // Twice as many as wanted: the cut only disturbs the last few.
    if prefix.len() == text.len() || tokens.len() >= wanted.saturating_mul(2) {
        return Ok(tokens);
    }
    ids(text)
}

/// The longest prefix of at most `bytes` bytes.
fn prefix(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len()))
        .rev()
        .find(|&end| text.is_char_boundary(end));
    &text[..end.unwrap_or(0)]
}

fn generator(seed: u64, name: &str) -> ChaCha8Rng {
    let digest = Sha256::new()
        .chain_update(seed.to_le_bytes())
        .chain_update(name.as_bytes())
        .finalize();
    ChaCha8Rng::from_seed(digest.into())
}

fn tokenizer_error(error: tokenizers::Error) -> Error {
    Error::Tokenizer {
        path: PathBuf::from("tokenizer.json"),
        reason: error.to_string(),
    }
}
