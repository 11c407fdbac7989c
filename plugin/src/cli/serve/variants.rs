//! `--variant`: what else becomes of the model, beside what other flags say.

use std::path::PathBuf;

use crate::pipeline::Change;
use crate::plan::{ExpertBudget, PlanOptions};

/// The model as it is, on the command line.
const ORIGINAL: &str = "original";

/// Flags about variants.
#[derive(clap::Args)]
#[command(next_help_heading = "Variants")]
pub(super) struct VariantArgs {
    /// Serve this beside the rest, or alone: a fraction of the experts to
    /// remove, a plan file, or `original`; repeat it for more. Requests choose
    /// by `model`; without other budget flags the first is the default
    #[arg(long, value_name = "FRACTION|PLAN|original", value_parser = parse, conflicts_with = "fit")]
    variant: Vec<Choice>,

    /// Keep a sample of at most N tokens of what clients ask, in memory only,
    /// for `POST /v1/recalibrate` to plan with
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(64..), conflicts_with = "fit")]
    learn_from_traffic: Option<u32>,
}

/// One variant.
#[derive(Debug, Clone, PartialEq)]
enum Choice {
    Original,
    Fraction(f64),
    Plan(PathBuf),
}

impl VariantArgs {
    /// Tokens of requests to keep.
    pub(super) fn sample(&self) -> Option<usize> {
        self.learn_from_traffic.map(|most| most as usize)
    }

    /// Whether a variant needs statistics.
    pub(super) fn makes(&self) -> bool {
        let made = |choice: &Choice| matches!(choice, Choice::Fraction(_));
        self.variant.iter().any(made)
    }

    /// Whether a variant is not the model as it is.
    pub(super) fn changes(&self) -> bool {
        self.variant
            .iter()
            .any(|choice| *choice != Choice::Original)
    }

    /// All that becomes of the model, the default first: `main`, if anything
    /// was asked for, then the variants, whose budgets are met as `method`
    /// does it. Plans for all budgets are nested.
    pub(super) fn changes_beside(&self, main: Option<Change>, method: &PlanOptions) -> Vec<Change> {
        let mut changes: Vec<Change> = main.into_iter().collect();
        changes.extend(self.variant.iter().map(|choice| match choice {
            Choice::Original => Change::Nothing,
            Choice::Plan(path) => Change::Plan(path.clone()),
            Choice::Fraction(fraction) => Change::Make(Box::new(PlanOptions {
                experts: Some(ExpertBudget::Fraction(*fraction)),
                target: None,
                max_loss: None,
                ..method.clone()
            })),
        }));
        if changes.is_empty() {
            changes.push(Change::Nothing);
        }
        nest(&mut changes);
        changes
    }
}

/// Lets every plan know of the others' budgets.
fn nest(changes: &mut [Change]) {
    let budgets: Vec<ExpertBudget> = changes
        .iter()
        .filter_map(|change| match change {
            // A size or a loss gives its budget only when it is met.
            Change::Make(options) if options.target.is_none() => options.experts,
            _ => None,
        })
        .collect();
    for change in changes {
        if let Change::Make(options) = change {
            let others = budgets
                .iter()
                .filter(|&&other| Some(other) != options.experts);
            options.nested_with = others.copied().collect();
        }
    }
}

fn parse(text: &str) -> Result<Choice, String> {
    if text == ORIGINAL {
        return Ok(Choice::Original);
    }
    if let Ok(fraction) = text.parse() {
        return Ok(Choice::Fraction(fraction));
    }
    if text.ends_with(".json") {
        return Ok(Choice::Plan(text.into()));
    }
    Err(format!(
        "expected a fraction such as 0.5, a plan file (.json) or `{ORIGINAL}`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(variants: &[&str]) -> VariantArgs {
        VariantArgs {
            variant: variants.iter().map(|text| parse(text).unwrap()).collect(),
            learn_from_traffic: None,
        }
    }

    #[test]
    fn variants_are_fractions_plans_or_the_original() {
        assert_eq!(parse("0.5"), Ok(Choice::Fraction(0.5)));
        assert_eq!(parse("original"), Ok(Choice::Original));
        assert_eq!(parse("a/b.json"), Ok(Choice::Plan("a/b.json".into())));
        for wrong in ["", "half", "b.txt"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_other_flags_ask_for_comes_first_and_plans_know_of_each_other() {
        let method = PlanOptions {
            criterion: "ean".to_owned(),
            experts: Some(ExpertBudget::Fraction(0.75)),
            ..PlanOptions::default()
        };
        let main = Some(Change::Make(Box::new(method.clone())));
        let changes = args(&["0.25", "original"]).changes_beside(main, &method);
        let [Change::Make(first), Change::Make(second), Change::Nothing] = &changes[..] else {
            panic!("{changes:?}");
        };
        assert_eq!(second.criterion, "ean");
        assert_eq!(second.experts, Some(ExpertBudget::Fraction(0.25)));
        assert_eq!(second.nested_with, [ExpertBudget::Fraction(0.75)]);
        assert_eq!(first.nested_with, [ExpertBudget::Fraction(0.25)]);
    }

    #[test]
    fn without_anything_the_model_is_served_as_it_is() {
        let none = args(&[]).changes_beside(None, &PlanOptions::default());
        assert!(matches!(none[..], [Change::Nothing]));
        let alone = args(&["0.5"]).changes_beside(None, &PlanOptions::default());
        assert!(matches!(alone[..], [Change::Make(_)]));
    }
}
