//! The most experts that fit a size, and the fewest that are accepted.

use super::*;
use crate::allocate::ALLOCATORS;

fn asked(target: SizeTarget, allocator: &str) -> PlanOptions {
    PlanOptions {
        target: Some(target),
        allocator: allocator.to_owned(),
        ..PlanOptions::default()
    }
}

/// Sizes of the plans that keep 2 to 6 experts in every layer.
fn sizes(fixture: &Fixture, allocator: &str) -> Vec<Size> {
    let size = |kept| {
        let asked = PlanOptions {
            allocator: allocator.to_owned(),
            ..options(ExpertBudget::Keep(kept))
        };
        try_plan(fixture, &asked).unwrap().plan().after.clone()
    };
    (2..=6).map(size).collect()
}

#[test]
fn the_largest_budget_that_fits_is_chosen() {
    let fixture = fixture::model(Stored::PerExpert);
    for allocator in ALLOCATORS {
        let sizes = sizes(&fixture, allocator.name());
        for (kept, pair) in (2..).zip(sizes.windows(2)) {
            for target in [
                SizeTarget::Bytes(pair[0].bytes),
                SizeTarget::Bytes(pair[1].bytes - 1),
                SizeTarget::Parameters(pair[0].parameters),
                SizeTarget::Parameters(pair[1].parameters - 1),
            ] {
                let plan = try_plan(&fixture, &asked(target, allocator.name())).unwrap();
                let plan = plan.plan();
                assert_eq!(plan.after, pair[0], "{target}, {}", allocator.name());
                assert!(target.holds(&plan.after) && !target.holds(&pair[1]));
                assert_eq!(plan.method.asked.experts, Some(ExpertBudget::Keep(kept)));
                assert_eq!(plan.method.asked.target, Some(target));
                assert_eq!(plan.method.asked.flags(), [target.to_string()]);
                assert_eq!(plan.unneeded(), None);
            }
        }
    }
}

/// Experts of each layer that the search keeps if plans of `least` or more are
/// accepted, and the budget it states.
fn fewest(least: usize) -> (Vec<usize>, Option<ExpertBudget>) {
    let fixture = fixture::model(Stored::PerExpert);
    let (stats, asked) = (stats(&fixture), PlanOptions::default());
    let (checkpoint, family) = (&fixture.checkpoint, fixture.family);
    let planner = Planner::new(&stats, checkpoint, family, &fixture.topology, &asked).unwrap();
    let plan = planner
        .fewest(&mut |plan| Ok(plan.plan().after.experts_per_layer[0] >= least))
        .unwrap();
    let plan = plan.plan();
    (
        plan.after.experts_per_layer.clone(),
        plan.method.asked.experts,
    )
}

#[test]
fn the_fewest_experts_that_are_accepted_are_kept() {
    for least in 2..6 {
        let budget = Some(ExpertBudget::Keep(least));
        assert_eq!(fewest(least), (vec![least, 0, least, least], budget));
    }
    assert_eq!(fewest(0).1, Some(ExpertBudget::Keep(2)));
    assert_eq!(fewest(7), (vec![6, 0, 6, 6], None));
}

#[test]
fn groups_stay_even() {
    let fixture = grouped(Groups {
        count: 3,
        chosen: 2,
        score: GroupScore::Best,
    });
    let half = try_plan(&fixture, &options(ExpertBudget::Keep(3))).unwrap();
    let target = SizeTarget::Bytes(half.plan().before.bytes - 1);
    let plan = try_plan(&fixture, &asked(target, "uniform")).unwrap();
    assert_eq!(plan.keep(), half.keep());
}

#[test]
fn with_everything_inside_nothing_goes() {
    let fixture = fixture::model(Stored::PerExpert);
    let whole = fixture.checkpoint.bytes();
    let plan = try_plan(&fixture, &asked(SizeTarget::Bytes(whole), "uniform")).unwrap();
    assert!(plan.keep().is_identity(&fixture.topology));
    let said = plan.plan().unneeded().unwrap();
    assert!(
        said.starts_with("no expert has to go: the model has "),
        "{said}"
    );
    // So it is when dropped layers are enough.
    let dropping = PlanOptions {
        drop_layers: Some(LayerBudget::Count(1)),
        ..asked(SizeTarget::Bytes(whole - 1), "uniform")
    };
    let plan = try_plan(&fixture, &dropping).unwrap();
    assert_eq!(plan.plan().after.layers, 3);
    assert_eq!(plan.plan().method.asked.experts, None);
    assert_eq!(plan.plan().method.asked.flags().len(), 2);
}

#[test]
fn what_cannot_fit_names_the_smallest_size() {
    let fixture = fixture::model(Stored::PerExpert);
    let smallest = sizes(&fixture, "uniform").swap_remove(0);
    let small = asked(SizeTarget::Bytes(smallest.bytes - 1), "uniform");
    let early = check_target(
        &small,
        &fixture.checkpoint,
        fixture.family,
        &fixture.topology,
    );
    for error in [early.unwrap_err(), refusal(&small)] {
        let said = format!(
            "--target-size {}B: the smallest this model can be is {} (2 experts in a layer)",
            smallest.bytes - 1,
            SizeTarget::Bytes(0).measure(&smallest)
        );
        assert_eq!(error.to_string(), said);
        assert!(error.hint().unwrap().contains("--drop-layers"));
        assert!(error.is_usage());
    }
}

#[test]
fn protected_experts_raise_the_smallest_size() {
    let fixture = fixture::model(Stored::PerExpert);
    let four = sizes(&fixture, "uniform").swap_remove(2);
    let protecting = |bytes| PlanOptions {
        protect: (0..4).map(|expert| ExpertId { layer: 0, expert }).collect(),
        prune_super_experts: true,
        ..asked(SizeTarget::Bytes(bytes), "uniform")
    };
    let plan = try_plan(&fixture, &protecting(four.bytes)).unwrap();
    assert_eq!(plan.plan().after, four);
    assert_eq!(plan.keep().experts[0], [0, 1, 2, 3]);
    match refusal(&protecting(four.bytes - 1)) {
        Error::TargetTooSmall { smallest, .. } => assert_eq!(smallest, four),
        other => panic!("{other}"),
    }
}

#[test]
fn plans_without_a_target_are_read_and_written_as_before() {
    let plan = fixture::half().plan().clone();
    let text = serde_json::to_string(&plan).unwrap();
    assert!(!text.contains("target"));
    assert_eq!(serde_json::from_str::<Plan>(&text).unwrap(), plan);
}
