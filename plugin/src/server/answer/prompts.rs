//! What the model is to read: messages or texts.

use mistralrs_core::RequestMessage;
use serde::Deserialize;
use serde_json::{json, Value};
use tokenizers::Tokenizer;

use super::number::{given, Fields};
use crate::server::problem::Problem;

/// One prompt.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::server) enum Prompt {
    /// To be tokenised.
    Text(String),
    /// As the model sees it.
    Tokens(Vec<u32>),
}

impl Prompt {
    /// The prompt as the engine takes it, and its text.
    ///
    /// # Errors
    /// If it names a token that the model does not have.
    pub(super) fn message(
        &self,
        tokenizer: &Tokenizer,
    ) -> Result<(RequestMessage, String), Problem> {
        match self {
            Self::Text(text) => {
                let message = RequestMessage::Completion {
                    text: text.clone(),
                    echo_prompt: false,
                    best_of: None,
                };
                Ok((message, text.clone()))
            }
            Self::Tokens(ids) => {
                if let Some(id) = ids.iter().find(|&&id| tokenizer.id_to_token(id).is_none()) {
                    let expected = "ids of tokens of the model";
                    return Err(Problem::field("prompt", expected, &json!(id)));
                }
                let text = tokenizer.decode(ids, false).unwrap_or_default();
                Ok((RequestMessage::CompletionTokens(ids.clone()), text))
            }
        }
    }
}

/// The four shapes of `prompt`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Prompts {
    Text(String),
    Tokens(Vec<u32>),
    Texts(Vec<String>),
    TokenLists(Vec<Vec<u32>>),
}

/// The prompts in the field `prompt`; `None` if they have none of its shapes.
pub(in crate::server) fn parse(prompt: &Value) -> Option<Vec<Prompt>> {
    Some(match Prompts::deserialize(prompt).ok()? {
        Prompts::Text(text) => vec![Prompt::Text(text)],
        Prompts::Tokens(tokens) => vec![Prompt::Tokens(tokens)],
        Prompts::Texts(texts) => texts.into_iter().map(Prompt::Text).collect(),
        Prompts::TokenLists(lists) => lists.into_iter().map(Prompt::Tokens).collect(),
    })
}

/// The texts to be continued; none of them is empty.
pub(super) fn texts(fields: &Fields) -> Result<Vec<Prompt>, Problem> {
    let value = given(fields, "prompt").unwrap_or(&Value::Null);
    let is_empty = |prompt: &Prompt| match prompt {
        Prompt::Text(text) => text.is_empty(),
        Prompt::Tokens(tokens) => tokens.is_empty(),
    };
    let prompts = parse(value).filter(|it| !it.is_empty() && !it.iter().any(is_empty));
    prompts.ok_or_else(|| {
        let expected = "a text, a list of token ids, or a list of either, not empty";
        Problem::field("prompt", expected, value)
    })
}

/// Checks messages, and makes one text of the parts of each: the engine would
/// read files of this machine and addresses that images and sounds name, and
/// its templates take texts.
pub(super) fn flatten(fields: &mut Fields) -> Result<(), Problem> {
    let messages = fields.entry("messages").or_insert(Value::Null);
    if messages.as_str().is_some_and(|text| !text.is_empty()) {
        return Ok(());
    }
    let Some(list) = messages.as_array_mut().filter(|it| !it.is_empty()) else {
        let expected = "a list of at least one message";
        return Err(Problem::field("messages", expected, messages));
    };
    for (index, message) in list.iter_mut().enumerate() {
        let field = format!("messages[{index}]");
        if !message["role"].is_string() {
            return Err(Problem::field(&field, "an object with a `role`", message));
        }
        let content = &message["content"];
        let calls = message["tool_calls"].is_array();
        match content {
            Value::String(_) => {}
            Value::Null if calls => {}
            Value::Array(parts) => {
                let texts = parts.iter().map(|part| match &part["type"] {
                    Value::String(kind) if kind == "text" => part["text"].as_str(),
                    _ => None,
                });
                let Some(texts) = texts.collect::<Option<Vec<_>>>() else {
                    let field = format!("{field}.content");
                    return Err(Problem::field(&field, "parts of type text", content));
                };
                message["content"] = json!(texts.join("\n"));
            }
            other => {
                let field = format!("{field}.content");
                return Err(Problem::field(&field, "a text or parts of it", other));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(messages: Value) -> Result<Value, String> {
        let mut fields = Fields::new();
        fields.insert("messages".to_owned(), messages);
        match flatten(&mut fields) {
            Ok(()) => Ok(fields["messages"].clone()),
            Err(problem) => Err(problem.error()["param"].as_str().unwrap().to_owned()),
        }
    }

    #[test]
    fn parts_become_one_text() {
        let part = |text: &str| json!({ "type": "text", "text": text });
        let message = json!({ "role": "user", "content": [part("a"), part("b")] });
        let flat = flat(json!([message])).unwrap();
        assert_eq!(flat[0]["content"], "a\nb");
    }

    #[test]
    fn files_and_addresses_are_not_read() {
        let image = json!({ "type": "image_url", "image_url": { "url": "/etc/passwd" } });
        for (messages, field) in [
            (json!([]), "messages"),
            (json!(""), "messages"),
            (json!(3), "messages"),
            (json!([{ "content": "a" }]), "messages[0]"),
            (json!(["a"]), "messages[0]"),
            (json!([{ "role": "user" }]), "messages[0].content"),
            (
                json!([{ "role": "user", "content": [image] }]),
                "messages[0].content",
            ),
        ] {
            assert_eq!(flat(messages.clone()).unwrap_err(), field, "{messages}");
        }
    }

    #[test]
    fn prompts_have_four_shapes() {
        let texts = |prompt: Value| parse(&prompt).unwrap();
        assert_eq!(texts(json!("a")), [Prompt::Text("a".to_owned())]);
        assert_eq!(texts(json!([1, 2])), [Prompt::Tokens(vec![1, 2])]);
        assert_eq!(texts(json!([[1], [2, 3]])).len(), 2);
        assert_eq!(texts(json!(["a", "b"])).len(), 2);
        assert!(parse(&json!([1, "a"])).is_none());
    }
}
