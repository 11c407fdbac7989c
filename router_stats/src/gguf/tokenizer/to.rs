//! `tokenizer.json` → keys of a file.

use serde_json::Value as Json;

use super::{key, kind, pieces, pre, refuse, Sources, Untranslated};
use crate::gguf::{Array, Value};

/// Most rows of an embedding that are believed.
const MAX_VOCAB: usize = 1 << 24;

/// Tokens by id, their kinds, and what is merged in which order.
pub(super) struct Vocabulary {
    pub(super) tokens: Vec<String>,
    pub(super) kinds: Vec<i32>,
    pub(super) merges: Vec<(String, String)>,
}

/// See [`super::tokenizer_metadata`].
pub(super) fn metadata(sources: &Sources<'_>) -> Result<Vec<(String, Value)>, Untranslated> {
    let tokenizer = sources.tokenizer;
    let model = &tokenizer["model"];
    if model["type"].as_str().is_some_and(|kind| kind != "BPE") || !model["vocab"].is_object() {
        return refuse("llama.cpp has BPE alone of what tokenizer.json may hold");
    }
    for option in ["continuing_subword_prefix", "end_of_word_suffix"] {
        if model[option].as_str().is_some_and(|it| !it.is_empty()) {
            return refuse(format!("llama.cpp has no `{option}`"));
        }
    }
    if model["dropout"].as_f64().is_some_and(|it| it != 0.0) {
        return refuse("llama.cpp drops no merges at random");
    }
    let mut vocabulary = vocabulary(sources)?;
    let mut keys = if model["byte_fallback"] == true {
        pieces::keys(tokenizer, &mut vocabulary)?
    } else {
        bytes(tokenizer, &vocabulary)?
    };
    let Vocabulary { tokens, kinds, .. } = vocabulary;
    special(sources, &tokens, &mut keys)?;
    keys.push((key::TOKENS, Value::Array(Array::String(tokens))));
    keys.push((key::KINDS, Value::Array(Array::I32(kinds))));
    if let Some(template) = sources.template {
        keys.push((key::TEMPLATE, template.into()));
    }
    Ok(keys
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect())
}

fn vocabulary(sources: &Sources<'_>) -> Result<Vocabulary, Untranslated> {
    let model = &sources.tokenizer["model"];
    let size = sources.vocab;
    if size > MAX_VOCAB {
        return refuse(format!(
            "its model has {size} tokens, more than {MAX_VOCAB}"
        ));
    }
    let mut tokens: Vec<Option<String>> = vec![None; size];
    let mut kinds = vec![kind::UNUSED; size];
    let mut put = |token: &str, id: &Json, kind: i32| {
        let place = id.as_u64().and_then(|id| usize::try_from(id).ok());
        match place.filter(|&id| id < size) {
            Some(id) => {
                tokens[id] = Some(token.to_owned());
                kinds[id] = kind;
                Ok(())
            }
            None => refuse(format!(
                "token `{token}` has the id {id}, but the model {size} tokens"
            )),
        }
    };
    for (token, id) in model["vocab"].as_object().into_iter().flatten() {
        put(token, id, kind::NORMAL)?;
    }
    for added in sources.tokenizer["added_tokens"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let Some(token) = added["content"].as_str() else {
            return refuse("an added token has no text");
        };
        for option in ["single_word", "lstrip", "rstrip"] {
            if added[option] == true {
                return refuse(format!("llama.cpp has no `{option}`, as `{token}` has"));
            }
        }
        let special = added["special"] == true;
        put(
            token,
            &added["id"],
            if special {
                kind::CONTROL
            } else {
                kind::USER_DEFINED
            },
        )?;
    }
    let tokens = tokens.into_iter().enumerate();
    let tokens = tokens.map(|(id, token)| token.unwrap_or_else(|| format!("[PAD{id}]")));
    let merges = model["merges"].as_array().into_iter().flatten();
    Ok(Vocabulary {
        tokens: tokens.collect(),
        kinds,
        merges: merges.map(merge).collect::<Result<_, _>>()?,
    })
}

/// `a b` or `["a", "b"]`.
fn merge(merge: &Json) -> Result<(String, String), Untranslated> {
    let pair = match merge {
        Json::String(text) => text.split_once(' '),
        other => other[0].as_str().zip(other[1].as_str()),
    };
    match pair {
        Some((left, right)) if !left.is_empty() && !right.is_empty() => {
            Ok((left.to_owned(), right.to_owned()))
        }
        _ => refuse(format!("it has no merge like {merge}")),
    }
}

