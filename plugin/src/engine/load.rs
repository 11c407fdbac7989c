//! A model in the engine, ready to be asked.

use std::path::Path;
use std::sync::Arc;

use mistralrs_core::{
    AutoDeviceMapParams, DeviceMapSetting, Loader, MistralRs, MistralRsBuilder, ModelDType,
    SchedulerConfig, TokenSource,
};
use tokenizers::Tokenizer;

use super::loader::PruningLoader;
use super::options::EngineOptions;
use super::probe::probe;
use crate::pipeline::{Job, Outcome};
use crate::Result;

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
    /// Sequences that it answers at the same time.
    pub(crate) together: usize,
    /// What was loaded.
    pub(crate) outcome: Outcome,
    prefix_cache: bool,
}

/// What a job has come to, not loaded yet.
pub(crate) struct Ready {
    job: Job,
    id: String,
    outcome: Outcome,
}

impl Ready {
    /// Does the job; its result is to be called `id`.
    ///
    /// # Errors
    /// Those of the job, and before it [`Error::Option`](crate::Error::Option)
    /// for what the engine cannot be told.
    pub(crate) fn new(job: Job, id: String, options: &EngineOptions) -> Result<Self> {
        let device = &job.device;
        options.paged_attention.config(device)?;
        let job = options.job(job)?;
        let outcome = job.run()?;
        Ok(Self { job, id, outcome })
    }

    /// Bytes of its weights once they are loaded, before the engine quantises
    /// them: of UQFF and fp8 what is stored, of others as many as numbers of
    /// the type that `options` ask for take.
    ///
    /// # Errors
    /// If a file cannot be looked at.
    pub(crate) fn bytes(&self, options: &EngineOptions) -> Result<u64> {
        let size = match &self.outcome.plan {
            Some(plan) => &plan.after,
            None => &self.outcome.before,
        };
        if self.outcome.uqff.is_some() {
            return super::paths::weights(&self.outcome.dir);
        }
        let each = match options.dtype(&self.job.device)? {
            ModelDType::F32 => 4,
            _ => 2,
        };
        // A number of fp8 takes one byte, and stays so.
        Ok(match size.parameters * 2 > size.bytes {
            true => size.bytes,
            false => size.parameters * each,
        })
    }
}

impl Engine {
    /// Does the job and loads its result. Call it within a runtime that has
    /// more than one thread.
    ///
    /// # Errors
    /// Those of the job, and of the engine.
    pub(crate) async fn load(job: Job, options: &EngineOptions) -> Result<Self> {
        let id = job.id();
        let ready = tokio::task::block_in_place(|| Ready::new(job, id, options))?;
        Self::start(ready, options).await
    }

    /// Loads what is ready. Call it within a runtime that has more than one
    /// thread.
    ///
    /// # Errors
    /// Those of the engine.
    pub(crate) async fn start(ready: Ready, options: &EngineOptions) -> Result<Self> {
        let Ready { job, id, outcome } = ready;
        let device = job.device.clone();
        let paged = options.paged_attention.config(&device)?;
        let (isq, dtype) = (options.isq(&device)?, options.dtype(&device)?);
        let mapper = if device.is_cpu() {
            DeviceMapSetting::dummy()
        } else {
            DeviceMapSetting::Auto(AutoDeviceMapParams::default_text())
        };
        let loader = PruningLoader::new(job, options.loader.clone())
            .named(id)
            .done(outcome.clone());
        let pipeline = tokio::task::block_in_place(|| {
            // All there is to load is here.
            let token = TokenSource::None;
            loader.load_model_from_hf(None, token, &dtype, &device, true, mapper, isq, paged)
        })
        .map_err(super::failed("loading the model"))?;
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
            together: options.max_seqs,
            outcome,
            prefix_cache: prefixes > 0 && !options.loader.no_kv_cache,
        })
    }

    /// Whether it gives the logits of a whole prompt: not of a part whose
    /// key-value cache it kept from another request.
    pub(crate) fn scores(&self) -> bool {
        !self.prefix_cache
    }

    /// Tokens of the longest prompt that it has the memory to score.
    pub(crate) fn longest_scored(&self) -> usize {
        let plan = self.outcome.plan.as_ref();
        let fit = plan.and_then(|plan| plan.method.asked.fit);
        fit.map_or(usize::MAX, |fit| fit.scored)
    }

    /// Its tokenizer, which neither cuts text off nor fills it up.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn tokenizer(&self) -> Result<Tokenizer> {
        tokenizer(&self.outcome.dir)
    }
}

/// The tokenizer of the model in `dir`, which neither cuts text off nor fills
/// it up.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn tokenizer(dir: &Path) -> Result<Tokenizer> {
    let path = dir.join("tokenizer.json");
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
