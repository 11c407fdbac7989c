//! `serve`: prune if need be, then answer requests.

#[cfg(unix)]
mod afresh;
mod engine;
mod log;
mod server;
mod variants;

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

use prune_eval::{EvalOptions, Report};
use router_stats::progress::Silent;

use super::args::{
    budget_flags, sequences, surroundings, BudgetArgs, CalibrationArgs, EvaluationArgs, ModelArgs,
};
use super::given::Given;
use super::{inspect, interrupt, Global};
use crate::format;
use crate::pipeline::{Change, EvaluationOptions, Job, Outcome, Reporter};
use crate::plan::{self, PlanOptions};
use crate::server::{listen, Server, VariantOptions};
use crate::Error;
use engine::EngineArgs;
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

    /// Prune each shard of a model on the hub as it comes, and let it go: the
    /// disk never holds the model. Without --plan all shards come twice, first to
    /// calibrate. The loss is not measured
    #[arg(long, requires = "model_id", conflicts_with_all = ["variant", "learn_from_traffic", "eval_tokens", "max_loss"], help_heading = "Pruning")]
    stream_prune: bool,

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

    /// Everything is in the cache, and the socket is standard input
    #[cfg(unix)]
    #[arg(long, hide = true)]
    prepared: bool,
}

impl Args {
    /// Advice after an interruption where it may have come while searching.
    pub(super) fn interrupted(&self) -> Option<&'static str> {
        let keeps = self.budget.search.asks() || self.stream_prune;
        keeps.then_some("what is finished is kept; the same command continues")
    }
}

/// Runs `serve`.
pub(super) fn execute(args: Args, given: Given<'_>, global: &Global) -> anyhow::Result<()> {
    check(&args, given)?;
    let (cache, console) = surroundings(global)?;
    let listener = listener(&args)?;
    let address = listener.local_addr()?;
    let device = args.model.device()?;
    // What a plan was made to fit is what it is served to.
    let fitted = match &args.plan {
        Some(path) => plan::read(path)?.method.asked.fit.map(|fit| fit.traffic),
        None => None,
    };
    let planned = fitted.map(|traffic| traffic.sequences);
    let slots = sequences(&device, args.engine.max_seqs, planned.or(args.budget.few()))?;
    let options = args.server.options(address, slots)?;
    let console = Arc::new(console);
    let engine = args.engine.options(slots);
    let method = PlanOptions {
        fit: args.budget.memory(slots, args.engine.max_seq_len),
        ..args.budget.options(args.seed)
    };
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
        beside: changes,
        sample: args.variants.sample(),
        reporter: Some(console.clone()),
    };
    let mut job = Job {
        source: args.model.source(),
        change,
        texts: args.calibration.calibration.clone(),
        calibration: args.calibration.options(args.seed),
        evaluation: (!args.no_eval && !args.stream_prune).then(|| EvaluationOptions {
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
        max_seq_len: args.engine.max_seq_len.or(fitted.map(|it| it.tokens)),
        stream: args.stream_prune,
        device,
        cache,
        reporter: console.clone(),
    };
    let bundled = job.texts.is_empty() && makes(&args);
    #[cfg(unix)]
    if !args.prepared {
        let beside = variants.beside.iter().map(|change| Job {
            change: change.clone(),
            ..job.clone()
        });
        for job in std::iter::once(job.clone()).chain(beside) {
            engine.job(job)?.run()?;
            if interrupt::asked() {
                return Err(router_stats::Error::Interrupted.into());
            }
        }
        let budget = method.fit.is_some() || fitted.is_some();
        return Err(afresh::start(listener, budget));
    }
    if cfg!(unix) {
        // All has been said.
        job.reporter = Arc::new(Silent);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let server = Server::load(job, engine, &variants, options).await?;
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

/// The socket. A port that is taken is known before the long work.
fn listener(args: &Args) -> anyhow::Result<TcpListener> {
    #[cfg(unix)]
    if args.prepared {
        return Ok(afresh::listener()?);
    }
    Ok(listen(&args.server.host, args.server.port)?)
}

/// Whether statistics are needed.
fn makes(args: &Args) -> bool {
    args.budget.asks() || args.variants.makes()
}

/// Refuses flags that would do nothing.
fn check(args: &Args, given: Given<'_>) -> crate::Result<()> {
    if let (Some(_), Some(kept @ 1..)) = (args.budget.fit, args.engine.prefix_cache_n) {
        return Err(Error::Option {
            option: "--prefix-cache-n",
            expected: "0 with --fit, whose memory has no room for them".to_owned(),
            found: kept.to_string(),
        });
    }
    let makes = makes(args);
    let changes = makes || args.plan.is_some() || args.variants.changes();
    let measures = changes && !args.no_eval && !args.stream_prune;
    given.refuse_unless(changes, &["--stream-prune"], &budget_flags(&["--plan"]))?;
    given.refuse_unless(
        makes,
        &["--calibration-tokens", "--spill"],
        &budget_flags(&["--variant"]),
    )?;
    given.refuse_unless(
        changes,
        &["--no-eval", "--eval-tokens"],
        &budget_flags(&["--plan", "--variant"]),
    )?;
    given.refuse_unless(
        makes || measures,
        &["--calibration", "--seq-len", "--batch-tokens", "--seed"],
        &format!(
            "{}, or --plan without --no-eval,",
            budget_flags(&["--variant"])
        ),
    )
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
    let change = pruned
        .estimate("perplexity_change", None)
        .map_or_else(String::new, |change| {
            let interval = change.interval().map_or_else(String::new, |(low, high)| {
                format!(" [{:.1}, {:.1}]", low * 100.0, high * 100.0).replace('-', "−")
            });
            format::change(change.value) + &interval
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
            format::change(change.value),
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
