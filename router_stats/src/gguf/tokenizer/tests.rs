use std::path::{Path, PathBuf};

use serde_json::json;

use super::*;
use crate::gguf::Array;

fn demo(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../models/demo")
        .join(file)
}

fn read(path: &Path) -> Json {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Keys of a tokenizer without any other file.
fn keys(tokenizer: &Json, vocab: usize) -> Result<Metadata, Untranslated> {
    let sources = Sources {
        tokenizer,
        tokenizer_config: &Json::Null,
        config: &Json::Null,
        generation: &Json::Null,
        template: None,
        vocab,
    };
    tokenizer_metadata(&sources).map(Metadata::new)
}

fn load(json: &Json) -> Tokenizer {
    serde_json::from_value(json.clone()).unwrap()
}

/// Both tokenizers give these texts the same ids, and give back the same text.
fn assert_same(original: &Tokenizer, translated: &Tokenizer, texts: &[&str]) {
    for text in texts {
        for special in [false, true] {
            let [left, right] = [original, translated].map(|it| {
                let encoding = it.encode(*text, special).unwrap();
                encoding.get_ids().to_vec()
            });
            assert_eq!(left, right, "{text:?}");
            let [before, after] = [original, translated].map(|it| it.decode(&left, false).unwrap());
            assert_eq!(before, after, "{text:?}");
        }
    }
}

#[test]
fn the_demo_s_tokenizer_survives_both_ways() {
    let (tokenizer, config) = (
        read(&demo("tokenizer.json")),
        read(&demo("tokenizer_config.json")),
    );
    let template = config["chat_template"].as_str();
    let sources = Sources {
        tokenizer: &tokenizer,
        tokenizer_config: &config,
        config: &read(&demo("config.json")),
        generation: &read(&demo("generation_config.json")),
        template,
        vocab: 4096,
    };
    let metadata = Metadata::new(tokenizer_metadata(&sources).unwrap());
    assert_eq!(metadata.text(key::MODEL), Ok("gpt2"));
    assert_eq!(metadata.text(key::PRE), Ok("smollm"));
    assert_eq!(metadata.optional_text(key::TEMPLATE).unwrap(), template);
    let ids = [key::BOS, key::EOS, key::EOT, key::PADDING, key::UNKNOWN];
    let ids = ids.map(|key| metadata.get(key).and_then(Value::natural));
    assert_eq!(ids, [Some(0), Some(2), Some(0), Some(0), None]);
    assert_eq!(metadata.optional_flag(key::ADD_BOS), Ok(Some(false)));
    let Some(Value::Array(Array::I32(kinds))) = metadata.get(key::KINDS) else {
        panic!("no kinds");
    };
    assert_eq!(kinds[..4], [3, 3, 3, 1]);
    let held_out = std::fs::read_dir(demo("held-out")).unwrap();
    let texts: Vec<_> = held_out
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    let texts: Vec<String> = texts
        .iter()
        .map(|text| text.chars().take(20_000).collect())
        .collect();
    let odd = "<|im_start|>user\nNaïve 2024 café\t\t\r\n 😀 ５٣ don't<|im_end|>";
    let texts: Vec<_> = texts.iter().map(String::as_str).chain([odd, ""]).collect();
    assert!(texts.len() > 3);
    assert_same(&load(&tokenizer), &tokenizer_of(&metadata), &texts);
}

fn tokenizer_of(metadata: &Metadata) -> Tokenizer {
    tokenizer(metadata).unwrap()
}

/// Pieces as Mixtral has them: bytes, then what is joined.
fn joined(normalizer: Json, pre_tokenizer: Json) -> Json {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).to_vec();
    tokens.extend((0..=255).map(|byte| format!("<0x{byte:02X}>")));
    tokens.extend(["▁a", "ab", "▁ab", "abc"].map(str::to_owned));
    tokens.extend(["▁", "a", "b", "c"].map(str::to_owned));
    let vocab: serde_json::Map<_, _> = tokens
        .iter()
        .cloned()
        .zip((0..).map(|id: usize| json!(id)))
        .collect();
    let special = |id: usize| {
        json!({
            "id": id, "content": tokens[id], "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true
        })
    };
    json!({
        "version": "1.0",
        "added_tokens": [special(0), special(1), special(2)],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}
        },
        "decoder": pieces::decoder(true),
        "model": {
            "type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
            "vocab": vocab,
            "merges": ["▁ a", "a b", "▁a b", "▁ ab", "ab c"]
        }
    })
}

