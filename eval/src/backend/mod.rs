//! What answers an evaluation: a masked native forward pass, a server, an
//! engine.
//!
//! A backend takes token ids and gives log-probabilities or greedy
//! continuations. It owns how a model is run. It does not own how text becomes
//! requests ([`Encoder`]), nor what is asked ([`crate::task`]).

mod http;
mod native;
mod pair;
mod stop;
#[cfg(test)]
pub(crate) mod testing;

use router_stats::progress::Progress;
use tokenizers::Tokenizer;

pub use http::{Http, HttpOptions};
pub use native::Native;
pub use pair::{Encoder, Pair};
pub use stop::before_stop;

use crate::{Error, Result};

/// One token of a scored sequence, given all before it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenScore {
    /// Natural logarithm of its probability; at most 0.
    pub ln_p: f32,
    /// Whether it is the most probable token; of several, the lowest id is.
    pub greedy: bool,
}

/// What to continue, and how far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    /// At least one token.
    pub tokens: Vec<u32>,
    /// Strings that end the continuation; none is empty.
    pub stop: Vec<String>,
    /// Most tokens to generate.
    pub max_tokens: usize,
}

/// Why a generation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// A stop string or an end-of-text token came.
    Stop,
    /// [`Prompt::max_tokens`] were generated.
    Length,
}

/// A greedy continuation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// Decoded text without special tokens, up to the stop string, which is
    /// left out.
    pub text: String,
    /// Generated tokens, those of the stop string and the end-of-text token
    /// included.
    pub tokens: usize,
    /// Why it ended.
    pub finish: Finish,
}

/// What answers evaluations.
pub trait Backend {
    /// Turns text into the model's tokens.
    fn tokenizer(&self) -> &Tokenizer;

    /// Tokens that end a text. The first also stands before a text that has
    /// no context.
    fn end_of_text(&self) -> &[u32];

    /// Scores of every token but the first of each sequence, in order. A
    /// sequence has at least two tokens.
    ///
    /// # Errors
    /// What running the model can give, an interruption included.
    fn score(
        &mut self,
        sequences: &[Vec<u32>],
        progress: &dyn Progress,
    ) -> Result<Vec<Vec<TokenScore>>>;

    /// The greedy continuation (temperature 0) of every prompt, in order. It
    /// ends at a stop string, an end-of-text token or `max_tokens`.
    ///
    /// # Errors
    /// What running the model can give, an interruption included.
    fn generate(&mut self, prompts: &[Prompt], progress: &dyn Progress) -> Result<Vec<Generation>>;
}

/// Refuses a token list that is too short to run.
fn at_least<'a>(least: usize, lists: impl Iterator<Item = &'a Vec<u32>>) -> Result<()> {
    for (index, tokens) in lists.enumerate() {
        if tokens.len() < least {
            return Err(Error::Backend {
                name: format!("sequence {index}"),
                expected: format!("at least {least} tokens"),
                found: tokens.len().to_string(),
                advice: None,
            });
        }
    }
    Ok(())
}
