//! How the engine runs: its flags.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::engine::{EngineOptions, LoaderOptions, ModelDType, PagedAttention};

/// How the engine runs.
#[derive(clap::Args)]
#[command(next_help_heading = "Engine")]
pub(super) struct EngineArgs {
    /// Requests answered at the same time; others wait [default: 32, with --fit
    /// 4; on a CPU 1, because there mistral.rs mixes up the requests of a batch]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) max_seqs: Option<u32>,

    /// Tokens of a request and its answer together, in steps of 512 [default:
    /// what the model was made for, with --fit at most 4096]. Longer requests are
    /// refused, answers end there
    #[arg(long, value_name = "N")]
    pub(super) max_seq_len: Option<usize>,

    /// Prefixes whose caches are kept; 0 for none [default: 16; on a CPU 0,
    /// because there the engine keeps all of them until memory runs out]
    #[arg(long, value_name = "N")]
    pub(super) prefix_cache_n: Option<usize>,

    /// Run without a key-value cache
    #[arg(long, conflicts_with = "fit")]
    no_kv_cache: bool,

    /// Type of weights in memory: auto (f32 on a CPU), f32, f16 or bf16
    #[arg(
        long,
        default_value = "auto",
        value_name = "DTYPE",
        conflicts_with = "fit"
    )]
    dtype: ModelDType,

    /// Quantise on loading: 2 to 8, q4k, q8_0, …
    #[arg(long, value_name = "LEVEL", conflicts_with = "fit")]
    pub(super) isq: Option<String>,

    /// Chat template for a model that has none: a .json file or the template
    #[arg(short, long, value_name = "TEMPLATE")]
    chat_template: Option<String>,

    /// Chat template in place of the model's: a .jinja file
    #[arg(short, long, value_name = "FILE")]
    jinja_explicit: Option<PathBuf>,

    /// Paged attention
    #[arg(long, value_enum, default_value_t = Mode::Auto)]
    paged_attn: Mode,

    /// Paged attention: memory for a context of N tokens
    #[arg(long, value_name = "N")]
    pa_context_len: Option<usize>,

    /// Paged attention: memory in megabytes
    #[arg(long, value_name = "MB", conflicts_with = "pa_context_len")]
    pa_memory_mb: Option<usize>,

    /// Paged attention: memory as a fraction of what there is
    #[arg(long, value_name = "FRACTION", conflicts_with_all = ["pa_context_len", "pa_memory_mb"])]
    pa_memory_fraction: Option<f32>,

    /// Paged attention: tokens of a block
    #[arg(long, value_name = "N")]
    pa_block_size: Option<usize>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Mode {
    /// On with CUDA
    Auto,
    /// On
    On,
    /// Off
    Off,
}

impl EngineArgs {
    /// The engine's options, with `max_seqs` requests answered at a time.
    pub(super) fn options(&self, max_seqs: usize) -> EngineOptions {
        EngineOptions {
            max_seqs,
            prefix_cache_n: self.prefix_cache_n,
            dtype: self.dtype,
            isq: self.isq.clone(),
            paged_attention: PagedAttention {
                mode: match self.paged_attn {
                    Mode::Auto => None,
                    Mode::On => Some(true),
                    Mode::Off => Some(false),
                },
                context_len: self.pa_context_len,
                memory_mb: self.pa_memory_mb,
                memory_fraction: self.pa_memory_fraction,
                block_size: self.pa_block_size,
            },
            run_on: false,
            loader: LoaderOptions {
                no_kv_cache: self.no_kv_cache,
                chat_template: self.chat_template.clone(),
                jinja_explicit: self
                    .jinja_explicit
                    .as_ref()
                    .map(|path| path.display().to_string()),
            },
        }
    }
}
