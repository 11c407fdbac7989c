//! How two plans for one model differ.

use router_stats::family::Skip;
use serde::Serialize;
use serde_json::{json, Value};

use super::{LayerPlan, Plan};
use crate::error::{Error, Result};

/// How a second plan differs from a first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Which keeps more.
    pub relation: Relation,
    /// Every layer of the original model, in order.
    pub layers: Vec<LayerDifference>,
}

/// What two plans keep, compared as sets of layers, sublayers and experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// The same.
    Same,
    /// All that the second keeps, the first keeps too.
    SecondWithinFirst,
    /// All that the first keeps, the second keeps too.
    FirstWithinSecond,
    /// Each keeps something that the other does not.
    Neither,
}

/// How two plans differ in one layer. A dropped layer keeps no experts, nor does
/// one that loses its feed-forward part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LayerDifference {
    /// Index in the original model.
    pub layer: usize,
    /// Whether the layer goes, in each plan.
    pub dropped: [bool; 2],
    /// Which sublayers go if it stays, in each plan.
    pub skipped: [Skip; 2],
    /// What becomes of the layer as a whole, in each plan, in a word or two.
    pub fate: [Option<&'static str>; 2],
    /// Experts that stay, in each plan.
    pub kept: [usize; 2],
    /// Experts that only the first plan keeps, ascending.
    pub only_first: Vec<usize>,
    /// Experts that only the second plan keeps, ascending.
    pub only_second: Vec<usize>,
}

impl LayerDifference {
    /// Whether the plans do the same to the layer.
    pub fn is_same(&self) -> bool {
        let [first, second] = [0, 1].map(|plan| (self.dropped[plan], self.skipped[plan]));
        first == second && self.only_first.is_empty() && self.only_second.is_empty()
    }

    /// Whether each sublayer stays in a plan: attention, feed-forward part.
    fn sublayers(&self, plan: usize) -> [bool; 2] {
        let skip = self.skipped[plan];
        [skip.attention, skip.mlp].map(|skipped| !skipped && !self.dropped[plan])
    }
}

impl Difference {
    /// What `plan diff --json` says of two plans with these names.
    pub fn describe(&self, names: [&str; 2], plans: [&Plan; 2]) -> Value {
        let side = |index: usize| {
            json!({
                "plan": names[index],
                "stats": plans[index].stats,
                "method": plans[index].method,
                "after": plans[index].after,
            })
        };
        json!({
            "kind": "plan_diff",
            "model": plans[0].model,
            "first": side(0),
            "second": side(1),
            "relation": self.relation,
            "layers": self.layers,
        })
    }
}

/// Compares two plans; `name` is what the second is called.
///
/// # Errors
/// [`Error::OtherModel`] if they are for different models; [`Error::Plan`] if
/// they list different numbers of layers all the same.
pub fn diff(first: &Plan, second: &Plan, name: &str) -> Result<Difference> {
    if first.model.fingerprint != second.model.fingerprint {
        return Err(Error::OtherModel {
            what: format!("{name} was"),
            fingerprint: second.model.fingerprint.clone(),
            name: second.model.name.clone(),
            found: first.model.fingerprint.clone(),
            found_name: first.model.name.clone(),
        });
    }
    if first.layers.len() != second.layers.len() {
        return Err(Error::Plan {
            plan: name.to_owned(),
            field: "layers".to_owned(),
            expected: first.layers.len().to_string(),
            found: second.layers.len().to_string(),
        });
    }
    let pairs = first.layers.iter().zip(&second.layers);
    let layers: Vec<_> = pairs.map(|(first, second)| layer(first, second)).collect();
    // Whether a plan keeps a sublayer or an expert that the other does not, or
    // gives more of them to a token.
    let top_k = [first, second].map(|plan| plan.method.asked.top_k.unwrap_or(usize::MAX));
    let more = |own: usize, other: usize| {
        top_k[own] > top_k[other]
            || layers.iter().any(|layer| {
                let only = [&layer.only_first, &layer.only_second][own];
                let mut parts = layer.sublayers(own).into_iter().zip(layer.sublayers(other));
                !only.is_empty() || parts.any(|(own, other)| own && !other)
            })
    };
    let relation = match (more(0, 1), more(1, 0)) {
        (false, false) => Relation::Same,
        (true, false) => Relation::SecondWithinFirst,
        (false, true) => Relation::FirstWithinSecond,
        (true, true) => Relation::Neither,
    };
    Ok(Difference { relation, layers })
}