#[test]
fn pieces_survive_both_ways() {
    let texts = ["ab abc", "a\nb", "naïve ab", "", "abcabc  cba"];
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let prepend = json!({"type": "Prepend", "prepend": "▁"});
    let both = json!({"type": "Sequence", "normalizers": [prepend, replace]});
    let scheme = |scheme: &str| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false});
    for (tokenizer, space) in [
        (joined(both, Json::Null), true),
        (joined(replace, Json::Null), false),
        (joined(Json::Null, scheme("first")), true),
        (joined(Json::Null, scheme("never")), false),
    ] {
        let metadata = keys(&tokenizer, 270).unwrap();
        assert_eq!(metadata.text(key::MODEL), Ok("llama"));
        assert_eq!(metadata.optional_flag(key::ADD_SPACE), Ok(Some(space)));
        assert_eq!(metadata.optional_flag(key::ADD_BOS), Ok(Some(true)));
        let Some(Value::Array(Array::I32(kinds))) = metadata.get(key::KINDS) else {
            panic!("no kinds");
        };
        assert_eq!(kinds[..4], [2, 3, 3, 6]);
        assert_eq!(kinds[259..], [1, 1, 1, 1, 1, 1, 1, 1, 5, 5, 5]);
        let mut original = load(&tokenizer);
        if !space {
            original = load(
                &json!({"decoder": pieces::decoder(false)})
                    .as_object()
                    .unwrap()
                    .iter()
                    .fold(tokenizer.clone(), |mut whole, (key, value)| {
                        whole[key] = value.clone();
                        whole
                    }),
            );
        }
        assert_same(&original, &tokenizer_of(&metadata), &texts);
    }
}

#[test]
fn pieces_that_llama_cpp_would_join_otherwise_are_refused() {
    let whole = joined(pieces::normalizer(true), Json::Null);
    let refused = |merges: Json| {
        let mut tokenizer = whole.clone();
        tokenizer["model"]["merges"] = merges;
        keys(&tokenizer, 270).unwrap_err().0
    };
    assert!(refused(json!(["▁ a", "a b", "▁a b", "ab c"])).contains("does not merge `▁` and `ab`"));
    let apart = json!(["▁ a", "▁a b", "a b", "▁ ab", "ab c"]);
    assert!(refused(apart).contains("makes `▁ab` at two places"));
    assert!(refused(json!(["a c"])).contains("to what is no token"));
    assert!(refused(json!([7])).contains("no merge like 7"));
}

#[test]
fn what_llama_cpp_does_not_have_is_refused() {
    let whole = read(&demo("tokenizer.json"));
    let refused = |pointer: &str, value: Json| {
        let mut tokenizer = whole.clone();
        *tokenizer.pointer_mut(pointer).unwrap() = value;
        keys(&tokenizer, 4096).unwrap_err().0
    };
    assert!(refused("/model/type", json!("Unigram")).contains("BPE alone"));
    assert!(refused("/normalizer", json!({"type": "Lowercase"})).contains("normaliser `Lowercase`"));
    assert!(
        refused("/added_tokens/0/lstrip", json!(true)).contains("no `lstrip`, as `<|endoftext|>`")
    );
    assert!(refused("/added_tokens/0/id", json!(5000)).contains("the id 5000"));
    assert!(
        refused("/post_processor", json!({"type": "BertProcessing"})).contains("post-processor")
    );
    assert!(refused("/model/end_of_word_suffix", json!("</w>")).contains("end_of_word_suffix"));
    assert!(keys(&whole, 100).is_err());
    assert!(keys(&whole, 1 << 30).unwrap_err().0.contains("more than"));
    assert!(keys(&Json::Null, 100).is_err());
}

#[test]
fn keys_that_contradict_each_other_are_named() {
    let metadata = keys(&read(&demo("tokenizer.json")), 4096).unwrap();
    let refused = |key: &str, value: Value| {
        let mut metadata = metadata.clone();
        metadata.set(key, value);
        tokenizer(&metadata).unwrap_err().0
    };
    assert!(refused(key::MODEL, "bert".into()).contains("kind `bert`"));
    assert!(refused(key::PRE, "default".into()).contains("pre-tokenizer `default`"));
    assert!(refused(key::KINDS, Value::Array(Array::I32(vec![1]))).contains("4096 numbers"));
    let merges = Value::Array(Array::String(vec!["ab".to_owned()]));
    assert!(refused(key::MERGES, merges).contains("`ab` is no merge"));
    let merges = Value::Array(Array::String(vec!["☃ ☃".to_owned()]));
    assert!(refused(key::MERGES, merges).contains("does not load"));
    let mut without = metadata.clone();
    without.remove(key::TOKENS);
    assert!(tokenizer(&without).unwrap_err().0.contains(key::TOKENS));
    let mut bos = metadata.clone();
    bos.set(key::ADD_BOS, true);
    bos.set(key::BOS, 9999u32);
    assert!(tokenizer(&bos).unwrap_err().0.contains(key::BOS));
}

#[test]
fn tokens_that_are_added_around_text_are_found() {
    let mut tokenizer = read(&demo("tokenizer.json"));
    let template = json!({
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "<|im_end|>", "type_id": 0}}
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            "<|im_start|>": {"id": "<|im_start|>", "ids": [1], "tokens": ["<|im_start|>"]},
            "<|im_end|>": {"id": "<|im_end|>", "ids": [2], "tokens": ["<|im_end|>"]}
        }
    });
    tokenizer["post_processor"] = json!({
        "type": "Sequence",
        "processors": [{"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true}, template]
    });
    let metadata = keys(&tokenizer, 4096).unwrap();
    assert_eq!(metadata.get(key::BOS), Some(&Value::U32(1)));
    assert_eq!(metadata.get(key::EOS), Some(&Value::U32(2)));
    assert_same(
        &load(&tokenizer),
        &tokenizer_of(&metadata),
        &["a river", ""],
    );
}