/// Keys of byte-level BPE.
fn bytes(
    tokenizer: &Json,
    vocabulary: &Vocabulary,
) -> Result<Vec<(&'static str, Value)>, Untranslated> {
    check_normalizer(&tokenizer["normalizer"])?;
    let ignore_merges = tokenizer["model"]["ignore_merges"] == true;
    let merges = &vocabulary.merges;
    let pre = pre::find(
        &tokenizer["pre_tokenizer"],
        ignore_merges,
        !merges.is_empty(),
    )?;
    if let Some((left, right)) = merges
        .iter()
        .find(|(a, b)| a.contains(' ') || b.contains(' '))
    {
        return refuse(format!(
            "it merges `{left}` and `{right}`, one of which has a space"
        ));
    }
    let merges = merges.iter().map(|(left, right)| format!("{left} {right}"));
    Ok(vec![
        (key::MODEL, "gpt2".into()),
        (key::PRE, pre.name.into()),
        (key::MERGES, Value::Array(Array::String(merges.collect()))),
    ])
}

/// Fails unless text is taken as it is, but for NFC.
fn check_normalizer(normalizer: &Json) -> Result<(), Untranslated> {
    match normalizer["type"].as_str() {
        None | Some("NFC") => Ok(()),
        Some("Sequence") => {
            let parts = normalizer["normalizers"].as_array();
            parts.into_iter().flatten().try_for_each(check_normalizer)
        }
        Some(other) => refuse(format!(
            "llama.cpp has no normaliser `{other}` for byte-level BPE"
        )),
    }
}

/// What is put before and after every text, and ids of special tokens.
fn special(
    sources: &Sources<'_>,
    tokens: &[String],
    keys: &mut Vec<(&'static str, Value)>,
) -> Result<(), Untranslated> {
    let id_of = |token: &str| tokens.iter().position(|it| it == token);
    let (before, after) = added_around(&sources.tokenizer["post_processor"])?;
    let mut ids = vec![
        (key::BOS, identifier(sources, "bos_token", &id_of)),
        (key::EOS, identifier(sources, "eos_token", &id_of)),
        (key::UNKNOWN, identifier(sources, "unk_token", &id_of)),
        (key::PADDING, identifier(sources, "pad_token", &id_of)),
    ];
    for (token, which) in [(&before, 0), (&after, 1)] {
        let Some(token) = token else { continue };
        let Some(id) = id_of(token) else {
            return refuse(format!(
                "its post-processor adds `{token}`, which is no token"
            ));
        };
        if ids[which].1.is_some_and(|known| known != id) {
            return refuse(format!(
                "its post-processor adds `{token}`, which is not the token of that name"
            ));
        }
        ids[which].1 = Some(id);
    }
    let eos = ids[1].1;
    let ends = sources.generation["eos_token_id"].as_array();
    let mut ends = ends.into_iter().flatten().filter_map(Json::as_u64);
    let other = ends.find(|&id| Some(id as usize) != eos && (id as usize) < tokens.len());
    ids.push((key::EOT, other.map(|id| id as usize)));
    for (key, id) in ids {
        if let Some(id) = id {
            keys.push((key, Value::U32(id as u32)));
        }
    }
    keys.push((key::ADD_BOS, before.is_some().into()));
    keys.push((key::ADD_EOS, after.is_some().into()));
    Ok(())
}

/// The id of the token that `tokenizer_config.json`, else another file, calls
/// `name`.
fn identifier(
    sources: &Sources<'_>,
    name: &str,
    id_of: &impl Fn(&str) -> Option<usize>,
) -> Option<usize> {
    let token = &sources.tokenizer_config[name];
    let text = token.as_str().or_else(|| token["content"].as_str());
    if let Some(id) = text.and_then(id_of) {
        return Some(id);
    }
    let field = format!("{name}_id");
    [sources.config, sources.generation]
        .into_iter()
        .find_map(|file| {
            let id = file[&field].as_u64().or_else(|| file[&field][0].as_u64())?;
            usize::try_from(id).ok().filter(|&id| id < sources.vocab)
        })
}

/// The tokens that every text gets before and after it.
fn added_around(post_processor: &Json) -> Result<(Option<String>, Option<String>), Untranslated> {
    match post_processor["type"].as_str() {
        None | Some("ByteLevel") => Ok((None, None)),
        Some("Sequence") => {
            let mut found = (None, None);
            for part in post_processor["processors"]
                .as_array()
                .into_iter()
                .flatten()
            {
                let (before, after) = added_around(part)?;
                found = (found.0.or(before), found.1.or(after));
            }
            Ok(found)
        }
        Some("TemplateProcessing") => {
            let mut found = (None, None);
            let mut text = false;
            for part in post_processor["single"].as_array().into_iter().flatten() {
                let place = if text { &mut found.1 } else { &mut found.0 };
                match part["SpecialToken"]["id"].as_str() {
                    Some(token) if place.is_none() => *place = Some(token.to_owned()),
                    None if !part["Sequence"].is_null() => text = true,
                    _ => return refuse("its post-processor adds more than llama.cpp does"),
                }
            }
            Ok(found)
        }
        Some(other) => refuse(format!("llama.cpp has no post-processor `{other}`")),
    }
}
