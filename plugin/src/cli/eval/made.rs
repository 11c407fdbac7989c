//! Plans made on the fly, one for every combination of method and budget.

use clap::builder::{PossibleValue, PossibleValuesParser};
use router_stats::stats::Stats;

use super::Args;
use crate::allocate::ALLOCATORS;
use crate::cache::Cache;
use crate::cli::args::default_allocator;
use crate::cli::progress::Console;
use crate::layers::Unit;
use crate::pipeline::{self, Grounds, Model, SearchOn, Texts};
use crate::plan::{self, ExpertBudget, PlanOptions, ValidPlan};
use crate::saliency::CRITERIA;

/// Stands for every criterion, allocator or type.
const ALL: &str = "all";

/// Every criterion with every allocator at every fraction, by name.
///
/// # Errors
/// Those of calibrating, and of a budget that cannot be met.
pub(super) fn made(
    args: &Args,
    model: &Model,
    cache: &Cache,
    console: &Console,
) -> crate::Result<Vec<(String, ValidPlan)>> {
    if args.prune_experts.is_empty() && !args.layers.asks() {
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
            let options = args.constraints.apply(args.layers.apply(PlanOptions {
                criterion: criterion.to_owned(),
                allocator: allocator.to_owned(),
                experts: fraction.map(ExpertBudget::Fraction),
                seed: args.seed,
                ..PlanOptions::default()
            }));
            plan::check(&options, model.topology())?;
            wanted.push((name(&options), options));
            if fraction.is_none() {
                // Without a share of the experts every method does the same.
                break;
            }
        }
    }
    let calibration = args.calibration.options(args.seed);
    let (stats, corpus) = match &args.stats {
        Some(path) => (Stats::read(path)?, None),
        None => {
            let corpus =
                Texts::new(&args.calibration.calibration, model, cache, console)?.calibration;
            let measured = pipeline::measure(model, &corpus, &calibration, cache, console)?;
            (measured.read()?, Some(corpus))
        }
    };
    let pack = calibration.pack();
    let grounds = Grounds {
        stats: &stats,
        text: corpus.as_ref().map(|corpus| SearchOn {
            corpus,
            pack: &pack,
        }),
    };
    let plan =
        |options: &PlanOptions| pipeline::planner(model, grounds, options, cache, console)?.plan();
    let plans = wanted.into_iter();
    plans
        .map(|(name, options)| Ok((name, plan(&options)?)))
        .collect()
}

/// The names asked for, which `all` stands for.
pub(super) fn named(asked: &[String], all: impl Iterator<Item = &'static str>) -> Vec<&str> {
    if asked.iter().any(|name| name == ALL) {
        all.collect()
    } else {
        asked.iter().map(String::as_str).collect()
    }
}

/// `reap 0.5, drop 2, top 4`; `reap lamp 0.5` with another allocator than the default.
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
    let layers = options.drops().map(|(unit, budget)| match unit {
        Unit::Layer => format!("drop {budget}"),
        Unit::Attention => format!("drop {budget} attention"),
        Unit::Moe => format!("drop {budget} MoE"),
    });
    let top_k = options.top_k.map(|top_k| format!("top {top_k}"));
    experts
        .into_iter()
        .chain(layers)
        .chain(top_k)
        .collect::<Vec<_>>()
        .join(", ")
}

/// `names` or [`ALL`].
pub(super) fn or_all(names: Vec<PossibleValue>) -> PossibleValuesParser {
    let all = PossibleValue::new(ALL).help("Every one of them");
    PossibleValuesParser::new(names.into_iter().chain([all]))
}
