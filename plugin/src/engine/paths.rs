//! The files of a checkpoint directory, as the engine wants them listed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use mistralrs_core::{AdapterPaths, LocalModelPaths, ModelPaths};
use serde_json::Value;

use crate::Result;

/// Lists the files of the checkpoint in `dir`.
///
/// The chat template is `chat_template.jinja` if there is one, else what
/// `tokenizer_config.json` holds; the engine panics on a file that it cannot
/// parse, so both JSON files are parsed here first.
///
/// # Errors
/// If the index, `tokenizer_config.json` or `generation_config.json` is not
/// JSON, or the tokenizer is absent.
pub(super) fn local(dir: &Path) -> Result<Box<dyn ModelPaths>> {
    let existing = |name: &str| Some(dir.join(name)).filter(|path| path.is_file());
    let tokenizer = existing("tokenizer.json").ok_or_else(|| router_stats::Error::NoTokenizer {
        path: dir.to_path_buf(),
    })?;
    let tokenizer_config = existing("tokenizer_config.json");
    let generation_config = existing("generation_config.json");
    for path in [&tokenizer_config, &generation_config]
        .into_iter()
        .flatten()
    {
        json(path)?;
    }
    Ok(Box::new(LocalModelPaths {
        tokenizer_filename: tokenizer,
        config_filename: dir.join("config.json"),
        template_filename: existing("chat_template.jinja").or(tokenizer_config),
        filenames: weights(dir)?,
        adapter_paths: AdapterPaths::None,
        gen_conf: generation_config,
        preprocessor_config: None,
        processor_config: None,
        chat_template_json_filename: existing("chat_template.json"),
    }))
}

/// The shards that the index names, else the one file.
fn weights(dir: &Path) -> Result<Vec<PathBuf>> {
    let index = dir.join("model.safetensors.index.json");
    if !index.is_file() {
        return Ok(vec![dir.join("model.safetensors")]);
    }
    let shards: BTreeSet<PathBuf> = json(&index)?["weight_map"]
        .as_object()
        .into_iter()
        .flat_map(|map| map.values())
        .filter_map(|name| Some(dir.join(name.as_str()?)))
        .collect();
    Ok(shards.into_iter().collect())
}

fn json(path: &Path) -> Result<Value> {
    let text = std::fs::read(path).map_err(router_stats::Error::io(path))?;
    serde_json::from_slice(&text).map_err(|source| {
        router_stats::Error::Json {
            path: path.to_path_buf(),
            source,
        }
        .into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    #[test]
    fn shards_are_listed_once_and_the_template_is_found() {
        let index = r#"{"weight_map": {"a": "model-2.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"}}"#;
        let dir = directory(&[
            ("tokenizer.json", "{}"),
            ("tokenizer_config.json", "{}"),
            ("model.safetensors.index.json", index),
        ]);
        let paths = local(dir.path()).unwrap();
        let names: Vec<_> = paths
            .get_weight_filenames()
            .iter()
            .map(|path| path.file_name().unwrap())
            .collect();
        assert_eq!(names, ["model-1.safetensors", "model-2.safetensors"]);
        assert!(paths
            .get_template_filename()
            .as_ref()
            .unwrap()
            .ends_with("tokenizer_config.json"));
        std::fs::write(dir.path().join("chat_template.jinja"), "").unwrap();
        let paths = local(dir.path()).unwrap();
        assert!(paths
            .get_template_filename()
            .as_ref()
            .unwrap()
            .ends_with("chat_template.jinja"));
    }

    #[test]
    fn what_the_engine_would_panic_on_is_an_error() {
        assert!(local(directory(&[]).path()).is_err());
        for name in ["tokenizer_config.json", "generation_config.json"] {
            let dir = directory(&[("tokenizer.json", "{}"), (name, "not json")]);
            assert!(local(dir.path()).unwrap_err().to_string().contains(name));
        }
    }
}
