//! The native forward pass, a plan applied as a mask.
//!
//! There is no key-value cache: a score is one pass over a sequence, and every
//! generated token is a pass over all of its prompt and what was generated
//! before, for all unfinished prompts together. Every pass reads the weights
//! once per [`HIDDEN_BYTES`] of hidden states. Short answers of small models
//! are cheap; long ones of large models belong to an engine.

mod progress;

use candle_core::{DType, Tensor};
use rayon::prelude::*;
use router_stats::calibration::Sequences;
use router_stats::forward::Head;
use router_stats::progress::{Progress, Update};
use tokenizers::Tokenizer;

use progress::{Part, Stop};

use super::{before_stop, Backend, Finish, Generation, Prompt, TokenScore};
use crate::distribution::{top, Distribution};
use crate::evaluate::Variant;
use crate::{Error, Result};

/// Bytes of final hidden states that are held at once.
const HIDDEN_BYTES: usize = 512 << 20;
/// Bytes of logits that are formed at once.
const LOGIT_BYTES: usize = 64 << 20;

/// See the module documentation.
pub struct Native<'a> {
    variant: &'a Variant<'a>,
    tokenizer: Tokenizer,
    end_of_text: Vec<u32>,
    batch_tokens: usize,
}

impl<'a> Native<'a> {
    /// Answers for `variant`, `batch_tokens` tokens going through a block at
    /// once.
    pub fn new(
        variant: &'a Variant<'a>,
        tokenizer: Tokenizer,
        end_of_text: &[u32],
        batch_tokens: usize,
    ) -> Self {
        Self {
            variant,
            tokenizer,
            end_of_text: end_of_text.to_vec(),
            batch_tokens: batch_tokens.max(1),
        }
    }

    /// Runs `sequences` a part at a time, and gives `take` the final-norm
    /// hidden states [tokens, H] of each with its index.
    fn run(
        &self,
        sequences: &[Vec<u32>],
        progress: &dyn Progress,
        mut take: impl FnMut(usize, &Tensor) -> Result<()>,
    ) -> Result<()> {
        let hidden = self.variant.model.topology().hidden;
        let most = (HIDDEN_BYTES / size_of::<f32>() / hidden).max(self.batch_tokens);
        let all = sequences.iter().map(Vec::len).sum::<usize>() as u64;
        let mut before = 0;
        for part in parts(sequences, most) {
            let packed = pack(&sequences[part.clone()]);
            let part_progress = Part {
                progress,
                before,
                all,
            };
            let states = self.variant.model.hidden_states(
                &packed,
                self.variant.keep.as_ref(),
                self.batch_tokens,
                &part_progress,
            )?;
            for (batch, states) in packed.batches(self.batch_tokens).into_iter().zip(&states) {
                let first = packed.starts[batch.start];
                for sequence in batch {
                    let (start, end) = (packed.starts[sequence], packed.starts[sequence + 1]);
                    let rows = states.narrow(0, start - first, end - start)?;
                    take(part.start + sequence, &rows)?;
                }
            }
            before += packed.tokens.len() as u64;
        }
        Ok(())
    }

    /// Logits [n · V] of hidden states [n, H].
    fn logits(&self, head: &Head, hidden: &Tensor) -> Result<Vec<f32>> {
        let logits = self.variant.model.logits(head, hidden)?;
        Ok(logits.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
    }

    fn not_finite(&self, sequence: usize, position: usize) -> Error {
        Error::NonFinite {
            model: self.variant.name.clone(),
            sequence,
            position,
        }
    }

    /// Scores of the tokens after the first, from hidden states [tokens, H].
    fn scores(
        &self,
        head: &Head,
        sequence: usize,
        tokens: &[u32],
        hidden: &Tensor,
    ) -> Result<Vec<TokenScore>> {
        let vocab = self.variant.model.topology().vocab;
        let chunk = (LOGIT_BYTES / size_of::<f32>() / vocab).max(1);
        let targets = &tokens[1..];
        let mut scores = Vec::with_capacity(targets.len());
        for (index, targets) in targets.chunks(chunk).enumerate() {
            let start = index * chunk;
            let mut logits = self.logits(head, &hidden.narrow(0, start, targets.len())?)?;
            let found: Vec<TokenScore> = logits
                .par_chunks_mut(vocab)
                .zip(targets)
                .enumerate()
                .map(|(row, (logits, &target))| {
                    let distribution = Distribution::new(logits, target as usize)
                        .ok_or_else(|| self.not_finite(sequence, start + row))?;
                    Ok(TokenScore {
                        ln_p: -distribution.nll() as f32,
                        greedy: distribution.top() == target as usize,
                    })
                })
                .collect::<Result<_>>()?;
            scores.extend(found);
        }
        Ok(scores)
    }

    /// The most probable successor of every sequence.
    fn next(
        &self,
        head: &Head,
        sequences: &[Vec<u32>],
        progress: &dyn Progress,
    ) -> Result<Vec<u32>> {
        let mut next = vec![0; sequences.len()];
        self.run(sequences, progress, |sequence, hidden| {
            let last = sequences[sequence].len() - 1;
            let logits = self.logits(head, &hidden.narrow(0, last, 1)?)?;
            next[sequence] = top(&logits).ok_or_else(|| self.not_finite(sequence, last))? as u32;
            Ok(())
        })?;
        Ok(next)
    }

    /// The continuation, if these generated tokens end it.
    fn finished(&self, prompt: &Prompt, generated: &[u32]) -> Result<Option<Generation>> {
        let (finish, own) = match generated.split_last() {
            Some((last, before)) if self.end_of_text.contains(last) => (Finish::Stop, before),
            _ => (Finish::Length, generated),
        };
        let ended = finish == Finish::Stop || generated.len() >= prompt.max_tokens;
        if !ended && prompt.stop.is_empty() {
            return Ok(None);
        }
        let text = self.tokenizer.decode(own, true).map_err(Error::tokenizer)?;
        let (text, finish, ended) = match before_stop(&text, &prompt.stop) {
            Some(before) => (before.to_owned(), Finish::Stop, true),
            None => (text, finish, ended),
        };
        Ok(ended.then_some(Generation {
            text,
            tokens: generated.len(),
            finish,
        }))
    }
}

impl Backend for Native<'_> {
    fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    fn end_of_text(&self) -> &[u32] {
        &self.end_of_text
    }

