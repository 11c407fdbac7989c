//! What SentencePiece's BPE amounts to: pieces, scores, and bytes for what no
//! piece has.
//!
//! llama.cpp joins the neighbours whose piece has the best score, whatever the
//! two are. `tokenizer.json` has a list of pairs instead. Both do the same if
//! all ways of making a piece are listed one after the other, and all of them;
//! that is checked.

use std::collections::{HashMap, HashSet};

use serde_json::{json, Value as Json};

use super::to::Vocabulary;
use super::{key, kind, refuse, Untranslated};
use crate::gguf::{Array, Value};

/// What stands for a space.
pub(super) const SPACE: &str = "▁";

/// The score of pieces that are never made by joining.
const UNMADE: f32 = 0.0;

/// Keys of pieces, and the kinds of tokens that are bytes or unknown.
///
/// # Errors
/// [`Untranslated`]
pub(super) fn keys(
    tokenizer: &Json,
    vocabulary: &mut Vocabulary,
) -> Result<Vec<(&'static str, Value)>, Untranslated> {
    let space = space(tokenizer)?;
    if tokenizer["model"]["ignore_merges"] == true {
        return refuse("llama.cpp always joins pieces, which `ignore_merges` forbids");
    }
    let unknown = tokenizer["model"]["unk_token"].as_str();
    for (token, kind) in vocabulary.tokens.iter().zip(&mut vocabulary.kinds) {
        if unknown == Some(token) {
            *kind = kind::UNKNOWN;
        } else if *kind == kind::NORMAL && byte(token).is_some() {
            *kind = kind::BYTE;
        }
    }
    let bytes = vocabulary.kinds.iter().filter(|&&it| it == kind::BYTE);
    if bytes.count() != 256 {
        return refuse("it has no token for some byte");
    }
    let scores = scores(vocabulary)?;
    Ok(vec![
        (key::MODEL, "llama".into()),
        (key::PRE, "default".into()),
        (key::SCORES, Value::Array(Array::F32(scores))),
        (key::ADD_SPACE, space.into()),
    ])
}

/// Whether a space is put before the first word.
fn space(tokenizer: &Json) -> Result<bool, Untranslated> {
    let mut steps = Vec::new();
    for (field, list) in [
        ("normalizer", "normalizers"),
        ("pre_tokenizer", "pretokenizers"),
    ] {
        match &tokenizer[field] {
            Json::Null => {}
            it if it["type"] == "Sequence" => {
                steps.extend(it[list].as_array().into_iter().flatten())
            }
            it => steps.push(it),
        }
    }
    let replace = |it: &Json| {
        it["type"] == "Replace" && it["pattern"]["String"] == " " && it["content"] == SPACE
    };
    match steps[..] {
        [prepend, then] if prepend["type"] == "Prepend" && prepend["prepend"] == SPACE => {
            if replace(then) {
                return Ok(true);
            }
        }
        [only] if replace(only) => return Ok(false),
        [only] if only["type"] == "Metaspace" && only["replacement"] == SPACE => {
            let split = only["split"].as_bool() != Some(false);
            match only["prepend_scheme"].as_str() {
                Some("first" | "always") if !split => return Ok(true),
                Some("never") if !split => return Ok(false),
                _ => {}
            }
        }
        _ => {}
    }
    refuse("it makes pieces of spaces in a way that llama.cpp does not")
}

/// The scores of all tokens: the earlier a piece is made, the higher.
fn scores(vocabulary: &Vocabulary) -> Result<Vec<f32>, Untranslated> {
    let Vocabulary {
        tokens,
        kinds,
        merges,
    } = vocabulary;
    let ids: HashMap<&str, usize> = tokens.iter().map(String::as_str).zip(0..).collect();
    let mut scores = vec![UNMADE; tokens.len()];
    let mut made = HashSet::new();
    let mut last = None;
    for (left, right) in merges {
        let piece = format!("{left}{right}");
        let Some(&id) = ids.get(piece.as_str()) else {
            return refuse(format!(
                "it merges `{left}` and `{right}` to what is no token"
            ));
        };
        if last != Some(id) {
            if !made.insert(id) {
                return refuse(format!("it makes `{piece}` at two places in its merges"));
            }
            scores[id] = -(made.len() as f32);
            last = Some(id);
        }
    }
    let listed: HashSet<(&str, &str)> = merges
        .iter()
        .map(|(left, right)| (left.as_str(), right.as_str()))
        .collect();
    for (token, &kind) in tokens.iter().zip(kinds) {
        if kind != kind::NORMAL {
            continue;
        }
        for (at, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(at);
            let is_piece = |half: &str| ids.get(half).is_some_and(|&id| kinds[id] == kind::NORMAL);
            if is_piece(left) && is_piece(right) && !listed.contains(&(left, right)) {
                return refuse(format!(
                    "it does not merge `{left}` and `{right}`, as llama.cpp does"
                ));
            }
        }
    }
    Ok(scores)
}

/// The pairs that are joined, best scores first: all ways of making each piece.
pub(super) fn merges(tokens: &[String], kinds: &[i32], scores: &[f32]) -> Vec<[String; 2]> {
    let normal = |id: usize| kinds[id] == kind::NORMAL;
    let ids: HashMap<&str, usize> = tokens.iter().map(String::as_str).zip(0..).collect();
    let is_piece = |half: &str| ids.get(half).is_some_and(|&id| normal(id));
    let mut order: Vec<usize> = (0..tokens.len()).filter(|&id| normal(id)).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    let mut merges = Vec::new();
    for id in order {
        for (at, _) in tokens[id].char_indices().skip(1) {
            let (left, right) = tokens[id].split_at(at);
            if is_piece(left) && is_piece(right) {
                merges.push([left.to_owned(), right.to_owned()]);
            }
        }
    }
    merges
}

/// The normaliser, which puts `▁` for spaces and, if `space`, before text.
pub(super) fn normalizer(space: bool) -> Json {
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
    if space {
        json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, replace]})
    } else {
        replace
    }
}

/// The decoder, which puts everything back.
pub(super) fn decoder(space: bool) -> Json {
    let mut steps = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if space {
        steps.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    json!({"type": "Sequence", "decoders": steps})
}

/// The byte that `<0x0A>` is.
fn byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}
