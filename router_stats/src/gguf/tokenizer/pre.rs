//! How text is split into words before merges: llama.cpp's names for it.
//!
//! The table holds what `pre_tokenizer` of a `tokenizer.json` says, step by
//! step; a tokenizer whose steps are not in it has no name, and is refused.

use serde_json::{json, Value as Json};

use super::{refuse, Untranslated};

/// One step of splitting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step<'a> {
    /// What this expression matches is a word.
    Split(&'a str),
    /// Every digit is a word.
    Digits,
    /// Words of GPT-2; then bytes become characters.
    Gpt2,
    /// Bytes become characters.
    Bytes,
}

use Step::{Bytes, Digits, Gpt2, Split};

/// A way of splitting that llama.cpp has built in.
#[derive(Debug)]
pub(super) struct Pre {
    /// What is written.
    pub(super) name: &'static str,
    /// Other names that mean the same to llama.cpp.
    aliases: &'static [&'static str],
    steps: &'static [Step<'static>],
    /// Whether a word that is a token is that token, whatever merges say.
    pub(super) ignore_merges: bool,
}

const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEEPSEEK_LETTERS: &str = r"\s?[A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+";
const DEEPSEEK_V3: &str = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+";

/// All of them; of several that fit, the first is written.
const KNOWN: &[Pre] = &[
    Pre {
        name: "gpt-2",
        aliases: &["phi-2", "mpt", "olmo", "jais", "trillion", "mellum"],
        steps: &[Gpt2],
        ignore_merges: false,
    },
    Pre {
        name: "smollm",
        aliases: &["starcoder", "refact", "command-r", "codeshell", "exaone"],
        steps: &[Digits, Gpt2],
        ignore_merges: false,
    },
    Pre {
        name: "qwen2",
        aliases: &[
            "deepseek-r1-qwen",
            "kormo",
            "megrez",
            "stablelm2",
            "hunyuan",
            "solar-open",
        ],
        steps: &[Split(QWEN2), Bytes],
        ignore_merges: false,
    },
    Pre {
        name: "llama-bpe",
        aliases: &["llama3", "llama-v3", "falcon3", "glm4", "glm5"],
        steps: &[Split(LLAMA3), Bytes],
        ignore_merges: true,
    },
    Pre {
        name: "dbrx",
        aliases: &["smaug-bpe", "chatglm-bpe"],
        steps: &[Split(LLAMA3), Bytes],
        ignore_merges: false,
    },
    Pre {
        name: "gpt-4o",
        aliases: &["llama4", "minimax-m2", "kanana2"],
        steps: &[Split(GPT4O), Bytes],
        ignore_merges: false,
    },
    Pre {
        name: "tekken",
        aliases: &[],
        steps: &[Split(TEKKEN), Bytes],
        ignore_merges: true,
    },
    Pre {
        name: "deepseek-llm",
        aliases: &[],
        steps: &[
            Split("[\r\n]"),
            Split(DEEPSEEK_LETTERS),
            Split(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"),
            Split(r"\s+$"),
            Split("[一-龥ࠀ-一가-퟿]+"),
            Digits,
            Bytes,
        ],
        ignore_merges: false,
    },
    Pre {
        name: "deepseek-v3",
        aliases: &["hunyuan-dense", "joyai-llm"],
        steps: &[
            Split(r"\p{N}{1,3}"),
            Split("[一-龥぀-ゟ゠-ヿ]+"),
            Split(DEEPSEEK_V3),
            Bytes,
        ],
        ignore_merges: false,
    },
];

/// The way of splitting that `pre_tokenizer` says. Without merges every byte is
/// a token, however text is split.
///
/// # Errors
/// [`Untranslated`] if llama.cpp has none that is the same.
pub(super) fn find(
    pre_tokenizer: &Json,
    ignore_merges: bool,
    merges: bool,
) -> Result<&'static Pre, Untranslated> {
    let mut steps = Vec::new();
    flatten(pre_tokenizer, &mut steps)?;
    let bytes = |step: &Step<'_>| matches!(step, Gpt2 | Bytes);
    if steps.iter().position(bytes) != steps.len().checked_sub(1) {
        return refuse("its pre-tokenizer does not end with bytes");
    }
    if !merges {
        return Ok(&KNOWN[0]);
    }
    let same = |pre: &&Pre| pre.steps == steps && pre.ignore_merges == ignore_merges;
    let Some(pre) = KNOWN.iter().find(same) else {
        return refuse(format!(
            "its pre-tokenizer is none of {}: {}",
            names(),
            shortened(&pre_tokenizer.to_string())
        ));
    };
    Ok(pre)
}

