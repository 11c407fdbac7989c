//! A variant → what the routes say of it.

use serde_json::{json, Value};

use super::table::Listed;
use super::variant::Variant;

/// An entry of `/v1/variants`.
pub(super) fn entry(listed: &Listed, default: bool) -> Value {
    let variant = &*listed.variant;
    let outcome = &variant.outcome;
    let size = match &outcome.plan {
        Some(plan) => &plan.after,
        None => &outcome.before,
    };
    json!({
        "id": variant.id,
        "aliases": listed.aliases,
        "default": default,
        "pruned": outcome.plan.is_some(),
        "source": variant.origin,
        "bytes": variant.bytes,
        "parameters": size.parameters,
        "experts": size.experts_per_layer,
        "perplexity_change": perplexity_change(variant),
        "running": variant.running(),
        "created": variant.created,
    })
}

/// The change of perplexity as a fraction, with its interval; null if it was
/// not measured.
fn perplexity_change(variant: &Variant) -> Value {
    let report = variant.outcome.report.as_ref();
    let estimate = report
        .and_then(|report| report.variants.first())
        .and_then(|pruned| pruned.estimate("perplexity_change", None));
    match estimate {
        Some(estimate) => json!({
            "value": estimate.value, "low": estimate.low, "high": estimate.high,
        }),
        None => Value::Null,
    }
}

/// An entry of `/v1/models`, as OpenAI has it.
pub(super) fn model(id: &str, created: u64) -> Value {
    json!({ "id": id, "object": "model", "created": created, "owned_by": "local" })
}

/// What `/v1/pruning` answers: the plan and what it cost.
pub(super) fn pruning(variant: &Variant) -> Value {
    let outcome = &variant.outcome;
    json!({
        "object": "pruning",
        "model": variant.id,
        "pruned": outcome.plan.is_some(),
        "plan": outcome.plan,
        "evaluation": outcome.report,
        "caveat": outcome.caveat,
    })
}
