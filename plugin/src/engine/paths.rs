//! The files of a checkpoint directory, as the engine wants them listed.

use std::path::Path;

use mistralrs_core::{AdapterPaths, LocalModelPaths, ModelPaths};
use router_stats::checkpoint::Checkpoint;
use serde::de::IgnoredAny;

use crate::Result;

/// Lists the files of the checkpoint in `dir`. Those that hold weights are the
/// ones that [`Checkpoint::open`] takes.
///
/// The chat template is `chat_template.jinja` if there is one, else what
/// `tokenizer_config.json` holds; the engine panics on a file that it cannot
/// parse, so those that are JSON are parsed here first.
///
/// # Errors
/// If the checkpoint does not open, a file that must be JSON is not, or the
/// tokenizer is absent.
pub(super) fn local(dir: &Path) -> Result<Box<dyn ModelPaths>> {
    let existing = |name: &str| Some(dir.join(name)).filter(|path| path.is_file());
    check(dir)?;
    let tokenizer_config = existing("tokenizer_config.json");
    let checkpoint = Checkpoint::open(dir)?;
    let weights = checkpoint.files().map(Path::to_path_buf).collect();
    Ok(Box::new(LocalModelPaths {
        tokenizer_filename: dir.join("tokenizer.json"),
        config_filename: dir.join("config.json"),
        template_filename: existing("chat_template.jinja").or(tokenizer_config),
        filenames: weights,
        adapter_paths: AdapterPaths::None,
        gen_conf: existing("generation_config.json"),
        preprocessor_config: existing("preprocessor_config.json"),
        processor_config: existing("processor_config.json"),
        chat_template_json_filename: existing("chat_template.json"),
    }))
}

/// Bytes of the files of weights in a directory of UQFF.
///
/// # Errors
/// If the directory cannot be read.
pub(super) fn weights(dir: &Path) -> Result<u64> {
    let failed = router_stats::Error::io(dir);
    let sum = || -> std::io::Result<u64> {
        let mut bytes = 0;
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.ends_with(".uqff") || name.ends_with(".safetensors") {
                bytes += entry.metadata()?.len();
            }
        }
        Ok(bytes)
    };
    Ok(sum().map_err(failed)?)
}

/// Fails unless the files beside the weights in `dir` are those that the engine
/// needs and can parse.
///
/// # Errors
/// If a file that must be JSON is not, or the tokenizer is absent.
pub(super) fn check(dir: &Path) -> Result<()> {
    if !dir.join("tokenizer.json").is_file() {
        return Err(router_stats::Error::NoTokenizer {
            path: dir.to_path_buf(),
        }
        .into());
    }
    for name in [
        "tokenizer_config.json",
        "generation_config.json",
        "preprocessor_config.json",
        "processor_config.json",
    ] {
        let path = dir.join(name);
        if path.is_file() {
            json(&path)?;
        }
    }
    Ok(())
}

/// Refuses a file that is not JSON.
fn json(path: &Path) -> Result<()> {
    let text = std::fs::read(path).map_err(router_stats::Error::io(path))?;
    match serde_json::from_slice::<IgnoredAny>(&text) {
        Ok(_) => Ok(()),
        Err(source) => Err(router_stats::Error::Json {
            path: path.to_path_buf(),
            source,
        }
        .into()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use safetensors::tensor::{Dtype, TensorView};

    use super::*;

    fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    /// Writes a file of one tensor.
    fn weights(dir: &Path, file: &str, tensor: &str) {
        let view = TensorView::new(Dtype::F32, vec![1], &[0; 4]).unwrap();
        safetensors::serialize_to_file([(tensor, view)], None, &dir.join(file)).unwrap();
    }

    fn listed(dir: &Path) -> Vec<String> {
        let paths = local(dir).unwrap();
        let name = |path: &PathBuf| path.strip_prefix(dir).unwrap().display().to_string();
        paths.get_weight_filenames().iter().map(name).collect()
    }

    #[test]
    fn weights_are_the_files_that_the_checkpoint_opens() {
        let index =
            r#"{"weight_map": {"a": "1.safetensors", "b": "2.safetensors", "c": "1.safetensors"}}"#;
        let dir = directory(&[
            ("config.json", "{}"),
            ("tokenizer.json", "{}"),
            ("model.safetensors.index.json", index),
        ]);
        weights(dir.path(), "2.safetensors", "b");
        let views = ["a", "c"].map(|name| {
            let view = TensorView::new(Dtype::F32, vec![1], &[0; 4]).unwrap();
            (name, view)
        });
        safetensors::serialize_to_file(views, None, &dir.path().join("1.safetensors")).unwrap();
        assert_eq!(listed(dir.path()), ["1.safetensors", "2.safetensors"]);

        weights(dir.path(), "model.safetensors", "a");
        assert_eq!(listed(dir.path()), ["model.safetensors"]);
    }

    #[test]
    fn no_index_leads_out_of_the_directory() {
        let dir = directory(&[]);
        let inner = dir.path().join("inner");
        std::fs::create_dir(&inner).unwrap();
        weights(dir.path(), "x.safetensors", "a");
        let index = r#"{"weight_map": {"a": "../x.safetensors"}}"#;
        for (name, text) in [
            ("config.json", "{}"),
            ("tokenizer.json", "{}"),
            ("model.safetensors.index.json", index),
        ] {
            std::fs::write(inner.join(name), text).unwrap();
        }
        let error = local(&inner).unwrap_err().to_string();
        assert!(error.contains("../x.safetensors"), "{error}");
    }

    #[test]
    fn the_template_is_found() {
        let dir = directory(&[
            ("config.json", "{}"),
            ("tokenizer.json", "{}"),
            ("tokenizer_config.json", "{}"),
        ]);
        weights(dir.path(), "model.safetensors", "a");
        let template = || {
            let paths = local(dir.path()).unwrap();
            paths.get_template_filename().clone().unwrap()
        };
        assert!(template().ends_with("tokenizer_config.json"));
        std::fs::write(dir.path().join("chat_template.jinja"), "").unwrap();
        assert!(template().ends_with("chat_template.jinja"));
    }

    #[test]
    fn what_the_engine_would_panic_on_is_an_error() {
        assert!(local(directory(&[]).path()).is_err());
        for name in [
            "tokenizer_config.json",
            "generation_config.json",
            "preprocessor_config.json",
            "processor_config.json",
        ] {
            let dir = directory(&[("tokenizer.json", "{}"), (name, "not json")]);
            assert!(local(dir.path()).unwrap_err().to_string().contains(name));
        }
    }
}
