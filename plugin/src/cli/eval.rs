//! `eval`: what plans and checkpoints lose on held-out text.

mod made;
mod names;
mod sweep;
mod variants;

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::ArgGroup;
use prune_eval::{EvalOptions, Variant};

use super::args::{
    allocators, criteria, default_allocator, default_layer_criterion, layer_criteria, surroundings,
    CalibrationArgs, ConstraintArgs, EvaluationArgs, ModelArgs, TextArgs,
};
use super::given::Given;
use super::{output, Global};
use crate::pipeline::{self, EvaluationOptions};
use crate::plan::{LayerBudget, ValidPlan};
use variants::Variants;

/// Arguments of `eval`.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true, group(ArgGroup::new("budget").args(["prune_experts", "drop_layers"]).multiple(true)), group(ArgGroup::new("expert_budget").args(["prune_experts"])))]
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

    /// Layers to drop in plans made on the fly
    #[arg(long, value_name = "N|FRACTION")]
    drop_layers: Option<LayerBudget>,

    /// Criteria of plans made on the fly, or `all`
    #[arg(long, value_delimiter = ',', default_value = "reap", value_name = "NAME,…", requires = "prune_experts", value_parser = made::or_all(criteria()))]
    criterion: Vec<String>,

    /// How many go in which layer in plans made on the fly, or `all`
    #[arg(long, value_delimiter = ',', default_value = default_allocator(), value_name = "NAME,…", requires = "prune_experts", value_parser = made::or_all(allocators()))]
    allocation: Vec<String>,

    /// Which layers go in plans made on the fly
    #[arg(long, default_value = default_layer_criterion(), value_name = "NAME", value_parser = PossibleValuesParser::new(layer_criteria()), requires = "drop_layers")]
    layer_criterion: String,

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

    /// Resamples of the bootstrap
    #[arg(long, default_value_t = EvalOptions::default().resamples, value_name = "N")]
    resamples: usize,

    /// Coverage of the intervals
    #[arg(long, default_value_t = EvalOptions::default().confidence, value_name = "FRACTION")]
    confidence: f64,

    #[command(flatten)]
    calibration: CalibrationArgs,

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
            let source = pipeline::ModelSource {
                model: Some(dir.display().to_string()),
                ..Default::default()
            };
            source.open(&args.model.device()?, &cache, &console)
        })
        .collect::<crate::Result<Vec<_>>>()?;

    let types = variants::asked(&args.quantize)?;
    let rounded = variants::rounded(&model.forward, &types)?;
    let rounded_checkpoints = checkpoints
        .iter()
        .map(|checkpoint| variants::rounded(&checkpoint.forward, &types))
        .collect::<router_stats::Result<Vec<_>>>()?;
    let mut variants = Variants::new(&model.name);
    variants.add_rounded(None, &rounded, None);
    for (name, plan) in &plans {
        variants.add(name, "plan", &model.forward, Some(plan.keep()));
        variants.add_rounded(Some(name), &rounded, Some(plan.keep()));
    }
    for (checkpoint, rounded) in checkpoints.iter().zip(&rounded_checkpoints) {
        variants.add(&checkpoint.name, "checkpoint", &checkpoint.forward, None);
        variants.add_rounded(Some(&checkpoint.name), rounded, None);
    }

    let corpus = args.text.corpus(&model, &cache, &console)?;
    let options = EvaluationOptions {
        tokens: args.evaluation.eval_tokens,
        seq_len: args.calibration.seq_len,
        seed: args.seed,
        options: EvalOptions {
            batch_tokens: args.calibration.batch_tokens,
            resamples: args.resamples,
            confidence: args.confidence,
            seed: args.seed,
        },
    };
    let sequences = pipeline::sequences(&corpus, &model, &options.pack())?;
    let reference = Variant {
        name: model.name.clone(),
        model: &model.forward,
        keep: None,
    };
    let report = prune_eval::evaluate(
        &reference,
        variants.list(),
        &sequences,
        &options.options,
        &console,
    )?;
    console.clear();
    if args.json {
        output::data(&report.to_json())?;
    } else if args.markdown {
        output::data(&report.to_markdown())?;
    } else {
        output::data(&report.to_text(output::width()))?;
    }
    Ok(())
}

/// Refuses flags that would do nothing.
fn check(args: &Args, given: Given<'_>) -> crate::Result<()> {
    let calibrates =
        args.stats.is_none() && (!args.prune_experts.is_empty() || args.drop_layers.is_some());
    given.refuse_unless(
        calibrates,
        &["--calibration", "--calibration-tokens", "--spill"],
        "--prune-experts or --drop-layers, without --stats,",
    )
}
