//! The engine behind an OpenAI-compatible HTTP server.

use std::future::Future;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::routing::get;
use axum::{middleware, Json, Router};
use candle_core::Device;
use mistralrs_core::{
    AutoDeviceMapParams, DefaultSchedulerMethod, DeviceMapSetting, IsqType, Loader,
    MemoryGpuConfig, MistralRs, MistralRsBuilder, ModelDType, PagedAttentionConfig, PagedCacheType,
    SchedulerConfig,
};
use mistralrs_server_core::mistralrs_server_router_builder::MistralRsServerRouterBuilder;
use serde_json::{json, Value};

use super::access::{self, ApiKey};
use super::loader::{self, LoaderOptions, PruningLoader};
use super::probe::probe;
use super::refusal;
use super::rename::{self, Renaming};
use crate::pipeline::{Job, Outcome};
use crate::surgery::UqffWeights;
use crate::{Error, Result};

/// How long answers may take to finish once the server is asked to stop.
const GRACE: Duration = Duration::from_secs(10);

/// How the engine runs.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Sequences that are answered at the same time.
    pub max_seqs: usize,
    /// Prefixes whose key-value caches are kept; 0 for none.
    pub prefix_cache_n: usize,
    /// Type of the weights in memory; `Auto` is f32 on a CPU.
    pub dtype: ModelDType,
    /// Quantisation on loading: `4`, `q4k`, `8`.
    pub isq: Option<String>,
    /// Paged attention; needs a GPU.
    pub paged_attention: PagedAttention,
    /// The engine's loader.
    pub loader: LoaderOptions,
}

/// Paged attention: whether, and with how much memory.
#[derive(Debug, Clone, Default)]
pub struct PagedAttention {
    /// On or off; `None` is on with CUDA.
    pub mode: Option<bool>,
    /// Memory for a context of so many tokens.
    pub context_len: Option<usize>,
    /// Memory in megabytes.
    pub memory_mb: Option<usize>,
    /// Memory as a fraction of what there is.
    pub memory_fraction: Option<f32>,
    /// Tokens of a block.
    pub block_size: Option<usize>,
}

/// Binds an address, so that one that is taken is known before the long work.
///
/// # Errors
/// [`Error::Listen`]
pub fn listen(host: &str, port: u16) -> Result<TcpListener> {
    let fail = |source| Error::Listen {
        host: host.to_owned(),
        port,
        source,
    };
    let listener = TcpListener::bind((host, port)).map_err(fail)?;
    listener.set_nonblocking(true).map_err(fail)?;
    Ok(listener)
}

/// A loaded model behind its routes.
pub struct Server {
    router: Router,
    outcome: Outcome,
    // Keeps the engine's thread alive.
    _engine: Arc<MistralRs>,
}

impl Server {
    /// Does the job and loads its result. Call it within a runtime that has
    /// more than one thread.
    ///
    /// # Errors
    /// Those of the job, and of the engine.
    pub async fn load(job: Job, options: EngineOptions, api_key: Option<ApiKey>) -> Result<Self> {
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

        let (paged, name) = {
            let pipeline = pipeline.lock().await;
            (
                pipeline.get_metadata().cache_config.clone(),
                pipeline.name(),
            )
        };
        let names = Renaming::new(&name, &loader.get_id());
        let scheduler = match paged {
            Some(config) => SchedulerConfig::PagedAttentionMeta {
                max_num_seqs: options.max_seqs,
                config,
            },
            None => options.unpaged()?,
        };
        let engine = MistralRsBuilder::new(pipeline, scheduler, false, None)
            .with_no_kv_cache(options.loader.no_kv_cache)
            .with_no_prefix_cache(options.prefix_cache_n == 0)
            .with_prefix_cache_n(options.prefix_cache_n)
            .with_model_id(loader.get_id())
            .build()
            .await;
        probe(&engine).await?;
        let pruning = description(&loader.get_id(), &outcome)?;
        let mut router = MistralRsServerRouterBuilder::new()
            .with_mistralrs(engine.clone())
            // Other web pages are not to talk to a model that runs here.
            .with_allowed_origins(Vec::new())
            .build()
            .await
            .map_err(super::failed("setting up the routes"))?
            .route(
                "/v1/pruning",
                get(move || std::future::ready(Json(pruning))),
            )
            .layer(middleware::from_fn(refusal::reword));
        if let Some(names) = names {
            router = router.layer(middleware::from_fn_with_state(names, rename::rename));
        }
        if let Some(key) = api_key {
            router = router.layer(middleware::from_fn_with_state(key, access::check));
        }
        Ok(Self {
            router,
            outcome,
            _engine: engine,
        })
    }

