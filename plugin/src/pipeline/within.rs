//! The most that can go at a given loss.

use router_stats::calibration::Corpus;

use super::{evaluate, planner, EvaluationOptions, Grounds, Model, Reporter};
use crate::cache::Cache;
use crate::format;
use crate::plan::{PlanOptions, ValidPlan};
use crate::Result;

/// How much may be lost, and how that is measured.
#[derive(Debug, Clone, Copy)]
pub struct LossLimit<'a> {
    /// Largest change of perplexity, as a fraction of the model's.
    pub most: f64,
    /// Text to measure on.
    pub held_out: &'a Corpus,
    /// How it is measured.
    pub evaluation: &'a EvaluationOptions,
}

/// The plan that keeps fewest experts of those that `limit` allows, by the upper end of
/// the interval.
/// Halves the range of budgets at every step, as if a plan that keeps more
/// lost less. If every plan loses more, no expert goes.
///
/// # Errors
/// Those of planning and evaluating.
pub fn within_loss(
    model: &Model,
    grounds: Grounds<'_>,
    options: &PlanOptions,
    limit: LossLimit<'_>,
    cache: &Cache,
    reporter: &dyn Reporter,
) -> Result<ValidPlan> {
    let planner = planner(model, grounds, options, cache, reporter)?;
    let (mut within, mut beyond) = (None, None);
    let plan = planner.fewest(&mut |plan| {
        let report = evaluate(
            model,
            plan,
            limit.held_out,
            limit.evaluation,
            cache,
            reporter,
        )?;
        let change = report
            .variants
            .first()
            .and_then(|variant| variant.estimate("perplexity_change", None));
        let loss = change.map_or(f64::INFINITY, |it| it.high.unwrap_or(it.value));
        let said = format!(
            "{} experts a layer: perplexity {:+.2}% at most",
            format::range(plan.plan().after.experts_per_layer.iter().copied()),
            loss * 100.0
        );
        reporter.report("Measured", &said);
        let accepted = loss <= limit.most;
        *(if accepted { &mut within } else { &mut beyond }) = Some(said);
        Ok(accepted)
    })?;
    if within.is_none() && options.drops().next().is_some() {
        reporter.hint("what is dropped of the layers may exceed --max-loss alone; no expert goes");
    }
    let within = within.unwrap_or_else(|| "every expert".to_owned());
    let beyond = beyond.map_or_else(String::new, |it| {
        format!("; beyond --max-loss {}: {it}", limit.most)
    });
    reporter.report("Planned", &format!("keep {within}{beyond}"));
    Ok(plan)
}
