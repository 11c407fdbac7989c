//! Keys of a file → `tokenizer.json`.

use serde_json::{json, Map, Value as Json};

use super::{key, kind, pieces, pre, refuse, Untranslated};
use crate::gguf::{Array, Metadata, Unusable, Value};

impl From<Unusable> for Untranslated {
    fn from(
        Unusable {
            key,
            expected,
            found,
        }: Unusable,
    ) -> Self {
        Self(format!("`{key}`: expected {expected}, found {found}"))
    }
}

/// See [`super::tokenizer_json`].
pub(super) fn json(metadata: &Metadata) -> Result<Json, Untranslated> {
    let tokens = metadata.texts(key::TOKENS)?;
    let kinds = kinds(metadata, tokens.len())?;
    let mut json = match metadata.text(key::MODEL)? {
        "gpt2" => bytes(metadata)?,
        "llama" => joined(metadata, tokens, &kinds)?,
        other => {
            return refuse(format!(
                "its kind `{other}` is not read, only gpt2 and llama"
            ))
        }
    };
    let mut vocab = Map::new();
    let mut added = Vec::new();
    for (id, (token, &kind)) in tokens.iter().zip(&kinds).enumerate() {
        let special = match kind {
            // What fills up the embedding.
            kind::UNUSED => continue,
            kind::CONTROL | kind::UNKNOWN => Some(true),
            kind::USER_DEFINED => Some(false),
            _ => None,
        };
        if vocab.insert(token.clone(), json!(id)).is_some() {
            return refuse(format!("two tokens are `{token}`"));
        }
        if let Some(special) = special {
            added.push(json!({
                "id": id, "content": token, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false, "special": special
            }));
        }
    }
    json["model"]["vocab"] = Json::Object(vocab);
    json["added_tokens"] = Json::Array(added);
    json["post_processor"] = around(metadata, tokens)?;
    Ok(json)
}

/// Kinds of tokens: all are normal where a file does not say.
fn kinds(metadata: &Metadata, count: usize) -> Result<Vec<i32>, Untranslated> {
    match metadata.get(key::KINDS) {
        None => Ok(vec![kind::NORMAL; count]),
        Some(Value::Array(Array::I32(kinds))) if kinds.len() == count => Ok(kinds.clone()),
        Some(_) => Err(metadata.unusable(key::KINDS, &format!("{count} numbers"))),
    }
    .map_err(Untranslated::from)
}

/// Byte-level BPE.
fn bytes(metadata: &Metadata) -> Result<Json, Untranslated> {
    let merges = metadata.texts(key::MERGES)?;
    let pre = pre::named(metadata.text(key::PRE)?)?;
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true
    });
    let mut pairs = Vec::with_capacity(merges.len());
    for merge in merges {
        match merge.split_once(' ') {
            Some((left, right)) => pairs.push([left, right]),
            None => return refuse(format!("`{merge}` is no merge")),
        }
    }
    Ok(json!({
        "version": "1.0",
        "pre_tokenizer": pre.json(),
        "decoder": byte_level,
        "model": {
            "type": "BPE", "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": pre.ignore_merges, "merges": pairs
        }
    }))
}

/// Pieces with scores.
fn joined(metadata: &Metadata, tokens: &[String], kinds: &[i32]) -> Result<Json, Untranslated> {
    let scores = match metadata.get(key::SCORES) {
        Some(Value::Array(Array::F32(scores))) if scores.len() == tokens.len() => scores,
        _ => {
            let expected = format!("{} numbers", tokens.len());
            return Err(metadata.unusable(key::SCORES, &expected).into());
        }
    };
    let space = metadata.optional_flag(key::ADD_SPACE)?.unwrap_or(true);
    let unknown = tokens
        .iter()
        .zip(kinds)
        .find(|(_, &kind)| kind == kind::UNKNOWN);
    Ok(json!({
        "version": "1.0",
        "normalizer": pieces::normalizer(space),
        "decoder": pieces::decoder(space),
        "model": {
            "type": "BPE", "unk_token": unknown.map(|(token, _)| token), "fuse_unk": true,
            "byte_fallback": true, "ignore_merges": false,
            "merges": pieces::merges(tokens, kinds, scores)
        }
    }))
}

/// The post-processor that adds what the file says, if anything.
fn around(metadata: &Metadata, tokens: &[String]) -> Result<Json, Untranslated> {
    // llama.cpp's defaults where a file does not say.
    let spm = metadata.text(key::MODEL)? == "llama";
    let by_name = matches!(
        metadata.optional_text(key::PRE)?,
        Some("llama3" | "llama-v3" | "llama-bpe" | "falcon3" | "tekken")
    );
    let mut single = vec![json!({"Sequence": {"id": "A", "type_id": 0}})];
    let mut special = Map::new();
    let mut token = |id_key: &str| -> Result<Json, Untranslated> {
        let default = match (spm, id_key) {
            (true, key::BOS) => Some(1),
            (true, key::EOS) => Some(2),
            _ => None,
        };
        let id = match metadata.get(id_key) {
            None => default,
            Some(id) => id.natural().and_then(|id| usize::try_from(id).ok()),
        };
        let Some((id, token)) = id.and_then(|id| Some((id, tokens.get(id)?))) else {
            return Err(metadata.unusable(id_key, "the id of a token").into());
        };
        special.insert(
            token.clone(),
            json!({"id": token, "ids": [id], "tokens": [token]}),
        );
        Ok(json!({"SpecialToken": {"id": token, "type_id": 0}}))
    };
    if metadata
        .optional_flag(key::ADD_BOS)?
        .unwrap_or(spm || by_name)
    {
        single.insert(0, token(key::BOS)?);
    }
    if metadata.optional_flag(key::ADD_EOS)?.unwrap_or(false) {
        single.push(token(key::EOS)?);
    }
    if single.len() == 1 {
        return Ok(Json::Null);
    }
    Ok(json!({
        "type": "TemplateProcessing", "single": single, "special_tokens": special,
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]
    }))
}
