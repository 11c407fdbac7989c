//! Statistics and calibration text → the best plan that a search finds.

use std::time::Instant;

use router_stats::calibration::{Corpus, PackOptions};
use router_stats::stats::Stats;

use super::{decide, texts, Model, Reporter};
use crate::cache::Cache;
use crate::format;
use crate::plan::{Plan, PlanOptions, Planner, SearchOptions, Searched, Space, ValidPlan};
use crate::search::{self, Found, Journal, Objective, SearchText};
use crate::{Error, Result};

/// Calibration text to measure candidates on, and how it is packed. Of its
/// budget a search takes the part that it needs: the first sequences of every
/// domain.
#[derive(Debug, Clone, Copy)]
pub struct SearchOn<'a> {
    /// The text.
    pub corpus: &'a Corpus,
    /// How it was packed for the statistics.
    pub pack: &'a PackOptions,
}

/// The plan that `options` ask for, with what `by` finds in place of its
/// allocator's split. Candidates are measured on the mixture of the plan. A
/// search that was stopped goes on: its candidates are in the cache.
///
/// # Errors
/// Those of planning and of [`search::run`]; [`Error::Option`] if the text lacks
/// a domain of the statistics.
pub fn searched(
    model: &Model,
    stats: &Stats,
    options: &PlanOptions,
    by: &SearchOptions,
    on: SearchOn<'_>,
    cache: &Cache,
    reporter: &dyn Reporter,
) -> Result<ValidPlan> {
    let planner = planner(model, stats, options)?;
    let plan = planner.plan()?;
    let Some(space) = planner.space(&plan)? else {
        reporter.hint("nothing to search: no expert has to go");
        return Ok(plan);
    };
    let started = Instant::now();
    let text = search_text(model, plan.plan(), on, by.tokens)?;
    let found = find(&text, &space, by, options.seed, cache, reporter)?;
    let search = Searched {
        name: by.name.clone(),
        tokens: text.tokens() as u64,
        text: text.hash().to_owned(),
        candidates: found.candidates as u64,
        before: found.before,
        after: found.after,
    };
    let plan = planner.with_experts(&plan, &found.keep, Some(search))?;
    let said = format!(
        "{}: overlap {:.4} to {:.4} on {} calibration tokens, {} candidates, {}",
        by.name,
        found.before.overlap,
        found.after.overlap,
        format::count(text.tokens() as u64),
        format::count(found.candidates as u64),
        format::duration(started.elapsed())
    );
    reporter.report("Searched", &said);
    reporter.report("Planned", &decide::summary(&plan));
    Ok(plan)
}

/// A plan whose layers keep different numbers of experts, as a search may find
/// it; `None` if no such plan has the budget.
///
/// # Errors
/// Those of planning.
pub fn uneven(model: &Model, stats: &Stats, options: &PlanOptions) -> Result<Option<ValidPlan>> {
    let planner = planner(model, stats, options)?;
    let plan = planner.plan()?;
    let space = planner.space(&plan)?;
    let keep = space.and_then(|space| space.uneven());
    keep.map(|keep| planner.with_experts(&plan, &keep, None))
        .transpose()
}

fn planner<'a>(
    model: &'a Model,
    stats: &'a Stats,
    options: &'a PlanOptions,
) -> Result<Planner<'a>> {
    Planner::new(
        stats,
        model.checkpoint(),
        model.family(),
        model.topology(),
        options,
    )
}

/// Runs the search, or what an earlier run left of it.
fn find(
    text: &SearchText<'_>,
    space: &Space,
    by: &SearchOptions,
    seed: u64,
    cache: &Cache,
    reporter: &dyn Reporter,
) -> Result<Found> {
    let search = search::search(&by.name)?;
    let journal = Journal::open(cache, &text.header()?, reporter)?;
    if !journal.is_empty() {
        let held = format::count(journal.len() as u64);
        let said = format!("{held} candidates are in {}", journal.path().display());
        reporter.report("Resuming", &said);
    }
    let mut objective = Objective::new(text, journal, Some(by.time), reporter);
    search::run(search, space, &mut objective, seed)
}

/// The text for the domains that `plan` was made for, by their weights there.
fn search_text<'a>(
    model: &'a Model,
    plan: &Plan,
    on: SearchOn<'_>,
    tokens: usize,
) -> Result<SearchText<'a>> {
    let domains = plan.stats.domains.iter();
    let weighing: Vec<_> = domains.filter(|domain| domain.weight > 0.0).collect();
    let found = |name: &str| on.corpus.domains.iter().find(|domain| domain.name == name);
    let mut corpus = Corpus::default();
    for domain in &weighing {
        let Some(text) = found(&domain.name) else {
            let names = |names: Vec<&str>| names.join(", ");
            return Err(Error::Option {
                option: "--calibration",
                expected: format!(
                    "text of the domains of the statistics: {}",
                    names(weighing.iter().map(|domain| domain.name.as_str()).collect())
                ),
                found: names(
                    on.corpus
                        .domains
                        .iter()
                        .map(|text| text.name.as_str())
                        .collect(),
                ),
            });
        };
        let mut text = text.clone();
        text.weight = domain.weight;
        corpus.domains.push(text);
    }
    let pack = PackOptions {
        tokens: tokens.min(on.pack.tokens),
        ..on.pack.clone()
    };
    let sequences = texts::sequences(&corpus, model, &pack)?;
    Ok(SearchText::new(
        &model.forward,
        sequences,
        &model.companions,
    ))
}
