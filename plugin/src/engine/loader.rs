//! A loader that prunes first.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use candle_core::Device;
use mistralrs_core::{
    AutoDeviceMapParams, DeviceMapSetting, IsqType, Loader, ModelKind, ModelPaths,
    MultimodalLoaderBuilder, MultimodalSpecificConfig, NormalLoaderBuilder, NormalSpecificConfig,
    PagedAttentionConfig, Pipeline, TokenSource, TryIntoDType,
};
use tokio::sync::Mutex;

use super::paths;
use crate::hub::Token;
use crate::pipeline::{Job, ModelSource, Outcome};
use crate::surgery::Uqff;
use crate::{Error, Result};

/// A loaded model, as the engine passes it around.
type Loaded = Arc<Mutex<dyn Pipeline + Send + Sync>>;

/// Makes sure that the pruned checkpoint of a [`Job`] exists, then lets the
/// engine's own loader for its kind of model read it.
pub struct PruningLoader {
    job: Job,
    id: String,
    options: LoaderOptions,
    outcome: OnceLock<Outcome>,
}

/// How the engine's loader is set up.
#[derive(Debug, Clone, Default)]
pub struct LoaderOptions {
    /// Runs without a key-value cache.
    pub no_kv_cache: bool,
    /// A chat template for models that have none (`.json` or literal).
    pub chat_template: Option<String>,
    /// A chat template that replaces the model's (`.jinja`).
    pub jinja_explicit: Option<String>,
}

impl PruningLoader {
    /// A loader of what `job` makes.
    pub fn new(job: Job, options: LoaderOptions) -> Self {
        // The engine reports this id as the `model` of every response.
        let id = job.id();
        Self {
            job,
            id,
            options,
            outcome: OnceLock::new(),
        }
    }

    /// Calls the model `id`, whatever its job calls it.
    #[must_use]
    pub fn named(self, id: String) -> Self {
        Self { id, ..self }
    }

    /// Loads `outcome`, which the job has come to already.
    #[must_use]
    pub fn done(self, outcome: Outcome) -> Self {
        Self {
            outcome: OnceLock::from(outcome),
            ..self
        }
    }

    /// What was loaded, once it is.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.get()
    }

    /// Prunes the model of `source` unless that was done before, and lets the
    /// engine load the result.
    fn load(&self, source: ModelSource, load: &EngineLoad<'_>) -> anyhow::Result<Loaded> {
        let outcome = match self.outcome.get() {
            Some(done) => done,
            None => {
                let job = Job {
                    source,
                    ..self.job.clone()
                };
                let outcome = job.run()?;
                self.outcome.get_or_init(|| outcome)
            }
        };
        if let Some(uqff) = outcome.uqff {
            return self.load_uqff(&outcome.dir, uqff, load);
        }
        let inner = self.inner(outcome.images)?;
        let paths = paths::local(&outcome.dir)?;
        let mapper = match &load.mapper {
            DeviceMapSetting::Auto(_) if outcome.images => {
                DeviceMapSetting::Auto(AutoDeviceMapParams::default_multimodal())
            }
            mapper => mapper.clone(),
        };
        inner.load_model_from_path(
            &paths,
            load.dtype,
            load.device,
            load.silent,
            mapper,
            load.isq,
            load.paged,
        )
    }

    /// Lets the engine load a directory of UQFF, which it does by the name of
    /// the directory alone; that becomes the name of the model in its answers.
    fn load_uqff(&self, dir: &Path, uqff: Uqff, load: &EngineLoad<'_>) -> anyhow::Result<Loaded> {
        paths::check(dir)?;
        let dtype = load.dtype.try_into_dtype(&[load.device])?;
        if dtype.as_str() != uqff.computes_in() {
            let expected = format!(
                "{} here, where layers keep different numbers of experts or blocks are those of a GGUF file",
                uqff.computes_in()
            );
            return Err(Error::Option {
                option: "--dtype",
                expected,
                found: dtype.as_str().to_owned(),
            }
            .into());
        }
        let options = self.options.clone();
        let config = NormalSpecificConfig {
            from_uqff: Some(vec![uqff.first_file().into()]),
            ..NormalSpecificConfig::default()
        };
        let inner = NormalLoaderBuilder::new(
            config,
            chat_template(dir, options.chat_template)?,
            None,
            Some(dir.display().to_string()),
            options.no_kv_cache,
            options.jinja_explicit,
        )
        .build(None)?;
        // The weights are quantised already.
        inner.load_model_from_hf(
            None,
            TokenSource::None,
            load.dtype,
            load.device,
            load.silent,
            load.mapper.clone(),
            None,
            load.paged,
        )
    }

    /// The engine's loader for text models, or for those that also see images.
    ///
    /// # Errors
    /// If the engine cannot build it.
    fn inner(&self, images: bool) -> Result<Box<dyn Loader>> {
        let options = self.options.clone();
        let id = Some(self.id.clone());
        if images {
            let builder = MultimodalLoaderBuilder::new(
                MultimodalSpecificConfig::default(),
                options.chat_template,
                None,
                id,
                options.jinja_explicit,
            );
            return Ok(builder.build(None));
        }
        NormalLoaderBuilder::new(
            NormalSpecificConfig::default(),
            options.chat_template,
            None,
            id,
            options.no_kv_cache,
            options.jinja_explicit,
        )
        .build(None)
        .map_err(super::failed("setting up the loader"))
    }
}

