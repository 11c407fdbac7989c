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
use crate::Result;

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

    /// What was loaded, once it is.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.get()
    }

    /// Prunes the model of `source` unless that was done before, and lets the
    /// engine load the result.
    fn load(&self, source: ModelSource, load: &EngineLoad<'_>) -> anyhow::Result<Loaded> {
        let outcome = Job {
            source,
            ..self.job.clone()
        }
        .run()?;
        let inner = self.inner(outcome.images)?;
        let paths = paths::local(&outcome.dir)?;
        let mapper = match &load.mapper {
            DeviceMapSetting::Auto(_) if outcome.images => {
                DeviceMapSetting::Auto(AutoDeviceMapParams::default_multimodal())
            }
            mapper => mapper.clone(),
        };
        // Loading again gives the same outcome.
        let _ = self.outcome.set(outcome);
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

/// Our way to name a token → the engine's.
pub(super) fn token_source(token: &Token) -> TokenSource {
    match token {
        Token::Ambient => TokenSource::CacheToken,
        Token::Anonymous => TokenSource::None,
        Token::Literal(token) => TokenSource::Literal(token.clone()),
    }
}
