//! The shape of `/v1/completions`.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{json, Value};

use super::asked::Asked;
use super::fold::{Folded, Usage};
use super::piece::Piece;
use super::scored::Scored;
use super::{scored, Model, Shape};
use crate::server::time::now;

/// One answer to texts.
pub(super) struct Completion {
    model: Arc<Model>,
    id: String,
    created: u64,
    logprobs: bool,
    /// Characters that each choice has streamed so far.
    streamed: Mutex<Vec<usize>>,
}

impl Completion {
    /// The next answer.
    pub(super) fn new(model: Arc<Model>, asked: &Asked) -> Self {
        Self {
            id: format!("cmpl-{}", model.mistralrs.next_request_id()),
            created: now(),
            logprobs: asked.top.is_some(),
            streamed: Mutex::new(vec![0; asked.n * asked.prompts.len()]),
            model,
        }
    }

    fn scored(&self, tokens: &[Scored], offset: usize) -> Value {
        if self.logprobs {
            scored::of_completion(tokens, &self.model.tokenizer, offset)
        } else {
            Value::Null
        }
    }

    fn envelope(&self, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model.id,
            "system_fingerprint": "local",
            "choices": choices,
        })
    }
}

impl Shape for Completion {
    fn whole(&self, folded: &[Folded], usage: Usage) -> Value {
        let choice = |(index, choice): (usize, &Folded)| {
            json!({
                "index": index,
                "text": choice.text,
                "logprobs": self.scored(&choice.scored, 0),
                "finish_reason": choice.finish,
            })
        };
        let mut answer = self.envelope(folded.iter().enumerate().map(choice).collect());
        answer["usage"] = usage.json();
        answer
    }

    fn event(&self, index: usize, piece: &Piece, _first: bool) -> Value {
        let offset = {
            let mut streamed = self.streamed.lock().unwrap_or_else(PoisonError::into_inner);
            let length = piece.text.chars().count();
            streamed.get_mut(index).map_or(0, |sum| {
                *sum += length;
                *sum - length
            })
        };
        self.envelope(json!([{
            "index": index,
            "text": piece.text,
            "logprobs": self.scored(&piece.scored, offset),
            "finish_reason": piece.finish,
        }]))
    }

    fn usage(&self, usage: Usage) -> Value {
        let mut event = self.envelope(json!([]));
        event["usage"] = usage.json();
        event
    }
}
