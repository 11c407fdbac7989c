//! A prompt, its tokens, and where each stands in the text.

use axum::http::StatusCode;
use serde_json::{json, Value};
use tokenizers::Tokenizer;

use crate::server::answer::prompts::Prompt;
use crate::server::problem::Problem;

/// A prompt as the model sees it and as a reader does.
#[derive(Debug, PartialEq)]
pub(super) struct Tokenised {
    /// The text.
    pub(super) text: String,
    /// Its tokens; at least one.
    pub(super) ids: Vec<u32>,
    /// Where each token starts, in characters.
    pub(super) offsets: Vec<usize>,
}

impl Tokenised {
    /// Tokenises a text as the engine does, special tokens added; looks up
    /// the text of tokens.
    ///
    /// # Errors
    /// [`Problem`] for a prompt without tokens or with unknown ones.
    pub(super) fn new(prompt: &Prompt, tokenizer: &Tokenizer) -> Result<Self, Problem> {
        let tokenised = match prompt {
            Prompt::Text(text) => {
                let encoding = tokenizer
                    .encode_char_offsets(text.as_str(), true)
                    .map_err(unreadable)?;
                Self {
                    text: text.clone(),
                    ids: encoding.get_ids().to_vec(),
                    offsets: encoding.get_offsets().iter().map(|&(at, _)| at).collect(),
                }
            }
            Prompt::Tokens(ids) => Self::of_tokens(ids, tokenizer)?,
        };
        if tokenised.ids.is_empty() {
            let expected = "at least one token";
            return Err(Problem::field("prompt", expected, &Value::Null));
        }
        Ok(tokenised)
    }

    fn of_tokens(ids: &[u32], tokenizer: &Tokenizer) -> Result<Self, Problem> {
        if let Some(id) = ids.iter().find(|&&id| tokenizer.id_to_token(id).is_none()) {
            let expected = "ids of tokens of the model";
            return Err(Problem::field("prompt", expected, &json!(id)));
        }
        let mut stream = tokenizer.decode_stream(false);
        let mut offsets = Vec::with_capacity(ids.len());
        let mut end = 0;
        for &id in ids {
            offsets.push(end);
            // A part of a character has no text until the rest comes.
            let text = stream.step(id).map_err(unreadable)?;
            end += text.map_or(0, |text| text.chars().count());
        }
        Ok(Self {
            text: tokenizer.decode(ids, false).map_err(unreadable)?,
            ids: ids.to_vec(),
            offsets,
        })
    }
}

/// The text of one token, by which answers name it.
///
/// # Errors
/// [`Problem`] if the tokenizer cannot tell.
pub(super) fn name(token: u32, tokenizer: &Tokenizer) -> Result<String, Problem> {
    tokenizer.decode(&[token], false).map_err(unreadable)
}

fn unreadable(error: tokenizers::Error) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, format!("`prompt`: {error}")).param("prompt")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokenizer() -> Tokenizer {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/demo/tokenizer.json");
        Tokenizer::from_file(path).unwrap()
    }

    #[test]
    fn text_and_its_tokens_are_one_prompt() {
        let tokenizer = tokenizer();
        let text = "The naïve dog ran — home.";
        let of_text = Tokenised::new(&Prompt::Text(text.to_owned()), &tokenizer).unwrap();
        assert_eq!(of_text.text, text);
        assert_eq!(of_text.offsets[0], 0);
        let of_tokens = Tokenised::new(&Prompt::Tokens(of_text.ids.clone()), &tokenizer).unwrap();
        assert_eq!(of_tokens.text, text);
        assert_eq!(of_tokens.ids, of_text.ids);
        let characters: Vec<char> = text.chars().collect();
        for (index, &offset) in of_tokens.offsets.iter().enumerate() {
            let name = name(of_tokens.ids[index], &tokenizer).unwrap();
            if !name.contains(char::REPLACEMENT_CHARACTER) {
                let there: String = characters[offset..]
                    .iter()
                    .take(name.chars().count())
                    .collect();
                assert_eq!(there, name, "token {index}");
            }
        }
    }

    #[test]
    fn empty_prompts_and_unknown_tokens_are_refused() {
        let tokenizer = tokenizer();
        for (prompt, said) in [
            (Prompt::Text(String::new()), "found none"),
            (Prompt::Tokens(Vec::new()), "found none"),
            (Prompt::Tokens(vec![0, 99_999_999]), "99999999"),
        ] {
            let error = Tokenised::new(&prompt, &tokenizer).unwrap_err().error();
            assert!(error["message"].as_str().unwrap().contains(said), "{error}");
        }
    }
}
