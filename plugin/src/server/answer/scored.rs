//! Log-probabilities of generated tokens, as the two routes write them.

use serde_json::{json, Map, Value};
use tokenizers::Tokenizer;

use crate::engine::score::Successor;

/// A token and what else could have come.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scored {
    /// The token.
    pub(super) token: u32,
    /// Natural logarithm of its probability, at temperature 1 and with
    /// penalties and biases.
    pub(super) ln_p: f64,
    /// The most probable tokens, the most probable first.
    pub(super) top: Vec<(u32, f64)>,
}

impl Scored {
    /// A token and `top` others, from logits [V].
    ///
    /// # Errors
    /// If the logits are not finite.
    pub(super) fn new(token: u32, top: usize, logits: &[f32]) -> candle_core::Result<Self> {
        let successor = Successor::new(logits)
            .ok_or_else(|| candle_core::Error::Msg("the logits are not finite".to_owned()))?;
        let named = |token| (token, successor.ln_p(token));
        Ok(Self {
            token,
            ln_p: successor.ln_p(token),
            top: successor.top(top).into_iter().map(named).collect(),
        })
    }
}

/// As a conversation has them: `{"content": [{"token", "logprob", "bytes",
/// "top_logprobs"}]}`.
pub(super) fn of_chat(scored: &[Scored], tokenizer: &Tokenizer) -> Value {
    let entry = |token: u32, ln_p: f64| {
        let name = name(token, tokenizer);
        json!({ "token": name, "logprob": finite(ln_p), "bytes": name.as_bytes() })
    };
    let tokens = scored.iter().map(|it| {
        let mut token = entry(it.token, it.ln_p);
        let top = it.top.iter().map(|&(token, ln_p)| entry(token, ln_p));
        token["top_logprobs"] = top.collect();
        token
    });
    json!({ "content": tokens.collect::<Value>(), "refusal": null })
}

/// As a text has them: `{"tokens", "token_logprobs", "top_logprobs",
/// "text_offset"}`; the first token starts at `offset`, in characters.
pub(super) fn of_completion(scored: &[Scored], tokenizer: &Tokenizer, offset: usize) -> Value {
    let names: Vec<String> = scored.iter().map(|it| name(it.token, tokenizer)).collect();
    let offsets = names.iter().scan(offset, |at, name| {
        let start = *at;
        *at += name.chars().count();
        Some(start)
    });
    let tops = scored.iter().zip(&names).map(|(it, own)| {
        let mut named = Map::new();
        for &(token, ln_p) in &it.top {
            // Names may be shared by tokens; the more probable one has it.
            let name = name(token, tokenizer);
            named.entry(name).or_insert_with(|| finite(ln_p).into());
        }
        named
            .entry(own.clone())
            .or_insert_with(|| finite(it.ln_p).into());
        Value::Object(named)
    });
    json!({
        "token_logprobs": scored.iter().map(|it| finite(it.ln_p)).collect::<Vec<_>>(),
        "top_logprobs": tops.collect::<Value>(),
        "text_offset": offsets.collect::<Vec<_>>(),
        "tokens": names,
    })
}

/// The text of one token.
fn name(token: u32, tokenizer: &Tokenizer) -> String {
    tokenizer.decode(&[token], false).unwrap_or_default()
}

/// JSON has no infinity; OpenAI says −9999 of what cannot come.
fn finite(ln_p: f64) -> f64 {
    ln_p.max(-9999.0)
}
