//! Statistics and calibration text → the best plan that a search finds.

use std::time::Instant;

use super::planner::search_text;
use super::{decide, planner, Grounds, Model, Reporter};
use crate::cache::Cache;
use crate::format;
use crate::plan::{PlanOptions, SearchOptions, Searched, Space, ValidPlan};
use crate::search::{self, Found, Journal, Objective, SearchText};
use crate::Result;

/// The plan that `options` ask for, with what `by` finds in place of its
/// allocator's split. Candidates are measured on the mixture of the plan. A
/// search that was stopped goes on: its candidates are in the cache.
///
/// # Errors
/// Those of planning and of [`search::run`]; [`Error::Option`](crate::Error::Option) if the text lacks
/// a domain of the statistics.
pub fn searched(
    model: &Model,
    grounds: Grounds<'_>,
    options: &PlanOptions,
    by: &SearchOptions,
    cache: &Cache,
    reporter: &dyn Reporter,
) -> Result<ValidPlan> {
    let planner = planner(model, grounds, options, cache, reporter)?;
    let plan = planner.plan()?;
    let Some(space) = planner.space(&plan)? else {
        reporter.hint("nothing to search: no expert has to go");
        return Ok(plan);
    };
    let started = Instant::now();
    let domains = plan.plan().stats.domains.iter();
    let domains = domains.map(|domain| (domain.name.as_str(), domain.weight));
    let text = search_text(model, domains.collect(), grounds, by.tokens)?;
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
pub fn uneven(
    model: &Model,
    grounds: Grounds<'_>,
    options: &PlanOptions,
    cache: &Cache,
    reporter: &dyn Reporter,
) -> Result<Option<ValidPlan>> {
    let planner = planner(model, grounds, options, cache, reporter)?;
    let plan = planner.plan()?;
    let space = planner.space(&plan)?;
    let keep = space.and_then(|space| space.uneven());
    keep.map(|keep| planner.with_experts(&plan, &keep, None))
        .transpose()
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
