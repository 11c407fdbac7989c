//! Which files of a checkpoint go with its weights.
//!
//! What a loader, a chat server or a lawyer needs, by an allow-list; code
//! (`*.py`) is never among them. They are downloaded and copied.

/// The model card.
pub(crate) const CARD: &str = "README.md";

/// Files that go along if they are there.
const NAMES: &[&str] = &[
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
    "vocab.json",
    "vocab.txt",
];

/// Beginnings, in capitals, of the names of texts that go along.
const PREFIXES: &[&str] = &["LICENSE", "LICENCE", "NOTICE", "USE_POLICY"];

/// Whether the file called `name` goes along.
pub(crate) fn is_companion(name: &str) -> bool {
    NAMES.contains(&name) || is_text(name)
}

/// Whether the file called `name` is a text on terms.
pub(crate) fn is_text(name: &str) -> bool {
    if name.contains('/') {
        return false;
    }
    let (stem, ending) = name.rsplit_once('.').unwrap_or((name, ""));
    // A number is part of the name: LICENSE-2.0.
    let text = matches!(&*ending.to_ascii_lowercase(), "md" | "txt")
        || ending.bytes().all(|byte| byte.is_ascii_digit());
    let stem = stem.to_ascii_uppercase();
    text && PREFIXES.iter().any(|prefix| stem.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_tokenizers_are_companions_but_code_and_weights_are_not() {
        for name in [
            "tokenizer.json",
            "merges.txt",
            "LICENSE",
            "LICENSE-MIT.txt",
            "LICENSE-2.0",
            "Notice.md",
            "LICENCE",
        ] {
            assert!(is_companion(name), "{name}");
        }
        for name in [
            "config.json",
            "README.md",
            "model.safetensors",
            "modeling_x.py",
            "license.py",
            "LICENSE/of.txt",
            "notes.txt",
            ".env",
        ] {
            assert!(!is_companion(name), "{name}");
        }
    }
}
