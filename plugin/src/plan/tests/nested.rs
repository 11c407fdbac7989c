//! Plans of one family are nested, by every criterion and allocator.

use super::*;
use crate::allocate::ALLOCATORS;

/// Plans for these fractions, the least removed first.
fn nested(fixture: &Fixture, options: &PlanOptions, fractions: &[f64]) -> Vec<ValidPlan> {
    let stats = stats(fixture);
    let (checkpoint, family) = (&fixture.checkpoint, fixture.family);
    let budgets: Vec<_> = fractions
        .iter()
        .map(|&fraction| ExpertBudget::Fraction(fraction))
        .collect();
    Planner::new(&stats, checkpoint, family, &fixture.topology, options)
        .unwrap()
        .nested(&budgets)
        .unwrap()
}

#[test]
fn what_a_smaller_plan_keeps_a_larger_one_keeps_too() {
    let three = Groups {
        count: 3,
        chosen: 2,
        score: GroupScore::Best,
    };
    let plain = (
        fixture::model(Stored::PerExpert),
        [0.0, 0.17, 0.34, 0.5, 0.67].as_slice(),
    );
    for (fixture, fractions) in [plain, (grouped(three), &[0.0, 0.5])] {
        for criterion in saliency::CRITERIA {
            for allocator in ALLOCATORS {
                for balance_domains in [false, true] {
                    let asked = PlanOptions {
                        criterion: criterion.name().to_owned(),
                        allocator: allocator.name().to_owned(),
                        drop_layers: Some(LayerBudget::Count(1)),
                        protect: vec![ExpertId {
                            layer: 0,
                            expert: 5,
                        }],
                        balance_domains,
                        ..PlanOptions::default()
                    };
                    let plans = nested(&fixture, &asked, fractions);
                    let layers = || plans.iter().map(ValidPlan::plan);
                    for (larger, smaller) in layers().zip(layers().skip(1)) {
                        let found = diff(larger, smaller, "smaller").unwrap();
                        assert_eq!(
                            found.relation,
                            Relation::SecondWithinFirst,
                            "{} {}",
                            criterion.name(),
                            allocator.name()
                        );
                        assert!(smaller.after.bytes < larger.after.bytes);
                    }
                }
            }
        }
    }
}

#[test]
fn a_family_holds_the_plans_that_are_made_alone() {
    let fixture = fixture::model(Stored::PerExpert);
    let family = nested(&fixture, &PlanOptions::default(), &[0.5, 0.2]);
    for (plan, fraction) in family.iter().zip([0.5, 0.2]) {
        let alone = try_plan(&fixture, &options(ExpertBudget::Fraction(fraction)));
        assert_eq!(*plan, alone.unwrap());
    }
}

#[test]
fn plans_that_are_made_apart_are_nested_if_they_know_of_each_other() {
    let fixture = fixture::model(Stored::PerExpert);
    let balanced = PlanOptions {
        balance_domains: true,
        ..PlanOptions::default()
    };
    let fractions = [0.2, 0.5, 0.67];
    let family = nested(&fixture, &balanced, &fractions);
    let budgets = fractions.map(ExpertBudget::Fraction);
    for (plan, budget) in family.iter().zip(budgets) {
        let alone = PlanOptions {
            experts: Some(budget),
            nested_with: budgets.to_vec(),
            ..balanced.clone()
        };
        assert_eq!(*plan, try_plan(&fixture, &alone).unwrap());
    }
}
