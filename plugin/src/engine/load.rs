//! A model in the engine, ready to be asked.

use std::sync::Arc;

use mistralrs_core::{
    AutoDeviceMapParams, DeviceMapSetting, Loader, MistralRs, MistralRsBuilder, SchedulerConfig,
};
use tokenizers::Tokenizer;

use super::loader::{self, PruningLoader};
use super::options::{uneven_weights, EngineOptions};
use super::probe::probe;
use crate::pipeline::{Job, Outcome};
use crate::{Error, Result};

/// A loaded model.
pub(crate) struct Engine {
    /// Takes requests; the engine's thread ends with it.
    pub(crate) mistralrs: Arc<MistralRs>,
    /// What the model is called.
    pub(crate) id: String,
    /// Tokens that end a text.
    pub(crate) end_of_text: Vec<u32>,
    /// Tokens of a prompt and its answer together; the engine fails past them.
    pub(crate) context: usize,
    /// What was loaded.
    pub(crate) outcome: Outcome,
    prefix_cache: bool,
}

impl Engine {
    /// Does the job and loads its result. Call it within a runtime that has
    /// more than one thread.
    ///
    /// # Errors
    /// Those of the job, and of the engine.
    pub(crate) async fn load(job: Job, options: &EngineOptions) -> Result<Self> {
        let device = job.device.clone();
        let paged = options.paged_attention.config(&device)?;
        let (revision, token) = (
            job.source.revision.clone(),
            loader::token_source(&job.source.token),
        );
        let (isq, dtype) = (options.isq(&device)?, options.dtype(&device)?);
        let mapper = if device.is_cpu() {
            DeviceMapSetting::dummy()
        } else {
            DeviceMapSetting::Auto(AutoDeviceMapParams::default_text())
        };
        let job = Job {
            uneven_weights: uneven_weights(isq),
            ..job
        };
        let loader = PruningLoader::new(job, options.loader.clone());
        let pipeline = tokio::task::block_in_place(|| {
            loader.load_model_from_hf(revision, token, &dtype, &device, true, mapper, isq, paged)
        })
        .map_err(super::failed("loading the model"))?;
        let outcome = loader.outcome().cloned().ok_or(Error::Engine {
            what: "loading the model",
            reason: "the loader was not asked for a model".to_owned(),
        })?;
        let metadata = pipeline.lock().await.get_metadata();
        let scheduler = match metadata.cache_config.clone() {
            Some(config) => SchedulerConfig::PagedAttentionMeta {
                max_num_seqs: options.max_seqs,
                config,
            },
            None => options.unpaged()?,
        };
        let prefixes = options.prefixes(&device);
        let mistralrs = MistralRsBuilder::new(pipeline, scheduler, false, None)
            .with_no_kv_cache(options.loader.no_kv_cache)
            .with_no_prefix_cache(prefixes == 0)
            .with_prefix_cache_n(prefixes)
            .with_disable_eos_stop(options.run_on)
            .with_model_id(loader.get_id())
            .build()
            .await;
        probe(&mistralrs).await?;
        Ok(Self {
            mistralrs,
            id: loader.get_id(),
            end_of_text: metadata.eos_tok.clone(),
            context: metadata.max_seq_len,
            outcome,
            prefix_cache: prefixes > 0 && !options.loader.no_kv_cache,
        })
    }

    /// Whether it gives the logits of a whole prompt: not of a part whose
    /// key-value cache it kept from another request.
    pub(crate) fn scores(&self) -> bool {
        !self.prefix_cache
    }

    /// Its tokenizer, which neither cuts text off nor fills it up.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn tokenizer(&self) -> Result<Tokenizer> {
        let path = self.outcome.dir.join("tokenizer.json");
        let read = || {
            let mut tokenizer = Tokenizer::from_file(&path)?;
            tokenizer.with_padding(None).with_truncation(None)?;
            Ok(tokenizer)
        };
        read().map_err(|error: tokenizers::Error| {
            let reason = error.to_string();
            router_stats::Error::Tokenizer { path, reason }.into()
        })
    }
}
