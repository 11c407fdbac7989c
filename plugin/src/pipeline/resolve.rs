//! A model's name → an open checkpoint.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;
use router_stats::checkpoint::{self, Checkpoint};
use router_stats::family::{Family, Keep, Topology};
use tokenizers::Tokenizer;

use super::Reporter;
use crate::cache::Cache;
use crate::demo::{self, Demo};
use crate::hub::{self, Hub, Listed, Token};
use crate::plan::Size;
use crate::surgery::{self, UqffDevice};
use crate::{Error, Result};

/// Which model, as a person says it.
#[derive(Debug, Clone, Default)]
pub struct ModelSource {
    /// A directory, a GGUF file, or a hub id, with its revision or not:
    /// `org/name@v1`. `None` is the demo model.
    pub model: Option<String>,
    /// Revision on the hub, if the id names none.
    pub revision: Option<String>,
    /// Token for the hub.
    pub token: Token,
}

impl ModelSource {
    /// A short name: the last part of the path or id, of a file without its
    /// ending.
    pub fn name(&self) -> String {
        let Some(model) = &self.model else {
            return demo::NAME.to_owned();
        };
        let path = Path::new(self.hub().map_or(model.as_str(), |(id, _)| id));
        // `.` and `..` have a name only as absolute paths.
        let absolute = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let named = if path.is_dir() { &absolute } else { path };
        if path.is_file() {
            return checkpoint::file_stem(path);
        }
        named
            .file_name()
            .map_or_else(|| model.clone(), |name| name.to_string_lossy().into_owned())
    }

    /// How others get the model: its id, if it is one on the hub.
    pub fn hub_id(&self) -> Option<String> {
        self.hub().map(|(id, _)| id.to_owned())
    }

    /// Id and revision of a model that is on the hub.
    fn hub(&self) -> Option<(&str, Option<&str>)> {
        let model = self.model.as_deref()?;
        let (id, revision) = hub::split_revision(model);
        let named = hub::is_id(id) && !Path::new(model).exists();
        named.then_some((id, revision.or(self.revision.as_deref())))
    }

    /// Finds the model's files, downloading them if it has to.
    ///
    /// # Errors
    /// [`Error::NoSuchModel`], [`Error::Hub`], or if the cache cannot be
    /// written.
    pub fn directory(&self, cache: &Cache, reporter: &dyn Reporter) -> Result<PathBuf> {
        let Some(model) = &self.model else {
            return Ok(Demo::unpack(cache, reporter)?.dir().to_path_buf());
        };
        let path = Path::new(model);
        if path.exists() {
            if self.revision.is_some() {
                return Err(Error::Option {
                    option: "--hf-revision",
                    expected: "a model on the hub".to_owned(),
                    found: format!("the local path {model}"),
                });
            }
            return Ok(path.to_path_buf());
        }
        let (id, revision) = self.named(model)?;
        let snapshot = Hub::from_env(self.token.clone()).snapshot(id, revision, reporter)?;
        let commit: String = snapshot.commit.chars().take(7).collect();
        reporter.report("Resolved", &format!("{id} @ {commit}"));
        Ok(snapshot.dir)
    }

    /// Asks the hub for the model's list of files, for `flag`, which is about
    /// models that are not here.
    ///
    /// # Errors
    /// [`Error::Option`] for a model that is here; [`Error::NoSuchModel`],
    /// [`Error::Hub`].
    pub fn listed(&self, flag: &'static str, reporter: &dyn Reporter) -> Result<Listed> {
        let local = match self.model.as_deref() {
            None => Some("the demo model"),
            Some(path) => Path::new(path).exists().then_some(path),
        };
        if let Some(local) = local {
            return Err(Error::Option {
                option: flag,
                expected: "a model on the hub, -m org/name; one that is here needs no such flag"
                    .to_owned(),
                found: local.to_owned(),
            });
        }
        let (id, revision) = self.named(self.model.as_deref().unwrap_or_default())?;
        let hub = Hub::from_env(self.token.clone());
        if hub.held(id, revision).is_some() {
            reporter.hint(&format!(
                "all of {id} is in the hub cache already: without {flag} it does not come again"
            ));
        }
        let listed = hub.list(id, revision)?;
        let commit: String = listed.commit().chars().take(7).collect();
        reporter.report("Resolved", &format!("{id} @ {commit}"));
        Ok(listed)
    }

    /// Id and revision of `model`, which is not here.
    fn named(&self, model: &str) -> Result<(&str, Option<&str>)> {
        let Some(named) = self.hub() else {
            return Err(Error::NoSuchModel {
                model: model.to_owned(),
            });
        };
        if let (Some(flag), Some(named)) = (&self.revision, hub::split_revision(model).1) {
            return Err(Error::Option {
                option: "--hf-revision",
                expected: format!("one revision, and {model} names {named}"),
                found: flag.clone(),
            });
        }
        Ok(named)
    }

