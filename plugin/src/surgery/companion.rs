//! The files of a checkpoint that are not weights.
//!
//! Copied are the files that a loader, a chat server or a lawyer needs, by an
//! allow-list; nothing else in the source's directory is looked at, and code
//! (`*.py`) is never copied. `config.json` is rewritten by the family with
//! unknown keys and their order kept. Does not own what the card says (see
//! [`super::card`]).

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use router_stats::calibration::{self, ChatTemplate};
use router_stats::checkpoint::Checkpoint;
use router_stats::family::Config;
use router_stats::gguf::{tokenizer_json, Header};
use router_stats::Error as StatsError;
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{uqff, Cut, Layout};
use crate::Result;

/// Files that are copied if they are there.
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

/// Beginnings, in capitals, of the names of texts that are copied.
const PREFIXES: &[&str] = &["LICENSE", "LICENCE", "NOTICE", "USE_POLICY"];

/// The configuration.
const CONFIG: &str = "config.json";

/// The model card.
const CARD: &str = "README.md";

/// Writes to `to` what the layout has beside weights: the configuration and the
/// companions, or, of a layout whose weights' file has both, texts alone.
///
/// # Errors
/// Those of [`config`], and I/O errors.
pub(super) fn write(cut: &Cut<'_>, to: &Path) -> Result<()> {
    if let Layout::Gguf(_) = cut.layout {
        return match cut.checkpoint.gguf() {
            None => copy_those(cut.checkpoint.dir(), to, is_text),
            // What lies beside a GGUF file may be another model's.
            Some(_) => Ok(()),
        };
    }
    write_json(&to.join(CONFIG), &config(cut)?)?;
    copy(cut.checkpoint, to)
}

/// Copies the companions of a checkpoint to `to`. Of a GGUF file they are
/// written as its metadata says, but for a tokenizer beside it.
///
/// # Errors
/// I/O errors, and those of reading the tokenizer of a GGUF file.
pub fn copy(checkpoint: &Checkpoint, to: &Path) -> Result<()> {
    let Some(header) = checkpoint.gguf() else {
        return copy_files(checkpoint.dir(), to);
    };
    match checkpoint.tokenizer_file() {
        Some(path) => copy_file(&path, &to.join("tokenizer.json"))?,
        None => {
            let tokenizer = tokenizer_json(&header.metadata);
            let tokenizer = tokenizer.map_err(|it| it.at(checkpoint.dir()))?;
            write_json(&to.join("tokenizer.json"), &tokenizer)?;
        }
    }
    let mut tokens = serde_json::Map::new();
    for (name, text) in calibration::special_tokens(&header.metadata) {
        tokens.insert(name.to_owned(), text.into());
    }
    if let Some(template) = ChatTemplate::of(checkpoint)? {
        tokens.insert("chat_template".to_owned(), template.source().into());
    }
    write_json(&to.join("tokenizer_config.json"), &tokens)?;
    let config = checkpoint.config().value();
    let ends: serde_json::Map<_, _> = ["bos_token_id", "eos_token_id", "pad_token_id"]
        .iter()
        .filter_map(|&key| Some((key.to_owned(), config.get(key)?.clone())))
        .collect();
    write_json(&to.join("generation_config.json"), &ends)
}

fn copy_files(from: &Path, to: &Path) -> Result<()> {
    copy_those(from, to, is_companion)
}

