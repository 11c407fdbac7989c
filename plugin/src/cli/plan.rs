//! `plan`: statistics and a budget → a plan file, or a family of them.

mod diff;

use std::path::{Path, PathBuf};

use prune_eval::EvalOptions;
use router_stats::calibration::{Corpus, PackOptions, Source};
use router_stats::stats::Stats;

use super::args::{
    any_budget, parse_source, sequences, surroundings, BudgetArgs, EvaluationArgs, ModelArgs,
    TextArgs,
};
use super::given::Given;
use super::progress::Console;
use super::table::Table;
use super::{inspect, output, Global};
use crate::cache::Cache;
use crate::format;
use crate::pipeline::{
    self, plan_name, EvaluationOptions, Grounds, LossLimit, Model, Reporter, SearchOn,
};
use crate::plan::{self, ExpertBudget, Method, Plan, PlanOptions, ValidPlan};
use crate::stream::Remote;
use crate::Error;

/// Arguments of `plan`.
#[derive(clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    group(any_budget("asked").arg("nested").required(true))
)]
pub(super) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,

    /// Statistics of the model, from `calibrate`
    #[arg(value_name = "STATS", required = true)]
    stats: Option<PathBuf>,

    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    budget: BudgetArgs,

    #[command(flatten)]
    text: TextArgs,

    #[command(flatten)]
    evaluation: EvaluationArgs,

    /// Make one plan for each of these fractions of the experts, to step down
    /// without calibrating again: what a smaller one keeps, a larger one keeps
    /// too. -o names the directory for their files
    #[arg(long, value_delimiter = ',', value_name = "FRACTION,…", groups = ["budget", "expert_budget"], help_heading = "Pruning")]
    nested: Vec<f64>,

    /// Requests served at the same time in the memory of --fit
    /// [default: 4; on a CPU 1]
    #[arg(long, value_name = "N", requires = "fit", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Pruning")]
    max_seqs: Option<u32>,

    /// Tokens of each and its answer together [default: 4096, or what the model
    /// was made for]
    #[arg(long, value_name = "N", requires = "fit", help_heading = "Pruning")]
    max_seq_len: Option<usize>,

    /// Text that --search, --fit and a layer criterion that measures run
    /// candidates on: what the statistics were made with, as
    /// `[NAME=]FILE[:WEIGHT]` [default: the bundled mix]
    #[arg(long, value_name = "[NAME=]FILE[:WEIGHT]", value_parser = parse_source, help_heading = "Search")]
    calibration: Vec<Source>,

    /// Plan for a model on the hub by its names and shapes, without its weights
    #[arg(long, requires = "model_id", conflicts_with_all = ["max_loss", "search", "fit"])]
    stream_plan: bool,

    /// Weight of a domain in the mixture, in place of the one it was
    /// calibrated with; repeat it for more domains
    #[arg(long, value_name = "NAME=WEIGHT", value_parser = parse_weight)]
    domain_weight: Vec<(String, f64)>,

    /// Seed of criteria that draw at random and of the order of documents
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Plan file to write, or the directory with --nested
    #[arg(short, long, value_name = "FILE|DIR")]
    output: Option<PathBuf>,

    /// Print the plan as JSON
    #[arg(long)]
    json: bool,
}

#[derive(clap::Subcommand)]
enum Verb {
    /// Show how two plans for one model differ
    Diff(diff::Args),
}

impl Args {
    /// Advice after an interruption.
    pub(super) fn interrupted(&self) -> &'static str {
        if self.budget.search.asks() {
            "what was measured is kept; the same command continues"
        } else {
            "nothing half-written remains; run it again"
        }
    }
}