    /// Opens the model. No weights are read yet.
    ///
    /// # Errors
    /// Those of [`directory`](Self::directory) and of opening a checkpoint.
    pub fn open(&self, device: &Device, cache: &Cache, reporter: &dyn Reporter) -> Result<Model> {
        Model::open(&self.directory(cache, reporter)?, self.name(), device)
    }
}

/// An open checkpoint with what identifies it.
#[derive(Clone)]
pub struct Model {
    /// Short name, for people.
    pub name: String,
    /// Hash of configuration and weights.
    pub fingerprint: String,
    /// Hash of the tokenizer and the other files beside the weights.
    pub companions: String,
    /// Ready to run.
    pub forward: router_stats::forward::Model,
}

impl Model {
    /// Opens the checkpoint in `dir`.
    ///
    /// # Errors
    /// Those of opening a checkpoint.
    pub fn open(dir: &Path, name: String, device: &Device) -> Result<Self> {
        Self::of(Checkpoint::open(dir)?, name, device)
    }

    /// An open checkpoint, whose fingerprint may be claimed.
    ///
    /// # Errors
    /// Those of opening a checkpoint.
    pub fn of(checkpoint: Checkpoint, name: String, device: &Device) -> Result<Self> {
        let fingerprint = checkpoint.fingerprint()?;
        let forward = router_stats::forward::Model::open(Arc::new(checkpoint), device)?;
        Ok(Self {
            name,
            fingerprint,
            companions: surgery::companions_hash(forward.checkpoint())?,
            forward,
        })
    }

    /// The checkpoint.
    pub fn checkpoint(&self) -> &Checkpoint {
        self.forward.checkpoint()
    }

    /// Its family.
    pub fn family(&self) -> &'static dyn Family {
        self.forward.family()
    }

    /// Its structure.
    pub fn topology(&self) -> &Topology {
        self.forward.topology()
    }

    /// Where it runs, and the engine with it.
    pub fn uqff_device(&self) -> UqffDevice {
        if self.forward.device().is_cpu() {
            UqffDevice::Cpu
        } else {
            UqffDevice::Gpu
        }
    }

    /// Its size.
    ///
    /// # Errors
    /// Those of reading the tensor list.
    pub fn size(&self) -> Result<Size> {
        let everything = Keep::all(self.topology());
        Ok(Size::of(
            self.checkpoint(),
            self.family(),
            self.topology(),
            &everything,
        )?)
    }

    /// The token between documents: `<|endoftext|>` if the tokenizer has it,
    /// else the first end token that `generation_config.json` or `config.json`
    /// names.
    pub fn separator(&self, tokenizer: &Tokenizer) -> Option<u32> {
        self.end_of_text(tokenizer).first().copied()
    }

    /// The tokens that end a text: `<|endoftext|>` if the tokenizer has it,
    /// then the end tokens that `generation_config.json` and `config.json`
    /// name.
    pub fn end_of_text(&self, tokenizer: &Tokenizer) -> Vec<u32> {
        let generation = self.checkpoint().dir().join("generation_config.json");
        let generation =
            crate::cache::read_json::<serde_json::Value>(&generation).unwrap_or_default();
        let mut ends: Vec<u32> = tokenizer.token_to_id("<|endoftext|>").into_iter().collect();
        for config in [&generation, self.checkpoint().config().value()] {
            let named = &config["eos_token_id"];
            let named = named
                .as_array()
                .map_or(std::slice::from_ref(named), Vec::as_slice);
            for token in named.iter().filter_map(serde_json::Value::as_u64) {
                if let Ok(token) = u32::try_from(token) {
                    if !ends.contains(&token) {
                        ends.push(token);
                    }
                }
            }
        }
        ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(model: &str) -> String {
        ModelSource {
            model: Some(model.to_owned()),
            ..ModelSource::default()
        }
        .name()
    }

    #[test]
    fn names_are_the_last_part_of_paths_and_ids() {
        assert_eq!(ModelSource::default().name(), "demo");
        assert_eq!(name("Qwen/Qwen3-30B-A3B"), "Qwen3-30B-A3B");
        assert_eq!(name("Qwen/Qwen3-30B-A3B@refs/pr/1"), "Qwen3-30B-A3B");
        assert_eq!(name("/no/such/dir"), "dir");
        let here = std::env::current_dir().unwrap();
        assert_eq!(name("."), here.file_name().unwrap().to_str().unwrap());
    }

    #[test]
    fn what_is_neither_a_path_nor_an_id_is_refused() {
        let cache = Cache::new("unused");
        for model in ["nothing", "./nothing/here", "/no/such/dir"] {
            let source = ModelSource {
                model: Some(model.to_owned()),
                ..ModelSource::default()
            };
            let error = source
                .directory(&cache, &router_stats::progress::Silent)
                .unwrap_err();
            assert!(
                matches!(error, Error::NoSuchModel { .. }),
                "{model}: {error}"
            );
        }
    }
}