fn copy_those(from: &Path, to: &Path, wanted: fn(&str) -> bool) -> Result<()> {
    for entry in fs::read_dir(from).map_err(StatsError::io(from))? {
        let entry = entry.map_err(StatsError::io(from))?;
        // Checkpoints in a hub cache are links to blobs, so links are followed.
        if entry.file_name().to_str().is_some_and(wanted) && entry.path().is_file() {
            copy_file(&entry.path(), &to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Hex SHA-256 of what a checkpoint has beside its weights: the names and
/// contents of the companions in its directory, or the metadata of its GGUF
/// file and the tokenizer beside it. What is made of a checkpoint depends on
/// them as on its weights: they say how text becomes tokens, and they are
/// copied.
///
/// # Errors
/// I/O errors.
pub fn companions_hash(checkpoint: &Checkpoint) -> Result<String> {
    let dir = checkpoint.dir();
    let Some(header) = checkpoint.gguf() else {
        return directory_hash(dir);
    };
    let mut hash = Sha256::new();
    hash.update(Header::encode(&header.metadata, &[], 1));
    if let Some(path) = checkpoint.tokenizer_file() {
        hash.update(fs::read(&path).map_err(StatsError::io(&path))?);
    }
    Ok(crate::cache::hex(&hash.finalize()))
}

fn directory_hash(dir: &Path) -> Result<String> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(StatsError::io(dir))? {
        let entry = entry.map_err(StatsError::io(dir))?;
        if let Some(name) = entry.file_name().to_str().filter(|name| is_companion(name)) {
            if entry.path().is_file() {
                names.push(name.to_owned());
            }
        }
    }
    names.sort_unstable();
    let mut hash = Sha256::new();
    for name in names {
        let path = dir.join(&name);
        let content = fs::read(&path).map_err(StatsError::io(&path))?;
        for part in [name.as_bytes(), &content] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    Ok(crate::cache::hex(&hash.finalize()))
}

/// `config.json` for what stays, as the reader of the layout needs it.
///
/// # Errors
/// [`Error::Config`](router_stats::Error::Config) if the family cannot read
/// what it has rewritten.
pub(super) fn config(cut: &Cut<'_>) -> Result<Value> {
    let source = cut.checkpoint.config();
    let mut config = source.value().clone();
    let levelled = cut.layout.uqff().map(|_| uqff::levelled(cut));
    let keep = levelled.as_ref().unwrap_or(cut.keep);
    cut.family.rewrite_config(&mut config, cut.topology, keep);
    if cut.layout.is_for_engine() {
        let kept = Config::new(source.path(), config.clone())?;
        let topology = cut.family.topology(&kept)?;
        cut.family.spell_for_engine(&mut config, &topology);
        if source.architecture().is_none() {
            config["architectures"] = vec![cut.family.architectures()[0]].into();
        }
        super::values::spell(cut, &mut config);
        if levelled.is_some() {
            uqff::spell(cut, &mut config);
        }
    } else {
        cut.family.spell_for_others(&mut config);
    }
    Ok(config)
}

/// Writes the source's model card, or `# name` if it has none, and `section`;
/// atomically, since it may replace the card of a checkpoint in use.
///
/// # Errors
/// I/O errors.
pub(super) fn write_card(from: &Path, to: &Path, name: &str, section: &str) -> Result<()> {
    let source = from.join(CARD);
    let card = match fs::read(&source) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        // A GGUF file is no directory.
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            format!("# {name}\n")
        }
        Err(e) => return Err(StatsError::io(source)(e).into()),
    };
    Ok(router_stats::atomic::write(&to.join(CARD), |file| {
        write!(file, "{}\n\n{section}", card.trim_end())
    })?)
}

/// Writes `value` with an indent of two spaces.
///
/// # Errors
/// I/O errors.
pub(super) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let json = serde_json::to_string_pretty(value).map_err(|source| StatsError::Json {
        path: path.to_path_buf(),
        source,
    })?;
    Ok(fs::write(path, json + "\n").map_err(StatsError::io(path))?)
}

fn is_companion(name: &str) -> bool {
    NAMES.contains(&name) || is_text(name)
}

fn is_text(name: &str) -> bool {
    let (stem, ending) = name.rsplit_once('.').unwrap_or((name, ""));
    // A number is part of the name: LICENSE-2.0.
    let text = matches!(&*ending.to_ascii_lowercase(), "md" | "txt")
        || ending.bytes().all(|byte| byte.is_ascii_digit());
    let stem = stem.to_ascii_uppercase();
    text && PREFIXES.iter().any(|prefix| stem.starts_with(prefix))
}

/// Unlike [`fs::copy`], does not carry over that the source is read-only.
fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let mut source = File::open(from).map_err(StatsError::io(from))?;
    let mut target = File::create(to).map_err(StatsError::io(to))?;
    io::copy(&mut source, &mut target).map_err(StatsError::io(to))?;
    Ok(())
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
            "notes.txt",
            ".env",
        ] {
            assert!(!is_companion(name), "{name}");
        }
    }

    #[test]
    fn the_hash_sees_companions_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        let hash = || directory_hash(dir.path()).unwrap();
        let mut seen = vec![hash()];
        for (name, text) in [
            ("tokenizer.json", "{}"),
            ("tokenizer.json", "{ }"),
            ("chat_template.jinja", "{{ messages }}"),
            ("generation_config.json", "{}"),
        ] {
            write(name, text);
            assert!(!seen.contains(&hash()), "{name}");
            seen.push(hash());
        }
        for name in ["notes.txt", "model.safetensors", "pruning_plan.json"] {
            write(name, "x");
            assert_eq!(seen.last(), Some(&hash()), "{name}");
        }
        fs::remove_file(dir.path().join("generation_config.json")).unwrap();
        assert_eq!(hash(), seen[3]);
    }

    #[test]
    fn the_card_keeps_front_matter_and_gains_a_section() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::write(
            from.path().join(CARD),
            "---\nlicense: apache-2.0\n---\n# Model\n\n\n",
        )
        .unwrap();
        write_card(from.path(), to.path(), "Model", "## Pruned\n").unwrap();
        let card = fs::read_to_string(to.path().join(CARD)).unwrap();
        assert_eq!(
            card,
            "---\nlicense: apache-2.0\n---\n# Model\n\n## Pruned\n"
        );
    }

    #[test]
    fn without_a_card_one_is_begun() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write_card(from.path(), to.path(), "Model", "## Pruned\n").unwrap();
        assert_eq!(
            fs::read_to_string(to.path().join(CARD)).unwrap(),
            "# Model\n\n## Pruned\n"
        );
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_copies_are_writable() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let blob = from.path().join("blob");
        fs::write(&blob, "{}").unwrap();
        let mut permissions = fs::metadata(&blob).unwrap().permissions();
        permissions.set_readonly(true);
        fs::set_permissions(&blob, permissions).unwrap();
        std::os::unix::fs::symlink(&blob, from.path().join("tokenizer.json")).unwrap();
        fs::create_dir(from.path().join("vocab.json")).unwrap();
        copy_files(from.path(), to.path()).unwrap();
        let files: Vec<_> = fs::read_dir(to.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(files, ["tokenizer.json"]);
        let copied = fs::symlink_metadata(to.path().join("tokenizer.json")).unwrap();
        assert!(copied.is_file() && !copied.permissions().readonly());
    }
}
