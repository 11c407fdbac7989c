//! A loader that prunes first.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use candle_core::Device;
use mistralrs_core::{
    DeviceMapSetting, IsqType, Loader, ModelKind, ModelPaths, NormalLoaderBuilder,
    NormalSpecificConfig, PagedAttentionConfig, Pipeline, TokenSource, TryIntoDType,
};
use tokio::sync::Mutex;

use super::paths;
use crate::hub::Token;
use crate::pipeline::{Job, ModelSource, Outcome};
use crate::Result;

/// A loaded model, as the engine passes it around.
type Loaded = Arc<Mutex<dyn Pipeline + Send + Sync>>;

/// Makes sure that the pruned checkpoint of a [`Job`] exists, then lets the
/// engine's loader for text models read it.
pub struct PruningLoader {
    job: Job,
    id: String,
    inner: Box<dyn Loader>,
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
    /// Decorates the engine's loader.
    ///
    /// # Errors
    /// If the engine cannot build its loader.
    pub fn new(job: Job, options: LoaderOptions) -> Result<Self> {
        let id = job.id();
        // The engine reports this id as the `model` of every response.
        let inner = NormalLoaderBuilder::new(
            NormalSpecificConfig::default(),
            options.chat_template,
            None,
            Some(id.clone()),
            options.no_kv_cache,
            options.jinja_explicit,
        )
        .build(None)
        .map_err(super::failed("setting up the loader"))?;
        Ok(Self {
            job,
            id,
            inner,
            outcome: OnceLock::new(),
        })
    }

    /// What was loaded, once it is.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.outcome.get()
    }

    /// Prunes the model of `source` unless that was done before, and lists the
    /// files to load.
    fn prepare(&self, source: ModelSource) -> Result<Box<dyn ModelPaths>> {
        let outcome = Job {
            source,
            ..self.job.clone()
        }
        .run()?;
        let paths = paths::local(&outcome.dir)?;
        // Loading again gives the same outcome.
        let _ = self.outcome.set(outcome);
        Ok(paths)
    }
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
        let paths = self.prepare(source)?;
        self.inner.load_model_from_path(
            &paths,
            dtype,
            device,
            silent,
            mapper,
            in_situ_quant,
            paged_attn_config,
        )
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
        let paths = self.prepare(source)?;
        self.inner.load_model_from_path(
            &paths,
            dtype,
            device,
            silent,
            mapper,
            in_situ_quant,
            paged_attn_config,
        )
    }

    fn get_id(&self) -> String {
        self.id.clone()
    }

    fn get_kind(&self) -> ModelKind {
        self.inner.get_kind()
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