    /// What is served.
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// Answers requests until `stop` is ready, then finishes the answers that
    /// have begun.
    ///
    /// # Errors
    /// If the listener fails.
    pub async fn run(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> Result<()> {
        let failed = |error: std::io::Error| Error::Engine {
            what: "serving",
            reason: error.to_string(),
        };
        let listener = tokio::net::TcpListener::from_std(listener).map_err(failed)?;
        let (stopping, stopped) = tokio::sync::oneshot::channel();
        let server = axum::serve(listener, self.router).with_graceful_shutdown(async move {
            stop.await;
            // Nobody waits any more if the server has failed meanwhile.
            let _ = stopping.send(());
        });
        tokio::select! {
            result = async { server.await } => result.map_err(failed),
            () = grace(stopped) => Ok(()),
        }
    }
}

/// How weights are stored that the engine would quantise so on loading.
fn uneven_weights(isq: Option<IsqType>) -> Option<UqffWeights> {
    Some(match isq {
        None => UqffWeights::Float,
        Some(IsqType::Q8_0) => UqffWeights::Q8_0,
        Some(IsqType::Q6K) => UqffWeights::Q6K,
        Some(IsqType::Q5K) => UqffWeights::Q5K,
        Some(IsqType::Q4K) => UqffWeights::Q4K,
        Some(IsqType::Q3K) => UqffWeights::Q3K,
        Some(IsqType::Q2K) => UqffWeights::Q2K,
        Some(_) => return None,
    })
}

/// Ready some time after `stopped` is.
async fn grace(stopped: tokio::sync::oneshot::Receiver<()>) {
    match stopped.await {
        Ok(()) => tokio::time::sleep(GRACE).await,
        Err(_) => std::future::pending().await,
    }
}

impl EngineOptions {
    /// Quantisation on loading.
    fn isq(&self, device: &Device) -> Result<Option<IsqType>> {
        let Some(isq) = &self.isq else {
            return Ok(None);
        };
        let parsed = mistralrs_core::parse_isq_value(isq, Some(device));
        parsed.map(Some).map_err(|expected| Error::Option {
            option: "--isq",
            expected,
            found: isq.clone(),
        })
    }

    /// Type of the weights in memory.
    fn dtype(&self, device: &Device) -> Result<ModelDType> {
        match self.dtype {
            // `Auto` would be f16, which is slow and imprecise there.
            ModelDType::Auto if device.is_cpu() => Ok(ModelDType::F32),
            ModelDType::BF16 if device.is_cpu() => Err(Error::Option {
                option: "--dtype",
                expected: "auto, f32 or f16 on a CPU".to_owned(),
                found: "bf16".to_owned(),
            }),
            dtype => Ok(dtype),
        }
    }

    /// Who runs when, without paged attention.
    fn unpaged(&self) -> Result<SchedulerConfig> {
        let max_seqs = self.max_seqs.try_into().map_err(|_| Error::Option {
            option: "--max-seqs",
            expected: "at least 1".to_owned(),
            found: self.max_seqs.to_string(),
        })?;
        Ok(SchedulerConfig::DefaultScheduler {
            method: DefaultSchedulerMethod::Fixed(max_seqs),
        })
    }
}

impl PagedAttention {
    /// The engine's setting for `device`; `None` is off.
    fn config(&self, device: &Device) -> Result<Option<PagedAttentionConfig>> {
        let unsupported = !mistralrs_core::paged_attn_supported() || device.is_cpu();
        if unsupported {
            let asked = [
                ("--paged-attn on", self.mode == Some(true)),
                ("--pa-context-len", self.context_len.is_some()),
                ("--pa-memory-mb", self.memory_mb.is_some()),
                ("--pa-memory-fraction", self.memory_fraction.is_some()),
                ("--pa-block-size", self.block_size.is_some()),
            ];
            return match asked.iter().find(|(_, asked)| *asked) {
                None => Ok(None),
                Some((option, _)) => Err(Error::Option {
                    option,
                    expected: "a build and a device with paged attention".to_owned(),
                    found: if device.is_cpu() { "the CPU" } else { "none" }.to_owned(),
                }),
            };
        }
        if !self.mode.unwrap_or(device.is_cuda()) {
            return Ok(None);
        }
        let memory = match (self.context_len, self.memory_mb, self.memory_fraction) {
            (Some(tokens), ..) => MemoryGpuConfig::ContextSize(tokens),
            (_, Some(megabytes), _) => MemoryGpuConfig::MbAmount(megabytes),
            (_, _, fraction) => MemoryGpuConfig::Utilization(fraction.unwrap_or(0.9)),
        };
        PagedAttentionConfig::new(self.block_size, memory, PagedCacheType::Auto)
            .map(Some)
            .map_err(super::failed("setting up paged attention"))
    }
}

/// What `/v1/pruning` answers: the plan and what it cost.
fn description(id: &str, outcome: &Outcome) -> Result<Value> {
    Ok(json!({
        "object": "pruning",
        "model": id,
        "pruned": outcome.plan.is_some(),
        "plan": outcome.plan,
        "evaluation": outcome.report,
        "caveat": outcome.caveat,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_an_error_with_advice() {
        let first = listen("127.0.0.1", 0).unwrap();
        let port = first.local_addr().unwrap().port();
        let error = listen("127.0.0.1", port).unwrap_err();
        assert!(error.to_string().contains(&port.to_string()));
        assert!(error.hint().unwrap().contains("--port"));
    }

    #[test]
    fn paged_attention_flags_are_refused_where_they_would_do_nothing() {
        let off = PagedAttention::default();
        assert!(off.config(&Device::Cpu).unwrap().is_none());
        let fraction = PagedAttention {
            memory_fraction: Some(0.5),
            ..off.clone()
        };
        for asked in [
            PagedAttention {
                mode: Some(true),
                ..off
            },
            fraction,
        ] {
            assert!(matches!(
                asked.config(&Device::Cpu),
                Err(Error::Option { .. })
            ));
        }
    }
}
