//! `eval`: what plans and checkpoints lose on held-out text.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::ArgGroup;
use prune_eval::{EvalOptions, Variant};
use router_stats::family::Keep;
use router_stats::stats::Stats;

use super::args::{
    allocators, criteria, default_allocator, default_layer_criterion, layer_criteria, surroundings,
    CalibrationArgs, ConstraintArgs, EvaluationArgs, ModelArgs, TextArgs,
};
use super::given::Given;
use super::progress::Console;
use super::{output, Global};
use crate::allocate::ALLOCATORS;
use crate::cache::Cache;
use crate::pipeline::{self, EvaluationOptions, Model, Texts};
use crate::plan::{self, ExpertBudget, LayerBudget, PlanOptions, ValidPlan};
use crate::saliency::CRITERIA;

/// Stands for every criterion, or every allocator.
const ALL: &str = "all";

/// Arguments of `eval`.
#[derive(clap::Args)]
#[command(group(ArgGroup::new("budget").args(["prune_experts", "drop_layers"]).multiple(true)), group(ArgGroup::new("expert_budget").args(["prune_experts"])))]
pub(super) struct Args {
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
    #[arg(long, value_delimiter = ',', default_value = "reap", value_name = "NAME,…", requires = "prune_experts", value_parser = or_all(criteria()))]
    criterion: Vec<String>,

    /// How many go in which layer in plans made on the fly, or `all`
    #[arg(long, value_delimiter = ',', default_value = default_allocator(), value_name = "NAME,…", requires = "prune_experts", value_parser = or_all(allocators()))]
    allocation: Vec<String>,

    /// Which layers go in plans made on the fly
    #[arg(long, default_value = default_layer_criterion(), value_name = "NAME", value_parser = PossibleValuesParser::new(layer_criteria()), requires = "drop_layers")]
    layer_criterion: String,

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

/// Runs `eval`.
pub(super) fn execute(args: &Args, given: Given<'_>, global: &Global) -> anyhow::Result<()> {
    check(args, given)?;
    let (cache, console) = surroundings(global)?;
    let model = args.model.open(&cache, &console)?;
    let mut plans: Vec<(String, ValidPlan)> = Vec::new();
    for path in &args.plan {
        let plan = ValidPlan::read(path, model.checkpoint(), model.family(), model.topology())?;
        plans.push((pipeline::plan_name(path), plan));
    }
    plans.extend(made(args, &model, &cache, &console)?);
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

    let mut taken = BTreeSet::from([model.name.clone()]);
    let mut variants: Vec<Variant<'_>> = Vec::new();
    let variant = |name: &str, model, keep: Option<&Keep>| Variant {
        name: name.to_owned(),
        model,
        keep: keep.cloned(),
    };
    variants.extend(plans.iter().map(|(name, plan)| {
        let name = distinct(name, "plan", &mut taken);
        variant(&name, &model.forward, Some(plan.keep()))
    }));
    variants.extend(checkpoints.iter().map(|checkpoint| {
        let name = distinct(&checkpoint.name, "checkpoint", &mut taken);
        variant(&name, &checkpoint.forward, None)
    }));

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
    let reference = variant(&model.name, &model.forward, None);
    let report = prune_eval::evaluate(
        &reference,
        &variants,
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

/// Plans made on the fly: every criterion with every allocator at every
/// fraction.
fn made(
    args: &Args,
    model: &Model,
    cache: &Cache,
    console: &Console,
) -> crate::Result<Vec<(String, ValidPlan)>> {
    if args.prune_experts.is_empty() && args.drop_layers.is_none() {
        return Ok(Vec::new());
    }
    let fractions: Vec<Option<f64>> = if args.prune_experts.is_empty() {
        vec![None]
    } else {
        args.prune_experts.iter().copied().map(Some).collect()
    };
    let criteria = named(&args.criterion, CRITERIA.iter().map(|c| c.name()));
    let allocators = named(&args.allocation, ALLOCATORS.iter().map(|a| a.name()));
    let methods = criteria.iter().flat_map(|criterion| {
        allocators
            .iter()
            .map(move |allocator| (*criterion, *allocator))
    });
    let mut wanted = Vec::new();
    for fraction in fractions {
        for (criterion, allocator) in methods.clone() {
            let options = args.constraints.apply(PlanOptions {
                criterion: criterion.to_owned(),
                allocator: allocator.to_owned(),
                experts: fraction.map(ExpertBudget::Fraction),
                drop_layers: args.drop_layers,
                layer_criterion: args.layer_criterion.clone(),
                seed: args.seed,
                ..PlanOptions::default()
            });
            plan::check(&options, model.topology())?;
            wanted.push((name(&options), options));
            if fraction.is_none() {
                // Without a share of the experts every method does the same.
                break;
            }
        }
    }
    let stats = match &args.stats {
        Some(path) => Stats::read(path)?,
        None => {
            let corpus =
                Texts::new(&args.calibration.calibration, model, cache, console)?.calibration;
            pipeline::measure(
                model,
                &corpus,
                &args.calibration.options(args.seed),
                cache,
                console,
            )?
            .read()?
        }
    };
    wanted
        .into_iter()
        .map(|(name, options)| {
            Ok((
                name,
                plan::plan(
                    &stats,
                    model.checkpoint(),
                    model.family(),
                    model.topology(),
                    &options,
                )?,
            ))
        })
        .collect()
}

/// The names asked for, which `all` stands for.
fn named<'a>(asked: &'a [String], all: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    if asked.iter().any(|name| name == ALL) {
        all.collect()
    } else {
        asked.iter().map(String::as_str).collect()
    }
}

/// `reap 0.5, drop 2`; `reap lamp 0.5` with another allocator than the default.
fn name(options: &PlanOptions) -> String {
    let mut method = options.criterion.clone();
    if options.allocator != default_allocator() {
        method = format!("{method} {}", options.allocator);
    }
    let experts = match options.experts {
        Some(ExpertBudget::Fraction(fraction)) => Some(format!("{method} {fraction}")),
        Some(ExpertBudget::Keep(kept)) => Some(format!("{method} keep {kept}")),
        None => None,
    };
    let layers = options.drop_layers.map(|layers| match layers {
        LayerBudget::Count(count) => format!("drop {count}"),
        LayerBudget::Fraction(fraction) => format!("drop {fraction}"),
    });
    experts
        .into_iter()
        .chain(layers)
        .collect::<Vec<_>>()
        .join(", ")
}

/// `name`, or if that is taken `name (kind)`, then `name (kind 2)` and so on: a
/// report tells models apart by their names.
fn distinct(name: &str, kind: &str, taken: &mut BTreeSet<String>) -> String {
    let mut unique = name.to_owned();
    let mut count = 1;
    while !taken.insert(unique.clone()) {
        unique = if count == 1 {
            format!("{name} ({kind})")
        } else {
            format!("{name} ({kind} {count})")
        };
        count += 1;
    }
    unique
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

/// `names` or [`ALL`].
fn or_all(names: Vec<PossibleValue>) -> PossibleValuesParser {
    let all = PossibleValue::new(ALL).help("Every one of them");
    PossibleValuesParser::new(names.into_iter().chain([all]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_unique() {
        let mut taken = BTreeSet::from(["half".to_owned()]);
        let names = [
            ("half", "plan"),
            ("half", "plan"),
            ("half", "checkpoint"),
            ("other", "checkpoint"),
        ]
        .map(|(name, kind)| distinct(name, kind, &mut taken));
        assert_eq!(
            names,
            ["half (plan)", "half (plan 2)", "half (checkpoint)", "other"]
        );
    }
}
