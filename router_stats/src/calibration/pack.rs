//! Packing documents into token sequences under a budget.
//!
//! Sequences are ragged: no padding is ever stored, so none has to be masked
//! out of the statistics. Reading text belongs to [`super::Corpus`].

mod select;
mod stream;

use std::ops::Range;

use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;

use super::Corpus;
use crate::{Error, Result};

/// Fewest tokens a sequence is worth running for: one predicts another.
const SHORTEST: usize = 2;

/// How much text to take, and in which pieces.
#[derive(Debug, Clone, PartialEq)]
pub struct PackOptions {
    /// Tokens in a sequence, at most.
    pub seq_len: usize,
    /// Tokens over all domains, at most; every domain gets an equal part of it.
    /// A domain with less text gives what it has, and the rest stays unused.
    pub tokens: usize,
    /// Seed of the order of documents.
    pub seed: u64,
}

/// Token sequences of one or more domains, interleaved.
#[derive(Debug, Clone, PartialEq)]
pub struct Sequences {
    /// Tokens of all sequences, one after another.
    pub tokens: Vec<u32>,
    /// Where each sequence starts in `tokens`, and at last where they end.
    pub starts: Vec<usize>,
    /// Domain of each sequence, an index into `names`.
    pub domains: Vec<u16>,
    /// Document of each sequence: the index, in the order of its domain, of
    /// the document that most of its tokens are of, the earlier of two. What
    /// a model is measured by does not depend on it; sequences of one document
    /// are alike, which matters to a comparison.
    pub document: Vec<u32>,
    /// Names of the domains.
    pub names: Vec<String>,
    /// Share of each domain in the mixture, relative to the others.
    pub weights: Vec<f64>,
    /// Documents of each domain that gave at least one token.
    pub documents: Vec<u64>,
    /// Tokens in a sequence, at most.
    pub seq_len: usize,
    /// Seed of the order of documents.
    pub seed: u64,
    /// Hex SHA-256 of the settings, the domains' names and every sequence with
    /// its domain. Weights and the document of a sequence are left out: no
    /// token depends on them.
    pub hash: String,
}

impl Sequences {
    /// Tokenises and packs a corpus.
    ///
    /// Per domain, documents are shuffled (ChaCha8 seeded by the seed and the
    /// domain's name), joined with `separator` after each, and cut into windows
    /// of `seq_len` tokens up to the domain's part of the budget; a last window
    /// of one token is dropped. Text is tokenised without adding special
    /// tokens, special tokens in it are recognised, and no more of it is
    /// tokenised than the budget needs. The result depends on the arguments
    /// alone, not on the number of threads.
    ///
    /// # Errors
    /// [`Error::Structure`] for a sequence length or a budget that holds no
    /// sequence, [`Error::TooLittleText`] for a corpus without domains or a
    /// domain without a sequence, [`Error::Tokenizer`].
    pub fn pack(
        corpus: &Corpus,
        tokenizer: &Tokenizer,
        separator: Option<u32>,
        options: &PackOptions,
    ) -> Result<Self> {
        let budgets = budgets(corpus.domains.len(), options)?;
        let tokenizer = stream::unlimited(tokenizer)?;
        let mut streams = Vec::with_capacity(budgets.len());
        for (domain, budget) in corpus.domains.iter().zip(budgets) {
            let stream = stream::take(domain, &tokenizer, separator, budget, options.seed)?;
            if stream.tokens.len() < SHORTEST {
                return Err(Error::TooLittleText {
                    what: format!("domain `{}`", domain.name),
                    expected: SHORTEST,
                    found: stream.tokens.len(),
                });
            }
            streams.push(stream);
        }

        let mut packed = Self {
            tokens: Vec::with_capacity(streams.iter().map(|stream| stream.tokens.len()).sum()),
            starts: vec![0],
            domains: Vec::new(),
            document: Vec::new(),
            names: corpus
                .domains
                .iter()
                .map(|domain| domain.name.clone())
                .collect(),
            weights: corpus.domains.iter().map(|domain| domain.weight).collect(),
            documents: streams
                .iter()
                .map(|stream| stream.ends.len() as u64)
                .collect(),
            seq_len: options.seq_len,
            seed: options.seed,
            hash: String::new(),
        };
        for (domain, window) in interleave(&streams, options.seq_len) {
            let stream = &streams[usize::from(domain)];
            packed
                .tokens
                .extend_from_slice(&stream.tokens[window.clone()]);
            packed.starts.push(packed.tokens.len());
            packed.domains.push(domain);
            packed.document.push(stream.document(&window));
        }
        packed.hash = packed.digest(separator, options.tokens);
        Ok(packed)
    }