    fn score(
        &mut self,
        sequences: &[Vec<u32>],
        progress: &dyn Progress,
    ) -> Result<Vec<Vec<TokenScore>>> {
        super::at_least(2, sequences.iter())?;
        let head = self.variant.model.head()?;
        let mut scores = Vec::with_capacity(sequences.len());
        self.run(sequences, progress, |sequence, hidden| {
            scores.push(self.scores(&head, sequence, &sequences[sequence], hidden)?);
            Ok(())
        })?;
        Ok(scores)
    }

    fn generate(&mut self, prompts: &[Prompt], progress: &dyn Progress) -> Result<Vec<Generation>> {
        super::at_least(1, prompts.iter().map(|prompt| &prompt.tokens))?;
        let head = self.variant.model.head()?;
        let mut sequences: Vec<Vec<u32>> =
            prompts.iter().map(|prompt| prompt.tokens.clone()).collect();
        let mut done: Vec<Option<Generation>> = prompts
            .iter()
            .map(|prompt| self.finished(prompt, &[]))
            .collect::<Result<_>>()?;
        loop {
            let open: Vec<usize> = (0..prompts.len())
                .filter(|&prompt| done[prompt].is_none())
                .collect();
            progress.step(&Update {
                stage: "Generating",
                detail: "",
                unit: "answers",
                done: (prompts.len() - open.len()) as u64,
                total: prompts.len() as u64,
            })?;
            if open.is_empty() {
                break;
            }
            let running: Vec<Vec<u32>> = open
                .iter()
                .map(|&prompt| sequences[prompt].clone())
                .collect();
            let next = self.next(&head, &running, &Stop(progress))?;
            for (&index, token) in open.iter().zip(next) {
                sequences[index].push(token);
                let prompt = &prompts[index];
                let generated = &sequences[index][prompt.tokens.len()..];
                done[index] = self.finished(prompt, generated)?;
            }
        }
        Ok(done.into_iter().flatten().collect())
    }
}

/// Consecutive ranges of at most `most` tokens, or of one longer sequence.
fn parts(sequences: &[Vec<u32>], most: usize) -> Vec<std::ops::Range<usize>> {
    let mut parts: Vec<std::ops::Range<usize>> = Vec::new();
    let mut tokens = 0;
    for (index, sequence) in sequences.iter().enumerate() {
        tokens += sequence.len();
        match parts.last_mut() {
            Some(part) if tokens <= most => part.end = index + 1,
            _ => {
                parts.push(index..index + 1);
                tokens = sequence.len();
            }
        }
    }
    parts
}

/// Sequences as the forward pass takes them.
fn pack(sequences: &[Vec<u32>]) -> Sequences {
    let mut starts = vec![0];
    for sequence in sequences {
        starts.push(starts[starts.len() - 1] + sequence.len());
    }
    Sequences {
        tokens: sequences.concat(),
        starts,
        domains: vec![0; sequences.len()],
        names: vec![String::new()],
        weights: vec![1.0],
        document: (0..sequences.len() as u32).collect(),
        documents: vec![sequences.len() as u64],
        seq_len: sequences.iter().map(Vec::len).max().unwrap_or(0),
        seed: 0,
        hash: String::new(),
    }
}

#[cfg(test)]
mod tests;
