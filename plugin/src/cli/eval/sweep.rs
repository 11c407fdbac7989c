//! `eval sweep`: many plans of one model, into a file that can be continued.

use std::path::PathBuf;

use clap::builder::PossibleValue;
use clap::ArgGroup;
use prune_eval::{EvalOptions, Sweep};
use router_stats::forward::Quantization;

use super::made::{named, or_all};
use super::variants;
use crate::allocate::ALLOCATORS;
use crate::cli::args::{
    allocators, criteria, default_allocator, default_criterion, default_layer_criterion,
    layer_criteria, searches, surroundings, CalibrationArgs, ConstraintArgs, EvaluationArgs,
    IntervalArgs, ModelArgs, SearchLimits, TextArgs,
};
use crate::cli::given::Given;
use crate::cli::{output, Global};
use crate::layers::LAYER_CRITERIA;
use crate::pipeline::{EvaluationOptions, Texts};
use crate::plan::{LayerBudget, PlanOptions};
use crate::saliency::CRITERIA;
use crate::search::SEARCHES;
use crate::sweep::{every_fraction, run, CalibrateOn, Grid, SweepJob};

/// Stands for every domain alone.
const EACH: &str = "each";
/// Stands for all domains together.
const MIX: &str = "mix";
/// Stands for weights as they are.
const NONE: &str = "none";

/// Arguments of `eval sweep`.
#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    group(ArgGroup::new("budget").args(["prune_experts", "cliff", "drop_layers"]).multiple(true)),
    group(ArgGroup::new("expert_budget").args(["prune_experts", "cliff"])),
)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,

    #[command(flatten)]
    model: ModelArgs,

    /// Fractions of the experts to remove; 0 is none
    #[arg(long, value_delimiter = ',', value_name = "FRACTION,…")]
    prune_experts: Vec<f64>,

    /// Remove one expert more at a time, down to what the router needs, and find
    /// where quality falls off
    #[arg(long)]
    cliff: bool,

    /// Layers to drop; 0 is none
    #[arg(long, value_delimiter = ',', value_name = "N|FRACTION,…")]
    drop_layers: Vec<LayerBudget>,

    /// Which experts go, or `all`
    #[arg(long, value_delimiter = ',', default_value = default_criterion(), value_name = "NAME,…", requires = "expert_budget", value_parser = or_all(criteria()))]
    criterion: Vec<String>,

    /// How many go in which layer, or `all`
    #[arg(long, value_delimiter = ',', default_value = default_allocator(), value_name = "NAME,…", requires = "expert_budget", value_parser = or_all(allocators()))]
    allocation: Vec<String>,

    /// Searches to compare with the allocations, or `all`: each runs candidates
    /// on calibration text to find a better split
    #[arg(long, value_delimiter = ',', value_name = "NAME,…", requires = "expert_budget", value_parser = or_all(searches()), help_heading = "Search")]
    search: Vec<String>,

    #[command(flatten)]
    search_limits: SearchLimits,

    /// Which layers go, or `all`
    #[arg(long, value_delimiter = ',', default_value = default_layer_criterion(), value_name = "NAME,…", requires = "drop_layers", value_parser = or_all(layer_criteria()))]
    layer_criterion: Vec<String>,

    /// Types to round weights through, `all`, or `none`
    #[arg(long, value_delimiter = ',', default_value = NONE, value_name = "TYPE,…", value_parser = or_all(types()))]
    quantize: Vec<String>,

    /// Domains of the calibration set that decide: `mix` is all of them, `each`
    /// every one alone
    #[arg(long, value_delimiter = ',', default_value = MIX, value_name = "NAME,…", requires = "budget")]
    calibrate_on: Vec<String>,

    /// How many calibration sets to draw, with seeds 0, 1, …; or the seeds
    /// themselves, two or more
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "3",
        value_name = "N|SEED,…"
    )]
    seeds: Vec<u64>,

    #[command(flatten)]
    constraints: ConstraintArgs,

    #[command(flatten)]
    text: TextArgs,

    #[command(flatten)]
    evaluation: EvaluationArgs,

    #[command(flatten)]
    interval: IntervalArgs,

    #[command(flatten)]
    calibration: CalibrationArgs,

    /// File of results; the points it holds are not measured again
    #[arg(short, long, required = true, value_name = "FILE")]
    output: Option<PathBuf>,

    #[command(flatten)]
    form: Form,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Print what a file of results says
    Show {
        /// File of `eval sweep`
        #[arg(value_name = "FILE")]
        file: PathBuf,

        #[command(flatten)]
        form: Form,
    },
}

/// How results are printed.
#[derive(clap::Args)]
struct Form {
    /// Print the summary as JSON
    #[arg(long, conflicts_with = "markdown")]
    json: bool,

    /// Print tables as Markdown
    #[arg(long)]
    markdown: bool,
}

impl Form {
    fn print(&self, sweep: &Sweep) -> std::io::Result<()> {
        if self.json {
            output::json(&sweep.summary())
        } else if self.markdown {
            output::data(&sweep.to_markdown())
        } else {
            output::data(&sweep.to_text(output::width()))
        }
    }
}