/// Runs `plan`.
pub(super) fn execute(args: &Args, given: Given<'_>, global: &Global) -> anyhow::Result<()> {
    let stats = match (&args.verb, &args.stats) {
        (Some(Verb::Diff(args)), _) => return diff::execute(args),
        (None, Some(stats)) => stats,
        (None, None) => anyhow::bail!("no statistics were named"),
    };
    given.refuse_unless(
        args.budget.max_loss.is_some(),
        &["--text", "--eval-tokens"],
        "--max-loss",
    )?;
    if args.budget.search.asks() && !args.nested.is_empty() {
        return Err(Error::Option {
            option: "--search",
            expected:
                "one budget, such as --prune-experts 0.5; what is found for two is not nested"
                    .to_owned(),
            found: "--nested".to_owned(),
        }
        .into());
    }
    let (cache, console) = surroundings(global)?;
    let model = match args.stream_plan {
        true => elsewhere(args, &Stats::read(stats)?, &cache, &console)?,
        false => args.model.open(&cache, &console)?,
    };
    let mut options = args.budget.options(args.seed);
    let sequences = sequences(model.forward.device(), args.max_seqs, args.budget.few())?;
    options.fit = args.budget.memory(sequences, args.max_seq_len);
    options.domain_weights = Some(args.domain_weight.clone()).filter(|weights| !weights.is_empty());
    let budgets: Vec<_> = args
        .nested
        .iter()
        .map(|&fraction| ExpertBudget::Fraction(fraction))
        .collect();
    // Budgets that the model cannot meet are refused before a large file is read.
    plan::check(&options, model.topology())?;
    plan::check_target(
        &options,
        model.checkpoint(),
        model.family(),
        model.topology(),
    )?;
    for &budget in &budgets {
        let one = PlanOptions {
            experts: Some(budget),
            ..options.clone()
        };
        plan::check(&one, model.topology())?;
    }
    let measures = options.fit.is_some()
        || options.search.is_some()
        || plan::measurements(&options, model.topology())? > 0;
    given.refuse_unless(
        measures,
        &["--calibration"],
        "--search, --fit, or a layer criterion that measures,",
    )?;
    let stats = Stats::read(stats)?;
    let text = measures
        .then(|| calibration(args, &model, &cache, &console))
        .transpose()?;
    let pack = packed(&stats);
    let grounds = Grounds {
        stats: &stats,
        text: text.as_ref().map(|corpus| SearchOn {
            corpus,
            pack: &pack,
        }),
    };
    if let Some(budget) = &options.fit {
        let plan = pipeline::solved(&model, grounds, &options, budget, &cache, &console)?;
        return single(args, &plan, &console);
    }
    if let Some(by) = &options.search {
        let plan = pipeline::searched(&model, grounds, &options, by, &cache, &console)?;
        return single(args, &plan, &console);
    }
    if let Some(most) = options.max_loss {
        let held_out = args.text.corpus(&model, &cache, &console)?;
        let evaluation = EvaluationOptions {
            tokens: args.evaluation.eval_tokens,
            seed: args.seed,
            options: EvalOptions {
                seed: args.seed,
                ..EvalOptions::default()
            },
            ..EvaluationOptions::default()
        };
        let limit = LossLimit {
            most,
            held_out: &held_out,
            evaluation: &evaluation,
        };
        let plan = pipeline::within_loss(&model, grounds, &options, limit, &cache, &console)?;
        return single(args, &plan, &console);
    }
    let planner = pipeline::planner(&model, grounds, &options, &cache, &console)?;
    if budgets.is_empty() {
        return single(args, &planner.plan()?, &console);
    }
    family(args, &planner.nested(&budgets)?, &console)
}

/// The model that `stats` were made with, without its weights.
fn elsewhere(args: &Args, stats: &Stats, cache: &Cache, console: &Console) -> crate::Result<Model> {
    let source = args.model.source();
    let listed = source.listed("--stream-plan", console)?;
    let _lock = cache.lock(&listed.key(), console)?;
    let root = cache.stream(&listed.key());
    let device = args.model.device()?;
    let mut remote = Remote::open(&listed, &root, source.name(), &device, console)?;
    remote.claim_of(stats)?;
    Ok(remote.model().clone())
}

/// The text that the statistics were made with.
fn calibration(
    args: &Args,
    model: &Model,
    cache: &Cache,
    console: &Console,
) -> crate::Result<Corpus> {
    if args.calibration.is_empty() {
        pipeline::bundled_calibration(model, cache, console)
    } else {
        pipeline::read(&args.calibration, model)
    }
}

