//! How the engine runs: what is asked for, checked and said in its own terms.

use candle_core::Device;
use mistralrs_core::{
    DefaultSchedulerMethod, IsqType, MemoryGpuConfig, ModelDType, PagedAttentionConfig,
    PagedCacheType, SchedulerConfig,
};

use super::loader::LoaderOptions;
use crate::pipeline::Job;
use crate::surgery::UqffWeights;
use crate::{Error, Result};

/// Prefixes whose key-value caches are kept on a GPU, as in mistral.rs.
const PREFIXES: usize = 16;

/// Sequences that a GPU answers at the same time unless told otherwise.
const TOGETHER: usize = 32;

/// Sequences that `device` answers at the same time: as many as are `asked`
/// for, or 32. On a CPU it is one: where a batch has several, the attention of
/// mistral.rs 0.8.1 there gives all of them what it computed of the last
/// (`flash_attn_cpu_single_q` keeps one sum for the whole batch).
///
/// # Errors
/// [`Error::Option`] for more than one on a CPU.
pub fn together(device: &Device, asked: Option<usize>) -> Result<usize> {
    match asked {
        Some(asked) if device.is_cpu() && asked > 1 => Err(Error::Option {
            option: "--max-seqs",
            expected: "1 on a CPU, where mistral.rs 0.8.1 mixes up the requests of a batch"
                .to_owned(),
            found: asked.to_string(),
        }),
        Some(asked) => Ok(asked),
        None if device.is_cpu() => Ok(1),
        None => Ok(TOGETHER),
    }
}

/// How the engine runs.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Sequences that are answered at the same time.
    pub max_seqs: usize,
    /// Prefixes whose key-value caches are kept; 0 for none. `None` is 16 on
    /// a GPU and none on a CPU.
    pub prefix_cache_n: Option<usize>,
    /// Type of the weights in memory; `Auto` is f32 on a CPU.
    pub dtype: ModelDType,
    /// Quantisation on loading: `4`, `q4k`, `8`.
    pub isq: Option<String>,
    /// Paged attention; needs a GPU.
    pub paged_attention: PagedAttention,
    /// Goes on after the end of a text, to be timed.
    pub run_on: bool,
    /// The engine's loader.
    pub loader: LoaderOptions,
}

impl Default for EngineOptions {
    /// What `serve` does unless told otherwise.
    fn default() -> Self {
        Self {
            max_seqs: TOGETHER,
            prefix_cache_n: None,
            dtype: ModelDType::Auto,
            isq: None,
            paged_attention: PagedAttention::default(),
            run_on: false,
            loader: LoaderOptions::default(),
        }
    }
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

impl EngineOptions {
    /// The job as this engine wants it done.
    ///
    /// # Errors
    /// [`Error::Option`] for options that the device does not have.
    pub fn job(&self, job: Job) -> Result<Job> {
        self.dtype(&job.device)?;
        let isq = self.isq(&job.device)?;
        Ok(Job {
            uneven_weights: uneven_weights(isq),
            ..job
        })
    }

    /// Quantisation on loading.
    pub(super) fn isq(&self, device: &Device) -> Result<Option<IsqType>> {
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
    pub(super) fn dtype(&self, device: &Device) -> Result<ModelDType> {
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

    /// Prefixes whose key-value caches are kept.
    pub(super) fn prefixes(&self, device: &Device) -> usize {
        // On a CPU the engine (0.8.1) keeps every one it ever made, whatever
        // it is told, until memory runs out.
        let default = if device.is_cpu() { 0 } else { PREFIXES };
        self.prefix_cache_n.unwrap_or(default)
    }

    /// Who runs when, without paged attention.
    pub(super) fn unpaged(&self) -> Result<SchedulerConfig> {
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
    /// Fails if the key-value cache of one model would take the memory that
    /// the next needs: with paged attention a share of all there is, unless so
    /// much is named.
    ///
    /// # Errors
    /// [`Error::Option`]
    pub(crate) fn leaves_room(&self, device: &Device) -> Result<()> {
        let named = self.context_len.is_some() || self.memory_mb.is_some();
        if named || self.config(device)?.is_none() {
            return Ok(());
        }
        Err(Error::Option {
            option: "--variant",
            expected: "--pa-context-len, --pa-memory-mb or --paged-attn off with several models \
                       on a GPU"
                .to_owned(),
            found: "a key-value cache that takes a share of all memory".to_owned(),
        })
    }

    /// The engine's setting for `device`; `None` is off.
    pub(super) fn config(&self, device: &Device) -> Result<Option<PagedAttentionConfig>> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cpu_keeps_no_prefixes_unless_told() {
        let mut options = EngineOptions::default();
        assert_eq!(options.prefixes(&Device::Cpu), 0);
        options.prefix_cache_n = Some(3);
        assert_eq!(options.prefixes(&Device::Cpu), 3);
    }

    #[test]
    fn a_cpu_answers_one_at_a_time() {
        assert_eq!(together(&Device::Cpu, None).unwrap(), 1);
        assert_eq!(together(&Device::Cpu, Some(1)).unwrap(), 1);
        let refused = together(&Device::Cpu, Some(2)).unwrap_err();
        assert!(refused.to_string().contains("--max-seqs"), "{refused}");
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
