//! Text to tokens, the way lm-evaluation-harness does it.
//!
//! Of a context and a continuation, white space at the end of the context is
//! moved to the continuation, because tokenizers join a space to the word that
//! follows. Both are tokenised together, and the continuation's tokens are
//! those after as many as the context alone has. Text is tokenised without
//! adding special tokens; special tokens in it are recognised.
//!
//! Source: `TemplateLM._encode_pair` and `TemplateLM.loglikelihood` of
//! `lm_eval/api/model.py`, lm-evaluation-harness 0.4.13. One difference: a
//! context of nothing but white space, on which the harness stops, counts here
//! as empty.

use tokenizers::Tokenizer;

use crate::{Error, Result};

/// Tokens of a context and the continuation to be scored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// Context, then continuation.
    pub tokens: Vec<u32>,
    /// How many tokens are of the context; at least one, and fewer than all.
    pub context: usize,
}

/// Tokenises requests for one model.
#[derive(Debug, Clone)]
pub struct Encoder {
    tokenizer: Tokenizer,
    prefix: Option<u32>,
}

impl Encoder {
    /// Copies a tokenizer and turns off its truncation and padding. `prefix`
    /// stands for a context that is empty: the end-of-text token.
    ///
    /// # Errors
    /// [`Error::Tokenizer`]
    pub fn new(tokenizer: &Tokenizer, prefix: Option<u32>) -> Result<Self> {
        let mut tokenizer = tokenizer.clone();
        tokenizer
            .with_truncation(None)
            .map_err(Error::tokenizer)?
            .with_padding(None);
        Ok(Self { tokenizer, prefix })
    }

    /// Tokens of a text.
    ///
    /// # Errors
    /// [`Error::Tokenizer`]
    pub fn text(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self
            .tokenizer
            .encode_fast(text, false)
            .map_err(Error::tokenizer)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Tokens of a text that is to be continued; the prefix if there are none.
    ///
    /// # Errors
    /// [`Error::Tokenizer`], also for an empty text without a prefix.
    pub fn prompt(&self, text: &str) -> Result<Vec<u32>> {
        let tokens = self.text(text)?;
        if tokens.is_empty() {
            return Ok(vec![self.prefix()?]);
        }
        Ok(tokens)
    }

    /// Tokens of a context and its continuation.
    ///
    /// # Errors
    /// [`Error::Tokenizer`], also for an empty context without a prefix and
    /// for a continuation that adds no token to its context.
    pub fn pair(&self, context: &str, continuation: &str) -> Result<Pair> {
        let kept = context.trim_end_matches(is_space);
        let moved = format!("{}{continuation}", &context[kept.len()..]);
        let (tokens, context) = if kept.is_empty() {
            let mut tokens = self.text(&moved)?;
            let prefix = self.prefix()?;
            // A continuation that starts with the prefix has its context.
            if tokens.first() != Some(&prefix) {
                tokens.insert(0, prefix);
            }
            (tokens, 1)
        } else {
            let context = self.text(kept)?.len();
            (self.text(&format!("{kept}{moved}"))?, context)
        };
        if context == 0 || tokens.len() <= context {
            return Err(Error::Tokenizer {
                reason: format!(
                    "expected a continuation of at least one token after {context} of its \
                     context, found {} tokens in all for {:?}",
                    tokens.len(),
                    ending(&format!("{kept}{moved}")),
                ),
            });
        }
        Ok(Pair { tokens, context })
    }

    fn prefix(&self) -> Result<u32> {
        self.prefix.ok_or_else(|| Error::Tokenizer {
            reason: "expected an end-of-text token to stand for an empty context, found none"
                .to_owned(),
        })
    }
}

/// White space as Python's `str.rstrip` sees it.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// The last few characters, enough to find the place.
fn ending(text: &str) -> String {
    let count = text.chars().count();
    text.chars().skip(count.saturating_sub(40)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::testing::{tokenizer, END};

    fn encoder() -> Encoder {
        Encoder::new(&tokenizer(), Some(END)).unwrap()
    }

    fn words(encoder: &Encoder, tokens: &[u32]) -> Vec<String> {
        let word = |&id: &u32| encoder.tokenizer.id_to_token(id).unwrap();
        tokens.iter().map(word).collect()
    }

    #[test]
    fn white_space_moves_to_the_continuation() {
        let encoder = encoder();
        for (context, continuation) in [("ab c", " d"), ("ab c ", "d")] {
            let pair = encoder.pair(context, continuation).unwrap();
            assert_eq!(
                words(&encoder, &pair.tokens),
                ["a", "b", "Ġc", "Ġd"],
                "{context:?}"
            );
            assert_eq!(pair.context, 3);
        }
    }

    #[test]
    fn the_pair_is_tokenised_together() {
        let encoder = encoder();
        // "x" and "y" merge, so that the pair has fewer tokens than its parts.
        let pair = encoder.pair("a x", "y b").unwrap();
        assert_eq!(words(&encoder, &pair.tokens), ["a", "Ġxy", "Ġb"]);
        assert_eq!(pair.context, 2);
        let error = encoder.pair("a x", "y").unwrap_err().to_string();
        assert!(error.contains("at least one token after 2"), "{error}");
    }

    #[test]
    fn an_empty_context_is_the_end_of_text() {
        let encoder = encoder();
        let pair = |context, continuation| encoder.pair(context, continuation).unwrap();
        assert_eq!(words(&encoder, &pair("", "a b").tokens)[1..], ["a", "Ġb"]);
        assert_eq!(pair("", "a b").tokens[0], END);
        assert_eq!(pair(" ", "a"), pair("", " a"));
        // The prefix is not doubled.
        assert_eq!(pair("", "<|end|>a").tokens.len(), 2);
        let without = Encoder::new(&tokenizer(), None).unwrap();
        assert!(without.pair("", "a").is_err() && without.prompt("").is_err());
        assert_eq!(encoder.prompt("").unwrap(), [END]);
        assert_eq!(encoder.prompt("ab").unwrap().len(), 2);
    }

    #[test]
    fn truncation_of_the_tokenizer_is_off() {
        let mut short = tokenizer();
        let truncation = tokenizers::TruncationParams {
            max_length: 2,
            ..Default::default()
        };
        short.with_truncation(Some(truncation)).unwrap();
        let encoder = Encoder::new(&short, None).unwrap();
        assert_eq!(encoder.text("abcd").unwrap().len(), 4);
    }
}
