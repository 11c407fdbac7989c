//! `plan`: statistics and a budget → a plan file.

use std::path::PathBuf;

use router_stats::stats::Stats;

use super::args::{surroundings, BudgetArgs, ModelArgs};
use super::{inspect, output, Global};
use crate::pipeline::Reporter;
use crate::plan;

/// Arguments of `plan`.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("asked").args(["prune_experts", "keep_experts", "drop_layers"]).required(true).multiple(true)))]
pub(super) struct Args {
    /// Statistics of the model, from `calibrate`
    #[arg(value_name = "STATS")]
    stats: PathBuf,

    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    budget: BudgetArgs,

    /// Weight of a domain in the mixture, in place of the one it was
    /// calibrated with; repeat it for more domains
    #[arg(long, value_name = "NAME=WEIGHT", value_parser = parse_weight)]
    domain_weight: Vec<(String, f64)>,

    /// Seed of criteria that draw at random
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Plan file to write
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Print the plan as JSON
    #[arg(long)]
    json: bool,
}

/// Runs `plan`.
pub(super) fn execute(args: &Args, global: &Global) -> anyhow::Result<()> {
    let (cache, console) = surroundings(global)?;
    let model = args.model.open(&cache, &console)?;
    let mut options = args.budget.options(args.seed);
    options.domain_weights = Some(args.domain_weight.clone()).filter(|weights| !weights.is_empty());
    // A budget that the model cannot meet is refused before a large file is read.
    plan::check(&options, model.topology())?;
    let stats = Stats::read(&args.stats)?;
    let plan = plan::plan(
        &stats,
        model.checkpoint(),
        model.family(),
        model.topology(),
        &options,
    )?;
    if args.json {
        output::json(plan.plan())?;
    } else {
        output::data(&inspect::plan_table(plan.plan()))?;
    }
    if let Some(path) = &args.output {
        crate::cache::make_parent(path)?;
        plan::write(plan.plan(), path)?;
        console.report("Planned", &path.display().to_string());
    }
    Ok(())
}

fn parse_weight(text: &str) -> Result<(String, f64), String> {
    text.split_once('=')
        .and_then(|(name, weight)| Some((name.to_owned(), weight.parse().ok()?)))
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| "expected NAME=WEIGHT".to_owned())
}