fn layer(first: &LayerPlan, second: &LayerPlan) -> LayerDifference {
    let [a, b] = [first, second].map(LayerPlan::staying);
    let only = |own: &[usize], other: &[usize]| {
        let experts = own.iter().filter(|expert| !other.contains(expert));
        experts.copied().collect()
    };
    LayerDifference {
        layer: first.layer,
        dropped: [first.dropped, second.dropped],
        skipped: [first.skipped, second.skipped],
        fate: [first.fate(), second.fate()],
        kept: [a.len(), b.len()],
        only_first: only(a, b),
        only_second: only(b, a),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture;

    fn half() -> Plan {
        fixture::half().plan().clone()
    }

    #[test]
    fn a_plan_is_the_same_as_itself() {
        let found = diff(&half(), &half(), "b").unwrap();
        assert_eq!(found.relation, Relation::Same);
        assert!(found.layers.iter().all(LayerDifference::is_same));
        assert_eq!(found.layers[0].kept, [3, 3]);
    }

    #[test]
    fn experts_and_layers_that_differ_are_named() {
        let mut other = half();
        // Layer 0 keeps 1, 2, 3.
        other.layers[0].kept = vec![2, 3];
        let found = diff(&half(), &other, "b").unwrap();
        assert_eq!(found.relation, Relation::SecondWithinFirst);
        assert_eq!(found.layers[0].only_first, [1]);
        let back = diff(&other, &half(), "b").unwrap();
        assert_eq!(back.relation, Relation::FirstWithinSecond);

        other.layers[1].dropped = true;
        other.layers[2].dropped = true;
        let found = diff(&half(), &other, "b").unwrap();
        assert_eq!(found.relation, Relation::SecondWithinFirst);
        assert_eq!(found.layers[2].kept, [3, 0]);
        assert_eq!(found.layers[2].only_first, half().layers[2].kept);
        assert!(!found.layers[1].is_same(), "a dense layer that goes");

        other.layers[0].kept = vec![4];
        assert_eq!(
            diff(&half(), &other, "b").unwrap().relation,
            Relation::Neither
        );
    }

    #[test]
    fn sublayers_and_experts_a_token_are_compared() {
        let mut other = half();
        other.layers[0].skipped.attention = true;
        let found = diff(&half(), &other, "b").unwrap();
        assert_eq!(found.relation, Relation::SecondWithinFirst);
        assert!(!found.layers[0].is_same());
        assert_eq!(found.layers[0].kept, [3, 3]);
        assert_eq!(found.layers[0].fate, [None, Some("no attention")]);
        let mut first = half();
        first.layers[0].skipped.mlp = true;
        let found = diff(&first, &other, "b").unwrap();
        assert_eq!(found.relation, Relation::Neither);
        assert_eq!(found.layers[0].kept, [0, 3]);
        let mut fewer = half();
        fewer.method.asked.top_k = Some(1);
        let found = diff(&fewer, &half(), "b").unwrap();
        assert_eq!(found.relation, Relation::FirstWithinSecond);
    }

    #[test]
    fn plans_of_different_models_are_not_compared() {
        let mut other = half();
        other.model.fingerprint = "0123456789".to_owned();
        let error = diff(&half(), &other, "b.plan.json").unwrap_err();
        assert!(error
            .to_string()
            .starts_with("b.plan.json was made for model 0123"));
        let mut short = half();
        short.layers.pop();
        assert!(diff(&half(), &short, "b").is_err());
    }
}
