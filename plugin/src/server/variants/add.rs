//! A variant that a client asks for: made, loaded, then listed.

use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::problem::conflict;
use super::variant::{Origin, Variant};
use super::{entry, Variants};
use crate::cache;
use crate::pipeline::Change;
use crate::plan::{ExpertBudget, Plan, PlanOptions};
use crate::server::problem::Problem;

/// Characters of a name, at most.
const LONGEST_NAME: usize = 128;

/// The body of `POST /v1/variants`: a plan or a budget.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// What to call it.
    id: Option<String>,
    /// What to carry out.
    plan: Option<Box<Plan>>,
    /// Fraction of the experts that go.
    prune_experts: Option<f64>,
    /// By which criterion.
    criterion: Option<String>,
    /// The variant whose place it takes; that one ends after its last request.
    replace: Option<String>,
}

impl Wanted {
    /// What is to become of the model; a budget is met as `method` does it.
    fn change(&mut self, method: PlanOptions) -> Result<Change, Problem> {
        match (self.plan.take(), self.prune_experts) {
            (Some(plan), None) => {
                if self.criterion.is_some() {
                    let message = "`criterion` goes with `prune_experts`; a plan has its own";
                    return Err(Problem::new(StatusCode::BAD_REQUEST, message));
                }
                let name = format!("plan-{}", short_hash(&plan)?);
                Ok(Change::Given { name, plan })
            }
            (None, Some(fraction)) => Ok(Change::Make(Box::new(PlanOptions {
                criterion: self.criterion.take().unwrap_or(method.criterion),
                experts: Some(ExpertBudget::Fraction(fraction)),
                target: None,
                max_loss: None,
                nested_with: Vec::new(),
                ..method
            }))),
            (None, None) | (Some(_), Some(_)) => {
                let message = "expected either `plan` or `prune_experts`";
                Err(Problem::new(StatusCode::BAD_REQUEST, message))
            }
        }
    }
}

impl Variants {
    /// Fails if clients may not change variants.
    pub(super) fn expect_changeable(&self) -> Result<(), Problem> {
        match self.changeable {
            true => Ok(()),
            false => Err(Problem::new(
                StatusCode::FORBIDDEN,
                "Variants are changed only on a server that has an API key or that only this \
                 machine can reach",
            )),
        }
    }

    /// Makes and loads a variant; its entry once requests can name it.
    pub(super) async fn add(&self, mut wanted: Wanted) -> Result<Value, Problem> {
        let change = wanted.change(self.maker.options())?;
        let id = match wanted.id {
            Some(id) => checked(id)?,
            None => self.maker.id(&change),
        };
        let _turn = self.maker.turn().await;
        let origin = Origin::of(&change);
        let replace = wanted.replace.as_deref();
        let variant = self.make(id, change, origin, replace).await?;
        self.enlist(variant, replace)
    }

    /// Makes and loads what is to be called `id`, perhaps in place of another.
    pub(super) async fn make(
        &self,
        id: String,
        change: Change,
        origin: Origin,
        replace: Option<&str>,
    ) -> Result<Variant, Problem> {
        if let Some(name) = replace {
            self.table.find(Some(name))?;
        }
        self.table.expect_free(&id, replace)?;
        self.expect_no_budget()?;
        self.maker.leaves_room()?;
        let made = tokio::task::block_in_place(|| self.maker.ready(id, change))?;
        Ok(self.maker.load(made, origin).await?)
    }

    /// Fails if the memory of this server was promised to one model.
    pub(super) fn expect_no_budget(&self) -> Result<(), Problem> {
        let served = self.table.find(None)?;
        let plan = served.outcome.plan.as_ref();
        match plan.and_then(|plan| plan.method.asked.fit) {
            None => Ok(()),
            Some(fit) => Err(conflict(format!(
                "this server was started for {fit}, and another variant would exceed that"
            ))),
        }
    }

    /// Has requests reach a variant; its entry.
    pub(super) fn enlist(&self, variant: Variant, replace: Option<&str>) -> Result<Value, Problem> {
        let id = variant.id.clone();
        match replace {
            Some(name) => drop(self.table.replace(name, variant)?),
            None => self.table.insert(variant),
        }
        let listed = self.table.list();
        let place = listed.iter().position(|listed| listed.variant.id == id);
        let place = place.ok_or_else(|| conflict(format!("`{id}` was removed again")))?;
        Ok(entry::entry(&listed[place], place == 0))
    }
}

/// A name that fits into an address and a header as it is.
fn checked(id: String) -> Result<String, Problem> {
    let fits = |c: char| c.is_ascii_alphanumeric() || "._:-".contains(c);
    if (1..=LONGEST_NAME).contains(&id.len()) && id.chars().all(fits) {
        return Ok(id);
    }
    let expected = format!("1 to {LONGEST_NAME} letters, digits and any of ._:-");
    Err(Problem::field("id", &expected, &id.into()))
}

/// The first digits of a plan's hash.
fn short_hash(plan: &Plan) -> crate::Result<String> {
    let text = serde_json::to_vec(plan).map_err(crate::Error::Serialize)?;
    Ok(cache::hex(&Sha256::digest(text)[..4]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture;

    fn change(body: &str) -> Result<Change, Problem> {
        let mut wanted: Wanted = serde_json::from_str(body).unwrap();
        wanted.change(PlanOptions::default())
    }

    #[test]
    fn a_budget_or_a_plan_is_asked_for() {
        let Ok(Change::Make(options)) = change(r#"{"prune_experts": 0.25, "criterion": "ean"}"#)
        else {
            panic!("a budget");
        };
        assert_eq!(options.experts, Some(ExpertBudget::Fraction(0.25)));
        assert_eq!(options.criterion, "ean");

        let plan = serde_json::to_string(fixture::half().plan()).unwrap();
        let Ok(Change::Given { name, .. }) = change(&format!(r#"{{"plan": {plan}}}"#)) else {
            panic!("a plan");
        };
        assert_eq!(name.len(), "plan-".len() + 8);
        for wrong in [
            "{}".to_owned(),
            r#"{"criterion": "ean"}"#.to_owned(),
            format!(r#"{{"plan": {plan}, "prune_experts": 0.5}}"#),
            format!(r#"{{"plan": {plan}, "criterion": "ean"}}"#),
        ] {
            assert!(change(&wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_that_do_not_fit_into_an_address_are_refused() {
        let longest = "x".repeat(LONGEST_NAME);
        for good in ["a", "demo-reap-0.5", "A_b:1", &longest] {
            assert!(checked(good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a/b", "a\r\nb", "ä", &format!("{longest}x")] {
            assert!(checked(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
