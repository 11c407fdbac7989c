//! `eval`: what plans and checkpoints lose, on held-out text and in tasks.

mod jobs;
mod made;
mod names;
mod speed;
mod sweep;
mod tasks;
mod variants;

use std::path::PathBuf;
use std::sync::Arc;

use clap::ArgGroup;
use prune_eval::compare::Bootstrap;
use prune_eval::report::Subject;
use prune_eval::{EvalOptions, Report, Variant};
use router_stats::calibration::Corpus;

use super::args::{
    allocators, criteria, default_allocator, default_criterion, surroundings, CalibrationArgs,
    ConstraintArgs, EvaluationArgs, IntervalArgs, ModelArgs, TextArgs,
};
use super::given::Given;
use super::layer_args::{LayerArgs, DROPS, TOP_K};
use super::progress::Console;
use super::{job, output, Global};
use crate::pipeline::{self, EvaluationOptions, Model};
use crate::plan::ValidPlan;
use crate::Error;
use jobs::Jobs;
use speed::SpeedArgs;
use tasks::TaskArgs;
use variants::{Origin, Variants};

/// Arguments of `eval`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, group(ArgGroup::new("budget").arg("prune_experts").args(DROPS).arg(TOP_K).multiple(true)), group(ArgGroup::new("expert_budget").args(["prune_experts"])), group(ArgGroup::new("measured").args(["task", "speed"]).multiple(true)))]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,

    #[command(flatten)]
    model: ModelArgs,

    /// Plan to evaluate, without writing its checkpoint; repeat it for more
    #[arg(long, value_name = "FILE")]
    plan: Vec<PathBuf>,

    /// Checkpoint to evaluate; repeat it for more
    #[arg(long, value_name = "DIR")]
    checkpoint: Vec<PathBuf>,

    /// Fractions of the experts to remove in plans made on the fly
    #[arg(long, value_delimiter = ',', value_name = "FRACTION,…")]
    prune_experts: Vec<f64>,

    /// Criteria of plans made on the fly, or `all`
    #[arg(long, value_delimiter = ',', default_value = default_criterion(), value_name = "NAME,…", requires = "prune_experts", value_parser = made::or_all(criteria()))]
    criterion: Vec<String>,

    /// How many go in which layer in plans made on the fly, or `all`
    #[arg(long, value_delimiter = ',', default_value = default_allocator(), value_name = "NAME,…", requires = "prune_experts", value_parser = made::or_all(allocators()))]
    allocation: Vec<String>,

    #[command(flatten)]
    layers: LayerArgs,

    /// Types to round weights through, of the model, and of every plan and
    /// checkpoint, or `all`
    #[arg(long, value_delimiter = ',', value_name = "TYPE,…", value_parser = made::or_all(variants::types()))]
    quantize: Vec<String>,

    #[command(flatten)]
    constraints: ConstraintArgs,

    /// Statistics to make plans from [default: calibrate, or what the cache holds]
    #[arg(long, value_name = "STATS", requires = "budget", conflicts_with_all = ["calibration", "calibration_tokens", "spill"])]
    stats: Option<PathBuf>,

    /// Seed of criteria that draw at random and of the order of documents
    #[arg(long, default_value_t = 0)]
    seed: u64,

    #[command(flatten)]
    text: TextArgs,

    #[command(flatten)]
    evaluation: EvaluationArgs,

    #[command(flatten)]
    interval: IntervalArgs,

    #[command(flatten)]
    calibration: CalibrationArgs,

    #[command(flatten)]
    tasks: TaskArgs,

    #[command(flatten)]
    speed: SpeedArgs,

    /// Write the report as JSON to a file too
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Print the report as JSON
    #[arg(long, conflicts_with = "markdown")]
    json: bool,

    /// Print tables as Markdown
    #[arg(long)]
    markdown: bool,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Measure many plans of one model into a file that can be continued
    Sweep(Box<sweep::Args>),
}

impl Args {
    /// Advice after an interruption.
    pub(super) fn interrupted(&self) -> &'static str {
        match self.verb {
            Some(Verb::Sweep(_)) => "finished points are kept; the same command continues",
            None => "nothing half-written remains; run it again",
        }
    }
}

