//! `serve`: prune if need be, then answer requests.

mod log;
mod server;
mod variants;

use std::path::PathBuf;
use std::sync::Arc;

use clap::ValueEnum;
use prune_eval::{EvalOptions, Report};

use super::args::{surroundings, BudgetArgs, CalibrationArgs, EvaluationArgs, ModelArgs};
use super::given::Given;
use super::{inspect, interrupt, Global};
use crate::engine::{self, EngineOptions, LoaderOptions, ModelDType, PagedAttention};
use crate::pipeline::{Change, EvaluationOptions, Job, Outcome, Reporter};
use crate::server::{listen, Server, VariantOptions};
use server::ServerArgs;
use variants::VariantArgs;

/// Arguments of `serve`.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    budget: BudgetArgs,

    /// Carry out this plan
    #[arg(
        long,
        value_name = "FILE",
        help_heading = "Pruning",
        conflicts_with = "budget"
    )]
    plan: Option<PathBuf>,

    #[command(flatten)]
    variants: VariantArgs,

    /// Do not measure the loss
    #[arg(long, help_heading = "Evaluation", conflicts_with_all = ["eval_tokens", "max_loss"])]
    no_eval: bool,

    /// Seed of criteria that draw at random and of the order of documents
    #[arg(long, default_value_t = 0)]
    seed: u64,

    #[command(flatten)]
    calibration: CalibrationArgs,

    #[command(flatten)]
    evaluation: EvaluationArgs,

    #[command(flatten)]
    server: ServerArgs,

    #[command(flatten)]
    engine: EngineArgs,
}

/// How the engine runs.
#[derive(clap::Args)]
#[command(next_help_heading = "Engine")]
struct EngineArgs {
    /// Requests answered at the same time; others wait [default: 32; on a CPU
    /// 1, because there mistral.rs mixes up the requests of a batch]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_seqs: Option<u32>,

    /// Prefixes whose caches are kept; 0 for none [default: 16; on a CPU 0,
    /// because there the engine keeps all of them until memory runs out]
    #[arg(long, value_name = "N")]
    prefix_cache_n: Option<usize>,

    /// Run without a key-value cache
    #[arg(long)]
    no_kv_cache: bool,

    /// Type of weights in memory: auto (f32 on a CPU), f32, f16 or bf16
    #[arg(long, default_value = "auto", value_name = "DTYPE")]
    dtype: ModelDType,

    /// Quantise on loading: 2 to 8, q4k, q8_0, …
    #[arg(long, value_name = "LEVEL")]
    isq: Option<String>,

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

impl Args {
    /// Advice after an interruption where it may have come while searching.
    pub(super) fn interrupted(&self) -> Option<&'static str> {
        let searches = self.budget.search.asks();
        searches.then_some("what is finished is kept; the same command continues")
    }
}

/// Runs `serve`.
pub(super) fn execute(args: Args, given: Given<'_>, global: &Global) -> anyhow::Result<()> {
    check(&args, given)?;
    let (cache, console) = surroundings(global)?;
    // A port that is taken is known before the long work.
    let listener = listen(&args.server.host, args.server.port)?;
    let address = listener.local_addr()?;
    let device = args.model.device()?;
    let slots = engine::together(&device, args.engine.max_seqs.map(|it| it as usize))?;
    let options = args.server.options(address, slots)?;
    let console = Arc::new(console);
    let method = args.budget.options(args.seed);
    let main = match &args.plan {
        Some(path) => Some(Change::Plan(path.clone())),
        None => args
            .budget
            .asks()
            .then(|| Change::Make(Box::new(method.clone()))),
    };
    let mut changes = args.variants.changes_beside(main, &method);
    let change = changes.remove(0);
    let variants = VariantOptions {
        changeable: options.api_key.is_some() || options.loopback,
        beside: changes,
        sample: args.variants.sample(),
    };
    let job = Job {
        source: args.model.source(),
        change,
        texts: args.calibration.calibration.clone(),
        calibration: args.calibration.options(args.seed),
        evaluation: (!args.no_eval).then(|| EvaluationOptions {
            tokens: args.evaluation.eval_tokens,
            seq_len: args.calibration.seq_len,
            seed: args.seed,
            options: EvalOptions {
                batch_tokens: args.calibration.batch_tokens,
                seed: args.seed,
                ..EvalOptions::default()
            },
        }),
        // The server knows.
        uneven_weights: None,
        device,
        cache,
        reporter: console.clone(),
    };
    let bundled = job.texts.is_empty() && makes(&args);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let server = Server::load(job, args.engine.options(slots), &variants, options).await?;
        if interrupt::asked() {
            return Err(router_stats::Error::Interrupted.into());
        }
        let outcomes = server.outcomes();
        for (name, outcome) in &outcomes {
            let title = match outcomes.len() {
                1 => String::new(),
                _ => format!("\n{name}"),
            };
            console.text(&format!("{title}\n{}\n", table(outcome)));
        }
        if let Some((caveat, outcome)) = outcomes.iter().find_map(|(_, it)| Some((it.caveat?, it)))
        {
            let measured = outcome.report.is_some();
            let whose = if measured { "; the loss above is the model's" } else { "" };
            console.hint(&format!("{caveat}{whose}"));
        }
        if args.engine.isq.is_some() && outcomes.iter().any(|(_, outcome)| outcome.stacked) {
            console.hint("--isq leaves the experts as they are: mistral.rs 0.8.1 passes over experts stacked in one tensor; `prune --layout uqff --uqff-weights q4k` quantises them");
        }
        let names: Vec<&str> = outcomes.iter().map(|(name, _)| name.as_str()).collect();
        let id = names.join(", ");
        console.report("Serving", &format!("{id} at http://{address}"));
        console.text("            POST /v1/chat/completions   plan /v1/pruning   GET /docs");
        if bundled {
            console.hint("calibrated on the bundled mix; `--calibration yours.jsonl` fits the model to your task");
        }
        let whole = server.run(listener, interrupt::wait()).await?;
        console.report("Stopped", if whole { "" } else { "with answers cut short" });
        anyhow::Ok(())
    })
}

