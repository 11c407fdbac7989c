//! Statistics → a plan.

use super::{planner, Grounds, Measured, Model, Reporter, SearchOn, CACHED};
use crate::cache::{self, Cache, Key};
use crate::format;
use crate::plan::{self, PlanOptions, Size, ValidPlan};
use crate::Result;

/// The plan that `options` ask for, from the cache or made now. Statistics are
/// only read in the second case, and `text`, that they were made with, is only
/// run by criteria that measure.
///
/// # Errors
/// Those of planning, and if the cache cannot be written.
pub fn decide(
    model: &Model,
    measured: &Measured,
    text: SearchOn<'_>,
    options: &PlanOptions,
    cache: &Cache,
    reporter: &dyn Reporter,
) -> Result<ValidPlan> {
    // The key holds every option; their debug form names them all.
    let key = Key::new("plan")
        .with(&measured.key)
        .with(&format!("{options:?}"))
        .finish();
    cached(&key, model, cache, reporter, || {
        let grounds = Grounds {
            stats: &measured.read()?,
            text: Some(text),
        };
        let plan = planner(model, grounds, options, cache, reporter)?.plan()?;
        reporter.report("Planned", &summary(&plan));
        if let Some(unneeded) = plan.plan().unneeded() {
            reporter.hint(&unneeded);
        }
        Ok(plan)
    })
}

/// The plan of `model` that the cache has under `key`, or what `make` makes.
///
/// # Errors
/// Those of `make`; if the plan in the cache is of another model, or the cache
/// cannot be written.
pub(super) fn cached(
    key: &str,
    model: &Model,
    cache: &Cache,
    reporter: &dyn Reporter,
    make: impl FnOnce() -> Result<ValidPlan>,
) -> Result<ValidPlan> {
    let path = cache.plan(key);
    let _lock = cache.lock(key, reporter)?;
    if let Ok(plan) = plan::read(&path) {
        let plan = ValidPlan::new(plan, model.checkpoint(), model.family(), model.topology())?;
        reporter.report(CACHED, &format!("plan         {}", path.display()));
        return Ok(plan);
    }
    let plan = make()?;
    cache::make_parent(&path)?;
    plan::write(plan.plan(), &path)?;
    Ok(plan)
}

/// `reap, uniform: keep 8 of 16 experts in 4 layers`.
pub(super) fn summary(plan: &ValidPlan) -> String {
    let plan = plan.plan();
    let experts = |size: &Size| format::range(size.experts_per_layer.iter().copied());
    let dropped = plan.before.layers - plan.after.layers;
    let mut text = format!(
        "{}, {}: keep {} of {} experts in {} layers",
        plan.method.criterion,
        plan.method.allocation(),
        experts(&plan.after),
        experts(&plan.before),
        plan.after
            .experts_per_layer
            .iter()
            .filter(|&&experts| experts > 0)
            .count(),
    );
    if dropped > 0 {
        text.push_str(&format!(
            ", drop {dropped} of {} layers",
            plan.before.layers
        ));
    }
    let parts = [
        (
            "attention",
            plan.layers.iter().filter(|it| it.skipped.attention).count(),
        ),
        (
            "MoE",
            plan.layers.iter().filter(|it| it.skipped.mlp).count(),
        ),
    ];
    for (what, gone) in parts.into_iter().filter(|&(_, gone)| gone > 0) {
        text.push_str(&format!(", drop {what} of {gone} layers"));
    }
    if let Some(top_k) = plan.method.asked.top_k {
        text.push_str(&format!(", {top_k} experts a token"));
    }
    text
}