/// The chat template to give the engine with a directory of UQFF, for which it
/// must be a file and replaces the one that the directory has.
fn chat_template(dir: &Path, template: Option<String>) -> Result<Option<String>> {
    match template.filter(|_| !has_chat_template(dir)) {
        Some(literal) if !Path::new(&literal).is_file() => Err(Error::Option {
            option: "--chat-template",
            expected: "a file, where layers keep different numbers of experts".to_owned(),
            found: "a template".to_owned(),
        }),
        template => Ok(template),
    }
}

/// Whether a checkpoint in `dir` says how turns of a chat are put into words.
pub fn has_chat_template(dir: &Path) -> bool {
    let config = || {
        let text = std::fs::read(dir.join("tokenizer_config.json")).ok()?;
        serde_json::from_slice::<serde_json::Value>(&text).ok()
    };
    ["chat_template.jinja", "chat_template.json"]
        .iter()
        .any(|name| dir.join(name).is_file())
        || config().is_some_and(|config| {
            config
                .get("chat_template")
                .is_some_and(|template| !template.is_null())
        })
}

/// What the engine is asked to load with.
struct EngineLoad<'a> {
    dtype: &'a dyn TryIntoDType,
    device: &'a Device,
    silent: bool,
    mapper: DeviceMapSetting,
    isq: Option<IsqType>,
    paged: Option<PagedAttentionConfig>,
}

impl Loader for PruningLoader {
    fn load_model_from_hf(
        &self,
        revision: Option<String>,
        token_source: TokenSource,
        dtype: &dyn TryIntoDType,
        device: &Device,
        silent: bool,
        mapper: DeviceMapSetting,
        in_situ_quant: Option<IsqType>,
        paged_attn_config: Option<PagedAttentionConfig>,
    ) -> anyhow::Result<Loaded> {
        let source = ModelSource {
            revision,
            token: token(token_source)?,
            ..self.job.source.clone()
        };
        let load = EngineLoad {
            dtype,
            device,
            silent,
            mapper,
            isq: in_situ_quant,
            paged: paged_attn_config,
        };
        self.load(source, &load)
    }

    fn load_model_from_path(
        &self,
        paths: &Box<dyn ModelPaths>,
        dtype: &dyn TryIntoDType,
        device: &Device,
        silent: bool,
        mapper: DeviceMapSetting,
        in_situ_quant: Option<IsqType>,
        paged_attn_config: Option<PagedAttentionConfig>,
    ) -> anyhow::Result<Loaded> {
        let dir = paths
            .get_config_filename()
            .parent()
            .unwrap_or(Path::new("."));
        let source = ModelSource {
            model: Some(dir.display().to_string()),
            ..ModelSource::default()
        };
        let load = EngineLoad {
            dtype,
            device,
            silent,
            mapper,
            isq: in_situ_quant,
            paged: paged_attn_config,
        };
        self.load(source, &load)
    }

    fn get_id(&self) -> String {
        self.id.clone()
    }

    fn get_kind(&self) -> ModelKind {
        ModelKind::Normal
    }
}

/// The engine's way to name a token → ours.
fn token(source: TokenSource) -> Result<Token> {
    Ok(match source {
        TokenSource::CacheToken => Token::Ambient,
        TokenSource::None => Token::Anonymous,
        TokenSource::Literal(token) => Token::Literal(token),
        TokenSource::EnvVar(name) => Token::from_variable(&name)?,
        TokenSource::Path(path) => Token::from_file(Path::new(&path))?,
    })
}
