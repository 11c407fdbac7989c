//! A tokenizer small enough to see through, for tests.

use tokenizers::Tokenizer;

/// Its end-of-text token, `<|end|>`.
pub(crate) const END: u32 = 0;

/// A byte-level tokenizer in which a space joins the character after it, and
/// `xy` is one token: `<|end|>`, a space, `a` to `z`, digits, some signs, then
/// each of these but the first two after a space, then ` xy`.
pub(crate) fn tokenizer() -> Tokenizer {
    let mut words = vec!["<|end|>".to_owned(), "Ġ".to_owned(), "Ċ".to_owned()];
    let single: Vec<String> = ('a'..='z')
        .chain('A'..='Z')
        .chain('0'..='9')
        .chain("+-=.,:;?!#$()[]{}<>'\"".chars())
        .map(String::from)
        .collect();
    words.extend(single.iter().cloned());
    let mut merges = Vec::new();
    for one in &single {
        words.push(format!("Ġ{one}"));
        merges.push(format!("Ġ {one}"));
    }
    words.push("Ġxy".to_owned());
    merges.push("Ġx y".to_owned());
    let vocab: serde_json::Map<String, serde_json::Value> = words
        .into_iter()
        .enumerate()
        .map(|(id, word)| (word, id.into()))
        .collect();
    let byte_level = serde_json::json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false
    });
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": [{
            "id": END, "content": "<|end|>", "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true
        }],
        "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "vocab": vocab, "merges": merges,
            "continuing_subword_prefix": null, "end_of_word_suffix": null,
            "fuse_unk": false, "byte_fallback": false
        }
    });
    Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap()
}
