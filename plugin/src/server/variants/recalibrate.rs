//! `POST /v1/recalibrate`: what clients ask → another plan for the same
//! budget, which takes the place of the old one.
//!
//! Statistics of the sample are put beside those of the calibration text as a
//! domain of their own. Neither they nor what they were made of reach the disk:
//! of the new variant there is what there is of every other, its checkpoint
//! with the plan, which holds sums, scores and hashes.

use serde::Deserialize;
use serde_json::{json, Value};

use super::problem::conflict;
use super::variant::{Origin, Variant};
use super::{traffic, Variants};
use crate::pipeline::{self, Beside, Change};
use crate::plan::{diff, Plan, PlanOptions, Relation};
use crate::server::problem::Problem;

/// What stands before the number of times that a variant has learnt.
const LEARNT: &str = "-traffic-";

/// The body of `POST /v1/recalibrate`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    /// The variant; the default if none is named.
    model: Option<String>,
    /// What the sample weighs, in terms of all of the calibration text.
    weight: Option<f64>,
}

impl Variants {
    /// Plans a variant again and has the result take its place; what changed.
    pub(super) async fn recalibrate(&self, asked: Asked) -> Result<Value, Problem> {
        let weight = asked.weight.unwrap_or(1.0);
        if !(weight.is_finite() && weight > 0.0) {
            return Err(Problem::field("weight", "a number above 0", &weight.into()));
        }
        let sample = self.sample.as_ref().ok_or_else(|| {
            conflict(
                "no requests are kept to learn from; start the server with --learn-from-traffic N",
            )
        })?;
        self.expect_no_budget()?;
        let _turn = self.maker.turn().await;
        let old = self.table.find(asked.model.as_deref())?;
        let plan = old.outcome.plan.as_ref().ok_or_else(|| {
            conflict(format!(
                "`{}` is the model as it is: there is no plan to make again",
                old.id
            ))
        })?;
        let about = sample.describe();
        let documents = sample.texts();
        if documents.is_empty() {
            return Err(conflict("no request was kept yet to learn from"));
        }
        let beside = Beside {
            domain: traffic::DOMAIN,
            documents,
            tokens: sample.most(),
            weight,
        };
        let next = tokio::task::block_in_place(|| {
            let job = self.maker.job(old.change.clone());
            pipeline::replan(&job, &method(&old, plan), beside)
        })?;
        let difference = diff(plan, &next, "the new plan")?;
        let id = self.next_name(&old.id);
        let described = difference.describe([&old.id, &id], [plan, &next]);
        if difference.relation == Relation::Same {
            return Ok(json!({
                "object": "recalibration", "model": old.id, "replaced": null, "sample": about,
                "plan": next, "diff": described,
            }));
        }
        let change = Change::Given {
            name: id.clone(),
            plan: Box::new(next.clone()),
        };
        let replace = Some(old.id.as_str());
        let variant = self.make(id, change, Origin::Recalibrated, replace).await?;
        let entry = self.enlist(variant, replace)?;
        Ok(json!({
            "object": "recalibration", "model": entry["id"], "replaced": old.id, "sample": about,
            "variant": entry, "plan": next, "diff": described,
        }))
    }

    /// What a variant is called after it has learnt once more.
    fn next_name(&self, id: &str) -> String {
        let (stem, count) = learnt(id);
        let mut numbers = count + 1..;
        let named = |number: u64| format!("{stem}{LEARNT}{number}");
        let free = numbers.find(|&number| self.table.expect_free(&named(number), None).is_ok());
        named(free.unwrap_or(count + 1))
    }
}

/// How the budget of a variant was met, to be met again.
fn method(variant: &Variant, plan: &Plan) -> PlanOptions {
    match &variant.change {
        Change::Make(options) => (**options).clone(),
        Change::Nothing | Change::Plan(_) | Change::Given { .. } => PlanOptions::of(plan),
    }
}

/// A name without what is added when a variant learns, and how often it has.
fn learnt(id: &str) -> (&str, u64) {
    let parts = id.rsplit_once(LEARNT);
    parts
        .and_then(|(stem, count)| Some((stem, count.parse().ok()?)))
        .unwrap_or((id, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_count_how_often_a_variant_has_learnt() {
        assert_eq!(learnt("demo-reap-0.5"), ("demo-reap-0.5", 0));
        assert_eq!(learnt("demo-traffic-3"), ("demo", 3));
        assert_eq!(learnt("demo-traffic-x"), ("demo-traffic-x", 0));
    }
}