/// How it was packed then.
fn packed(stats: &Stats) -> PackOptions {
    let made = &stats.provenance;
    let tokens = made.domains.iter().map(|domain| domain.tokens as usize);
    PackOptions {
        seq_len: made.seq_len,
        tokens: tokens.sum(),
        seed: made.seed,
    }
}

/// Prints and writes one plan.
fn single(args: &Args, plan: &ValidPlan, console: &Console) -> anyhow::Result<()> {
    let plan = plan.plan();
    if args.json {
        output::json(plan)?;
    } else {
        output::data(&inspect::plan_table(plan))?;
    }
    if let Some(unneeded) = plan.unneeded() {
        console.hint(&unneeded);
    }
    if let Some(path) = &args.output {
        save(plan, path, console)?;
    }
    Ok(())
}

/// Prints and writes nested plans.
fn family(args: &Args, plans: &[ValidPlan], console: &Console) -> anyhow::Result<()> {
    let plans: Vec<&Plan> = plans.iter().map(ValidPlan::plan).collect();
    if args.json {
        output::json(&plans)?;
    } else {
        output::data(&family_table(&plans))?;
    }
    if let Some(directory) = &args.output {
        for plan in plans {
            save(plan, &directory.join(file_name(plan)), console)?;
        }
    }
    Ok(())
}

fn save(plan: &Plan, path: &Path, console: &Console) -> anyhow::Result<()> {
    crate::cache::make_parent(path)?;
    plan::write(plan, path)?;
    console.report("Planned", &path.display().to_string());
    Ok(())
}

/// `reap-0.5.plan.json`, `reap-knapsack-balanced-0.5-drop2.plan.json`: the
/// method and the budget.
fn file_name(plan: &Plan) -> PathBuf {
    let Method {
        criterion,
        allocator,
        layer_criterion,
        asked,
        constraints,
        ..
    } = &plan.method;
    let mut name = criterion.clone();
    if *allocator != PlanOptions::default().allocator {
        name = format!("{name}-{allocator}");
    }
    if constraints.balanced_domains {
        name.push_str("-balanced");
    }
    let budget = match asked.experts {
        Some(ExpertBudget::Fraction(fraction)) => fraction.to_string(),
        Some(ExpertBudget::Keep(kept)) => format!("keep{kept}"),
        None => "all".to_owned(),
    };
    let drops = asked.drops();
    let drop: String = drops
        .map(|(unit, budget)| format!("-{}{budget}", unit.short()))
        .collect();
    let by = if drop.is_empty() || *layer_criterion == PlanOptions::default().layer_criterion {
        String::new()
    } else {
        format!("-{layer_criterion}")
    };
    let top_k = asked.top_k.map_or_else(String::new, |k| format!("-top{k}"));
    format!("{name}-{budget}{drop}{by}{top_k}.plan.json").into()
}

/// One line per plan: its size, and what the worst domain keeps of its expert
/// output.
fn family_table(plans: &[&Plan]) -> String {
    let heading = [
        "plan",
        "experts",
        "parameters",
        "weights",
        "change",
        "least output kept",
    ];
    let mut table = Table::new(&heading);
    for plan in plans {
        let covered = plan
            .stats
            .domains
            .iter()
            .filter_map(|domain| Some((domain.coverage?, &domain.name)))
            .min_by(|(a, _), (b, _)| a.total_cmp(b));
        table.row([
            plan_name(&file_name(plan)),
            inspect::experts(&plan.after),
            format::parameters(plan.after.parameters),
            format::bytes(plan.after.bytes),
            inspect::percent(plan.before.bytes, plan.after.bytes),
            covered.map_or_else(String::new, |(share, name)| {
                format!("{:.1}% ({name})", share * 100.0)
            }),
        ]);
    }
    table.to_string()
}

fn parse_weight(text: &str) -> Result<(String, f64), String> {
    text.split_once('=')
        .and_then(|(name, weight)| Some((name.to_owned(), weight.parse().ok()?)))
        .filter(|(name, _)| !name.is_empty())
        .ok_or_else(|| "expected NAME=WEIGHT".to_owned())
}