/// The way of splitting called `name`.
///
/// # Errors
/// [`Untranslated`] if it is not in the table.
pub(super) fn named(name: &str) -> Result<&'static Pre, Untranslated> {
    let called = |pre: &&Pre| pre.name == name || pre.aliases.contains(&name);
    KNOWN.iter().find(called).map_or_else(
        || refuse(format!("its pre-tokenizer `{name}` is none of {}", names())),
        Ok,
    )
}

impl Pre {
    /// As `pre_tokenizer` says it.
    pub(super) fn json(&self) -> Json {
        let bytes = |words: bool| json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": words});
        let steps = self.steps.iter().map(|step| match step {
            Split(regex) => json!({
                "type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false
            }),
            Digits => json!({"type": "Digits", "individual_digits": true}),
            Gpt2 => bytes(true),
            Bytes => bytes(false),
        });
        json!({"type": "Sequence", "pretokenizers": steps.collect::<Vec<_>>()})
    }
}

fn flatten<'a>(pre_tokenizer: &'a Json, steps: &mut Vec<Step<'a>>) -> Result<(), Untranslated> {
    let kind = pre_tokenizer["type"].as_str().unwrap_or("none");
    let flag = |name: &str, expected: bool| pre_tokenizer[name].as_bool() == Some(expected);
    let step = match kind {
        "Sequence" => {
            let parts = pre_tokenizer["pretokenizers"].as_array();
            for part in parts.into_iter().flatten() {
                flatten(part, steps)?;
            }
            return Ok(());
        }
        "Split" => match pre_tokenizer["pattern"]["Regex"].as_str() {
            // Every character is in some word, so that nothing is removed.
            Some(regex) if covers(pre_tokenizer) => Split(regex),
            _ => return refuse("its pre-tokenizer splits in a way that llama.cpp does not"),
        },
        "Digits" if flag("individual_digits", true) => Digits,
        "ByteLevel" if flag("add_prefix_space", false) => {
            // Absent in older files, where it was always so.
            if flag("use_regex", false) {
                Bytes
            } else {
                Gpt2
            }
        }
        _ => {
            return refuse(format!(
                "llama.cpp has no pre-tokenizer `{kind}` with these options"
            ))
        }
    };
    steps.push(step);
    Ok(())
}

/// Whether matches become words and what is between them, if anything, too.
fn covers(split: &Json) -> bool {
    let invert = split["invert"].as_bool().unwrap_or(false);
    matches!(
        (split["behavior"].as_str(), invert),
        (Some("Isolated"), _) | (Some("Removed"), true)
    )
}

fn names() -> String {
    let names: Vec<_> = KNOWN.iter().map(|pre| pre.name).collect();
    names.join(", ")
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(300) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_is_found_again() {
        for pre in KNOWN {
            let found = find(&pre.json(), pre.ignore_merges, true).unwrap();
            assert_eq!(found.name, pre.name);
            for alias in pre.aliases {
                assert_eq!(named(alias).unwrap().name, pre.name);
            }
        }
    }

    #[test]
    fn names_are_distinct() {
        let all = |pre: &'static Pre| pre.aliases.iter().copied().chain([pre.name]);
        let mut names: Vec<_> = KNOWN.iter().flat_map(all).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn another_way_is_refused() {
        let mut other = KNOWN[2].json();
        other["pretokenizers"][0]["pattern"]["Regex"] = r"\w+|\s+".into();
        let Untranslated(reason) = find(&other, false, true).unwrap_err();
        assert!(
            reason.starts_with("its pre-tokenizer is none of gpt-2, smollm"),
            "{reason}"
        );
        // Merges that are ignored are another way.
        assert!(find(&KNOWN[2].json(), true, true).is_err());
        for other in [
            json!(null),
            json!({"type": "Whitespace"}),
            json!({"type": "Digits", "individual_digits": false}),
            json!({"type": "ByteLevel", "add_prefix_space": true, "use_regex": true}),
            json!({"type": "Split", "pattern": {"String": " "}, "behavior": "Isolated"}),
            json!({"type": "Sequence", "pretokenizers": []}),
        ] {
            assert!(find(&other, false, true).is_err(), "{other}");
        }
    }

    #[test]
    fn bytes_alone_are_split_any_way() {
        let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "use_regex": false});
        assert_eq!(find(&bytes, false, false).unwrap().name, "gpt-2");
        assert!(find(&bytes, false, true).is_err());
    }
}