/// Whether statistics are needed.
fn makes(args: &Args) -> bool {
    args.budget.asks() || args.variants.makes()
}

/// Refuses flags that would do nothing.
fn check(args: &Args, given: Given<'_>) -> crate::Result<()> {
    let makes = makes(args);
    let changes = makes || args.plan.is_some() || args.variants.changes();
    let measures = changes && !args.no_eval;
    given.refuse_unless(
        makes,
        &["--calibration-tokens", "--spill"],
        "--prune-experts, --keep-experts, --target-size, --target-params, --max-loss, --drop-layers or --variant",
    )?;
    given.refuse_unless(
        changes,
        &["--no-eval", "--eval-tokens"],
        "--prune-experts, --keep-experts, --target-size, --target-params, --max-loss, --drop-layers, --plan or --variant",
    )?;
    given.refuse_unless(
        makes || measures,
        &["--calibration", "--seq-len", "--batch-tokens", "--seed"],
        "--prune-experts, --keep-experts, --target-size, --target-params, --max-loss, --drop-layers or --variant, or --plan without --no-eval,",
    )
}

impl EngineArgs {
    fn options(&self, max_seqs: usize) -> EngineOptions {
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

/// What is served, and what it lost.
fn table(outcome: &Outcome) -> String {
    match &outcome.plan {
        None => inspect::size_table(&outcome.before),
        Some(plan) => {
            let more = outcome.report.as_ref().map(losses).unwrap_or_default();
            inspect::sizes(&plan.before, &plan.after, &more)
        }
    }
}

/// Perplexity with its interval and its worst domain, and agreement.
fn losses(report: &Report) -> Vec<[String; 4]> {
    let Some(pruned) = report.variants.first() else {
        return Vec::new();
    };
    let mut rows = Vec::new();
    let perplexity = |model: &prune_eval::report::Model| {
        model.estimate("perplexity", None).map_or_else(
            || "–".to_owned(),
            |estimate| format!("{:.2}", estimate.value),
        )
    };
    let signed = |x: f64| format!("{:+.1}%", x * 100.0).replace('-', "−");
    let change = pruned
        .estimate("perplexity_change", None)
        .map_or_else(String::new, |change| {
            let interval = change.interval().map_or_else(String::new, |(low, high)| {
                format!(" [{:.1}, {:.1}]", low * 100.0, high * 100.0).replace('-', "−")
            });
            signed(change.value) + &interval
        });
    rows.push([
        "perplexity".to_owned(),
        perplexity(&report.reference),
        perplexity(pruned),
        change,
    ]);
    if let Some((domain, change)) = report.worst_domain(0) {
        rows.push([
            format!("  worst: {domain}"),
            String::new(),
            String::new(),
            signed(change.value),
        ]);
    }
    if let Some(agreement) = pruned.estimate("top1_agreement", None) {
        rows.push([
            "top-1 agreement".to_owned(),
            "–".to_owned(),
            format!("{:.1}%", agreement.value * 100.0),
            String::new(),
        ]);
    }
    rows
}
