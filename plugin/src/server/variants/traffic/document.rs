//! A request → the text that it has the model read.

use std::path::Path;

use router_stats::calibration::ChatTemplate;
use serde::Deserialize;
use serde_json::{json, Map, Value};
use tokenizers::Tokenizer;

use super::reservoir::Document;
use crate::engine;
use crate::Result;

/// Which route a request is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A chat.
    Chat,
    /// A text to continue.
    Completion,
}

/// Reads requests as the model does.
pub(super) struct Reader {
    tokenizer: Tokenizer,
    template: ChatTemplate,
    most: usize,
}

/// The part of a chat that is read.
#[derive(Deserialize)]
struct Chat {
    messages: Vec<Map<String, Value>>,
}

/// The part of a request for a completion that is read.
#[derive(Deserialize)]
struct Completion {
    prompt: Prompts,
}

/// Texts; prompts that are token ids already are passed over.
#[derive(Deserialize)]
#[serde(untagged)]
enum Prompts {
    One(String),
    Several(Vec<String>),
}

impl Reader {
    /// A reader for the model in `dir`, which takes at most `most` tokens of a
    /// text.
    ///
    /// # Errors
    /// If the tokenizer or the chat template cannot be read.
    pub(super) fn new(dir: &Path, most: usize) -> Result<Self> {
        Ok(Self {
            tokenizer: engine::load::tokenizer(dir)?,
            template: ChatTemplate::read(dir)?.map_or_else(ChatTemplate::plain, Ok)?,
            most,
        })
    }

    /// The texts of a request; none if it has none that can be read.
    pub(super) fn read(&self, kind: Kind, body: &[u8]) -> Vec<Document> {
        let texts = match kind {
            Kind::Chat => self.chat(body).into_iter().collect(),
            Kind::Completion => match serde_json::from_slice(body) {
                Ok(Completion { prompt }) => match prompt {
                    Prompts::One(text) => vec![text],
                    Prompts::Several(texts) => texts,
                },
                Err(_) => Vec::new(),
            },
        };
        let documents = texts.into_iter();
        documents.filter_map(|text| self.document(text)).collect()
    }

    /// A chat as the template writes it: roles and text, nothing else.
    fn chat(&self, body: &[u8]) -> Option<String> {
        let chat: Chat = serde_json::from_slice(body).ok()?;
        let messages = chat.messages.iter().filter_map(|message| {
            let content = text(message.get("content")?);
            Some(json!({ "role": message.get("role")?.as_str()?, "content": content }))
        });
        self.template.render(&messages.collect()).ok()
    }

    /// The text up to as many tokens as are taken of it; `None` if it is blank.
    fn document(&self, text: String) -> Option<Document> {
        if text.trim().is_empty() {
            return None;
        }
        let encoding = self.tokenizer.encode_fast(text.as_str(), false).ok()?;
        let tokens = encoding.len();
        if tokens <= self.most {
            return Some(Document { text, tokens });
        }
        let encoding = self.tokenizer.encode(text.as_str(), false).ok()?;
        let (_, end) = encoding.get_offsets().get(self.most - 1).copied()?;
        Some(Document {
            text: text.get(..end)?.to_owned(),
            tokens: self.most,
        })
    }
}

/// The text of a message, whose other parts are passed over.
fn text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part.get("text")?.as_str());
            texts.collect()
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Cache;
    use crate::demo::Demo;

    fn reader(most: usize) -> Reader {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path());
        let demo = Demo::unpack(&cache, &router_stats::progress::Silent).unwrap();
        Reader::new(demo.dir(), most).unwrap()
    }

    #[test]
    fn the_text_of_a_request_is_read_and_nothing_else() {
        let reader = reader(1000);
        let texts = |kind, body: Value| -> Vec<String> {
            let documents = reader.read(kind, body.to_string().as_bytes());
            documents.into_iter().map(|it| it.text).collect()
        };
        let chat = json!({"model": "x", "user": "secret", "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            ]},
        ]});
        let found = texts(Kind::Chat, chat);
        assert_eq!(found.len(), 1);
        for part in ["Be kind.", "What is this?"] {
            assert!(found[0].contains(part), "{found:?}");
        }
        for other in ["secret", "AAAA"] {
            assert!(!found[0].contains(other), "{found:?}");
        }
        let completion = |prompt: Value| texts(Kind::Completion, json!({ "prompt": prompt }));
        assert_eq!(completion(json!("Once")), ["Once"]);
        assert_eq!(completion(json!(["a", "b", " "])), ["a", "b"]);
        for none in [json!([1, 2]), json!(null), json!("")] {
            assert!(completion(none.clone()).is_empty(), "{none}");
        }
        assert!(reader.read(Kind::Chat, b"{").is_empty());
    }

    #[test]
    fn a_long_text_is_cut_where_a_token_ends() {
        let text = "Once upon a time, há muito tempo, there was a little girl. ".repeat(20);
        let whole = &reader(10_000).read(
            Kind::Completion,
            json!({ "prompt": text }).to_string().as_bytes(),
        )[0];
        let cut = &reader(17).read(
            Kind::Completion,
            json!({ "prompt": text }).to_string().as_bytes(),
        )[0];
        assert_eq!(whole.text, text);
        assert_eq!(cut.tokens, 17);
        assert!(text.starts_with(&cut.text) && cut.text.len() < text.len());
    }
}