    /// Number of sequences.
    pub fn len(&self) -> usize {
        self.domains.len()
    }

    /// Whether there is no sequence.
    pub fn is_empty(&self) -> bool {
        self.domains.is_empty()
    }

    /// Tokens of one sequence.
    ///
    /// # Panics
    /// If `index` is not below [`Sequences::len`].
    pub fn sequence(&self, index: usize) -> &[u32] {
        &self.tokens[self.starts[index]..self.starts[index + 1]]
    }

    /// Consecutive ranges of sequences that hold at most `tokens_per_batch`
    /// tokens each, or a single sequence where one alone holds more.
    pub fn batches(&self, tokens_per_batch: usize) -> Vec<Range<usize>> {
        batches(&self.starts, tokens_per_batch)
    }

    fn digest(&self, separator: Option<u32>, budget: usize) -> String {
        let mut hasher = Sha256::new();
        let separator = separator.map_or(u64::MAX, u64::from);
        let counts = [
            self.seq_len as u64,
            budget as u64,
            self.seed,
            separator,
            self.len() as u64,
        ];
        for count in counts {
            hasher.update(count.to_le_bytes());
        }
        for name in &self.names {
            hasher.update((name.len() as u64).to_le_bytes());
            hasher.update(name.as_bytes());
        }
        for (index, domain) in self.domains.iter().enumerate() {
            let sequence = self.sequence(index);
            hasher.update(domain.to_le_bytes());
            hasher.update((sequence.len() as u64).to_le_bytes());
            hasher.update(bytemuck::cast_slice(sequence));
        }
        format!("{:x}", hasher.finalize())
    }
}

/// [`Sequences::batches`] of sequences that begin at `starts`, which ends with
/// the number of tokens.
pub(crate) fn batches(starts: &[usize], tokens_per_batch: usize) -> Vec<Range<usize>> {
    let mut batches = Vec::new();
    let mut first = 0;
    for end in 1..starts.len() {
        let next = starts.get(end + 1);
        let full = next.is_none_or(|next| next - starts[first] > tokens_per_batch);
        if full {
            batches.push(first..end);
            first = end;
        }
    }
    batches
}

/// Equal parts of the budget, the first domains taking what does not divide.
fn budgets(domains: usize, options: &PackOptions) -> Result<Vec<usize>> {
    let structure = |what: &str, expected: String, found: usize| Error::Structure {
        what: what.to_owned(),
        expected,
        found: found.to_string(),
    };
    if domains == 0 {
        return Err(Error::TooLittleText {
            what: "corpus".to_owned(),
            expected: SHORTEST,
            found: 0,
        });
    }
    if domains > usize::from(u16::MAX) {
        return Err(structure(
            "number of domains",
            format!("at most {}", u16::MAX),
            domains,
        ));
    }
    if options.seq_len < SHORTEST {
        return Err(structure(
            "sequence length",
            format!("at least {SHORTEST}"),
            options.seq_len,
        ));
    }
    if options.tokens / domains < SHORTEST {
        let expected = format!("at least {} for {domains} domains", SHORTEST * domains);
        return Err(structure("token budget", expected, options.tokens));
    }
    let (part, rest) = (options.tokens / domains, options.tokens % domains);
    Ok((0..domains)
        .map(|index| part + usize::from(index < rest))
        .collect())
}

/// Windows of all streams, spread so that any prefix holds about the same
/// fraction of every domain.
fn interleave(streams: &[stream::Stream], seq_len: usize) -> Vec<(u16, Range<usize>)> {
    let mut windows = Vec::new();
    for (domain, stream) in (0u16..).zip(streams) {
        let end = stream.tokens.len();
        let own: Vec<Range<usize>> = (0..end)
            .step_by(seq_len)
            .map(|start| start..(start + seq_len).min(end))
            .filter(|window| window.len() >= SHORTEST)
            .collect();
        let count = own.len() as f64;
        let placed = own.into_iter().enumerate();
        windows
            .extend(placed.map(|(index, window)| ((index as f64 + 0.5) / count, domain, window)));
    }
    // Stable, so domains keep their order where places are equal.
    windows.sort_by(|left, right| left.0.total_cmp(&right.0));
    windows
        .into_iter()
        .map(|(_, domain, window)| (domain, window))
        .collect()
}

#[cfg(test)]
mod tests;