/// Runs `eval sweep`.
pub(super) fn execute(args: &Args, given: Given<'_>, global: &Global) -> anyhow::Result<()> {
    let path = match (&args.verb, &args.output) {
        (Some(Verb::Show { file, form }), _) => return Ok(form.print(&Sweep::read(file)?)?),
        (None, Some(path)) => path,
        (None, None) => anyhow::bail!("no file of results was named"),
    };
    if args.seeds == [0] {
        return Err(crate::Error::Option {
            option: "--seeds",
            expected: "a number of calibration sets above 0, or two seeds or more".to_owned(),
            found: "0".to_owned(),
        }
        .into());
    }
    let removes = args.cliff || !args.prune_experts.is_empty() || !args.drop_layers.is_empty();
    given.refuse_unless(
        removes,
        &[
            "--seeds",
            "--calibration",
            "--calibration-tokens",
            "--spill",
        ],
        "--prune-experts, --cliff or --drop-layers",
    )?;
    let (cache, console) = surroundings(global)?;
    let model = args.model.open(&cache, &console)?;
    let calibration =
        Texts::new(&args.calibration.calibration, &model, &cache, &console)?.calibration;
    let domains: Vec<&str> = calibration
        .domains
        .iter()
        .map(|domain| domain.name.as_str())
        .collect();
    let mut grid = grid(args, &domains)?;
    if args.cliff {
        grid.fractions = every_fraction(model.topology())?;
    }
    let held_out = args.text.corpus(&model, &cache, &console)?;
    let evaluation = EvaluationOptions {
        tokens: args.evaluation.eval_tokens,
        seq_len: args.calibration.seq_len,
        seed: 0,
        options: EvalOptions {
            batch_tokens: args.calibration.batch_tokens,
            resamples: args.interval.resamples,
            confidence: args.interval.confidence,
            seed: 0,
        },
    };
    let job = SweepJob {
        model: &model,
        grid: &grid,
        calibration: &calibration,
        measure: &args.calibration.options(0),
        held_out: &held_out,
        evaluation: &evaluation,
        cache: &cache,
        reporter: &console,
    };
    let sweep = run(&job, path)?;
    console.clear();
    Ok(args.form.print(&sweep)?)
}

/// What is varied, but for the fractions of `--cliff`.
fn grid(args: &Args, domains: &[&str]) -> crate::Result<Grid> {
    let owned = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let none = Grid::default();
    Ok(Grid {
        criteria: owned(named(&args.criterion, CRITERIA.iter().map(|c| c.name()))),
        allocators: owned(named(&args.allocation, ALLOCATORS.iter().map(|a| a.name()))),
        searches: named(&args.search, SEARCHES.iter().map(|s| s.name()))
            .into_iter()
            .map(|name| args.search_limits.of(name))
            .collect(),
        fractions: or_default(&args.prune_experts, none.fractions),
        drop_layers: or_default(&args.drop_layers, none.drop_layers),
        layer_criteria: owned(named(
            &args.layer_criterion,
            LAYER_CRITERIA.iter().map(|c| c.name()),
        )),
        quantize: quantizations(&args.quantize)?,
        calibrate_on: calibrate_on(&args.calibrate_on, domains),
        seeds: seeds(&args.seeds),
        common: args.constraints.apply(PlanOptions::default()),
    })
}

fn or_default<T: Clone>(asked: &[T], default: Vec<T>) -> Vec<T> {
    if asked.is_empty() {
        default
    } else {
        asked.to_vec()
    }
}

/// `3` is 0, 1, 2; several are the seeds themselves.
fn seeds(asked: &[u64]) -> Vec<u64> {
    match asked {
        [count] => (0..*count).collect(),
        seeds => seeds.to_vec(),
    }
}

fn calibrate_on(asked: &[String], domains: &[&str]) -> Vec<CalibrateOn> {
    let mut all = Vec::new();
    for name in asked {
        match name.as_str() {
            MIX => all.push(CalibrateOn::Mix),
            EACH => all.extend(domains.iter().map(|&d| CalibrateOn::Domain(d.to_owned()))),
            domain => all.push(CalibrateOn::Domain(domain.to_owned())),
        }
    }
    all
}

/// Names of the types, and of none.
fn types() -> Vec<PossibleValue> {
    let none = PossibleValue::new(NONE).help("Weights as they are");
    variants::types().into_iter().chain([none]).collect()
}

fn quantizations(asked: &[String]) -> crate::Result<Vec<Option<Quantization>>> {
    let (none, types): (Vec<String>, Vec<String>) =
        asked.iter().cloned().partition(|name| name == NONE);
    let types = variants::asked(&types)?.into_iter().map(Some);
    let as_is = none.first().map(|_| None);
    Ok(as_is.into_iter().chain(types).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn one_number_counts_seeds_and_several_are_seeds() {
        assert_eq!(seeds(&[3]), [0, 1, 2]);
        assert_eq!(seeds(&[3, 7]), [3, 7]);
    }

    #[test]
    fn each_stands_for_every_domain_alone() {
        let found = calibrate_on(&texts(&["mix", "each"]), &["code", "math"]);
        let names: Vec<&str> = found.iter().map(CalibrateOn::name).collect();
        assert_eq!(names, ["mix", "code", "math"]);
        assert_eq!(calibrate_on(&texts(&["math"]), &["code", "math"]).len(), 1);
    }

    #[test]
    fn none_leaves_weights_as_they_are_beside_types() {
        assert_eq!(quantizations(&texts(&["none"])).unwrap(), [None]);
        let found = quantizations(&texts(&["q8_0", "none"])).unwrap();
        assert_eq!(found, [None, Some(Quantization::Q8_0)]);
        let all = quantizations(&texts(&["all"])).unwrap();
        assert_eq!(all.len(), Quantization::ALL.len());
    }
}
