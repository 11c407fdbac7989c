//! The shape of `/v1/chat/completions`.

use std::sync::Arc;

use serde_json::{json, Map, Value};

use super::asked::Asked;
use super::fold::{Folded, Usage};
use super::piece::Piece;
use super::{scored, Model, Shape};
use crate::server::time::now;

/// One answer to a conversation.
pub(super) struct Chat {
    model: Arc<Model>,
    id: String,
    created: u64,
    logprobs: bool,
}

impl Chat {
    /// The next answer.
    pub(super) fn new(model: Arc<Model>, asked: &Asked) -> Self {
        Self {
            id: format!("chatcmpl-{}", model.mistralrs.next_request_id()),
            created: now(),
            logprobs: asked.top.is_some(),
            model,
        }
    }

    fn scored(&self, tokens: &[scored::Scored]) -> Value {
        if self.logprobs {
            scored::of_chat(tokens, &self.model.tokenizer)
        } else {
            Value::Null
        }
    }

    fn envelope(&self, object: &str, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": object,
            "created": self.created,
            "model": self.model.id,
            "system_fingerprint": "local",
            "choices": choices,
        })
    }
}

impl Shape for Chat {
    fn whole(&self, folded: &[Folded], usage: Usage) -> Value {
        let choice = |(index, choice): (usize, &Folded)| {
            let mut message = Map::new();
            message.insert("role".to_owned(), json!("assistant"));
            let silent = choice.text.is_empty() && !choice.tools.is_empty();
            let content = (!silent).then_some(&choice.text);
            message.insert("content".to_owned(), json!(content));
            if let Some(reasoning) = &choice.reasoning {
                message.insert("reasoning_content".to_owned(), json!(reasoning));
            }
            if !choice.tools.is_empty() {
                message.insert("tool_calls".to_owned(), json!(choice.tools));
            }
            json!({
                "index": index,
                "message": message,
                "logprobs": self.scored(&choice.scored),
                "finish_reason": choice.finish,
            })
        };
        let choices = folded.iter().enumerate().map(choice).collect();
        let mut answer = self.envelope("chat.completion", choices);
        answer["usage"] = usage.json();
        answer
    }

    fn event(&self, index: usize, piece: &Piece, first: bool) -> Value {
        let mut delta = Map::new();
        if first {
            delta.insert("role".to_owned(), json!("assistant"));
        }
        if !piece.text.is_empty() || first {
            delta.insert("content".to_owned(), json!(piece.text));
        }
        if let Some(reasoning) = &piece.reasoning {
            delta.insert("reasoning_content".to_owned(), json!(reasoning));
        }
        if !piece.tools.is_empty() {
            delta.insert("tool_calls".to_owned(), json!(piece.tools));
        }
        let choice = json!({
            "index": index,
            "delta": delta,
            "logprobs": self.scored(&piece.scored),
            "finish_reason": piece.finish,
        });
        self.envelope("chat.completion.chunk", json!([choice]))
    }

    fn usage(&self, usage: Usage) -> Value {
        let mut event = self.envelope("chat.completion.chunk", json!([]));
        event["usage"] = usage.json();
        event
    }
}