/// Runs `eval`.
pub(super) fn execute(args: &Args, given: Given<'_>, global: &Global) -> anyhow::Result<()> {
    if let Some(Verb::Sweep(args)) = &args.verb {
        return sweep::execute(args, given.verb(), global);
    }
    check(args, given)?;
    let (cache, console) = surroundings(global)?;
    let console = Arc::new(console);
    // Files of tasks are read before the long work.
    let sets = args.tasks.sets(args.seed)?;
    let model = args.model.open(&cache, &console)?;
    let mut plans: Vec<(String, ValidPlan)> = Vec::new();
    for path in &args.plan {
        let plan = ValidPlan::read(path, model.checkpoint(), model.family(), model.topology())?;
        plans.push((pipeline::plan_name(path), plan));
    }
    plans.extend(made::made(args, &model, &cache, &console)?);
    let checkpoints = args
        .checkpoint
        .iter()
        .map(|dir| {
            let source = job::local(dir);
            source.open(model.forward.device(), &cache, &*console)
        })
        .collect::<crate::Result<Vec<_>>>()?;

    let types = variants::asked(&args.quantize)?;
    let rounded = variants::rounded(&model.forward, &types)?;
    let rounded_checkpoints = checkpoints
        .iter()
        .map(|checkpoint| variants::rounded(&checkpoint.forward, &types))
        .collect::<router_stats::Result<Vec<_>>>()?;
    // Plans that say how their weights are stored.
    let stored: Vec<_> = plans
        .iter()
        .map(|(_, plan)| {
            Some(
                model
                    .forward
                    .rounded(plan.rounding(model.family(), model.topology())?),
            )
        })
        .collect();
    let mut variants = Variants::new(&model.name, &model.forward);
    variants.add_rounded(None, &rounded, Origin::Reference);
    for ((name, plan), stored) in plans.iter().zip(&stored) {
        let model = stored.as_ref().unwrap_or(&model.forward);
        variants.add(name, "plan", model, Origin::Plan(plan));
        variants.add_rounded(Some(name), &rounded, Origin::Plan(plan));
    }
    let loaded = checkpoints.iter().zip(&args.checkpoint);
    for ((checkpoint, dir), rounded) in loaded.zip(&rounded_checkpoints) {
        let (name, origin) = (&checkpoint.name, Origin::Checkpoint(dir));
        variants.add(name, "checkpoint", &checkpoint.forward, origin);
        variants.add_rounded(Some(name), rounded, origin);
    }

    let mut report = if args.tasks.no_text {
        without_text(args, &mut variants)?
    } else {
        let corpus = args.text.corpus(&model, &cache, &console)?;
        of_text(args, &model, &corpus, variants.list(), &console)?
    };
    let jobs = Jobs {
        model: &args.model,
        cache: &cache,
        console: &console,
    };
    if args.tasks.asks() {
        let batch_tokens = args.calibration.batch_tokens;
        let outcomes = args
            .tasks
            .run(&sets, &model, &variants, batch_tokens, &jobs)?;
        report = report.with_tasks(&sets, &outcomes)?;
    }
    if args.speed.speed {
        report.speed = Some(args.speed.run(&variants, args.interval.confidence, &jobs)?);
    }
    console.clear();
    if let Some(path) = &args.output {
        report.write(path)?;
    }
    if args.json {
        output::data(&report.to_json())?;
    } else if args.markdown {
        output::data(&report.to_markdown())?;
    } else {
        output::data(&report.to_text(output::width()))?;
    }
    Ok(())
}

/// What the first of `variants` is on held-out text, and what the others lose
/// against it.
fn of_text(
    args: &Args,
    model: &Model,
    corpus: &Corpus,
    variants: &[Variant<'_>],
    console: &Console,
) -> anyhow::Result<Report> {
    let options = EvaluationOptions {
        tokens: args.evaluation.eval_tokens,
        seq_len: args.calibration.seq_len,
        seed: args.seed,
        options: EvalOptions {
            batch_tokens: args.calibration.batch_tokens,
            resamples: args.interval.resamples,
            confidence: args.interval.confidence,
            seed: args.seed,
        },
    };
    let sequences = pipeline::sequences(corpus, model, &options.pack())?;
    let options = &options.options;
    let (reference, others) = (&variants[0], &variants[1..]);
    Ok(prune_eval::evaluate(
        reference, others, &sequences, options, console,
    )?)
}

/// A report of the models, and of the servers that tasks are put to, in which
/// nothing is measured yet.
fn without_text(args: &Args, variants: &mut Variants<'_>) -> anyhow::Result<Report> {
    let models = variants.list().iter().map(Subject::of);
    let mut models: Vec<Subject> = models.collect::<prune_eval::Result<_>>()?;
    let reference = models.remove(0);
    for server in args.tasks.servers() {
        models.push(Subject {
            name: variants.name(&server.name, "server"),
            fingerprint: server.url.clone(),
            masked: false,
            quantization: None,
            bytes: None,
        });
    }
    let bootstrap = Bootstrap {
        resamples: args.interval.resamples,
        confidence: args.interval.confidence,
        seed: args.seed,
    };
    Ok(Report::of_tasks(reference, models, bootstrap))
}

/// Refuses flags that would do nothing.
fn check(args: &Args, given: Given<'_>) -> crate::Result<()> {
    let calibrates = args.stats.is_none() && (!args.prune_experts.is_empty() || args.layers.asks());
    given.refuse_unless(
        calibrates,
        &["--calibration", "--calibration-tokens", "--spill"],
        "--prune-experts, --drop-layers or another budget, without --stats,",
    )?;
    given.refuse_unless(
        calibrates || !args.tasks.no_text,
        &["--seq-len"],
        "held-out text, so no --no-text,",
    )?;
    let natively = !args.tasks.no_text || args.tasks.asks() && !args.tasks.in_engine();
    given.refuse_unless(
        calibrates || natively,
        &["--batch-tokens"],
        "held-out text, or --task without --backend engine,",
    )?;
    given.refuse_unless(
        !args.tasks.no_text || args.tasks.asks(),
        &["--resamples"],
        "held-out text, or --task,",
    )?;
    let in_engine = args.tasks.in_engine() || args.speed.speed;
    if in_engine && !args.quantize.is_empty() {
        return Err(Error::Option {
            option: "--quantize",
            expected:
                "the native backend and no --speed; the engine does not round through these types"
                    .to_owned(),
            found: args.quantize.join(","),
        });
    }
    Ok(())
}
