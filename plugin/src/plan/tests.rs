//! From statistics to a valid plan.

mod constraints;
mod drops;
mod nested;
mod target;

use proptest::prelude::*;

use router_stats::family::{GroupScore, Groups, MlpSpec};
use router_stats::stats::Stats;

use super::fixture::{self, Fixture, Stored};
use super::*;
use crate::error::{Error, Result};
use crate::saliency;

fn options(experts: ExpertBudget) -> PlanOptions {
    PlanOptions {
        experts: Some(experts),
        ..PlanOptions::default()
    }
}

fn stats(fixture: &Fixture) -> Stats {
    fixture::stats(&fixture.checkpoint.fingerprint().unwrap())
}

fn try_plan(fixture: &Fixture, options: &PlanOptions) -> Result<ValidPlan> {
    plan(
        &stats(fixture),
        &fixture.checkpoint,
        fixture.family,
        &fixture.topology,
        options,
    )
}

fn refusal(options: &PlanOptions) -> Error {
    try_plan(&fixture::model(Stored::PerExpert), options).unwrap_err()
}

#[test]
fn asking_for_nothing_keeps_everything() {
    let fixture = fixture::model(Stored::PerExpert);
    let valid = try_plan(&fixture, &PlanOptions::default()).unwrap();
    assert!(valid.keep().is_identity(&fixture.topology));
    assert_eq!(valid.plan().before, valid.plan().after);
}

#[test]
fn keeps_the_highest_scores_and_says_why() {
    let plan = fixture::half().plan().clone();
    let kept: Vec<_> = plan.layers.iter().map(|layer| layer.kept.clone()).collect();
    assert_eq!(kept, [vec![1, 2, 3], vec![], vec![3, 4, 5], vec![0, 4, 5]]);
    assert_eq!(plan.layers[0].removed, [0, 4, 5]);
    for (score, expected) in plan.layers[0]
        .scores
        .iter()
        .zip([1.0, 6.0, 5.0, 4.0, 3.0, 2.0])
    {
        assert!((score - expected).abs() < 1e-12);
    }
    assert_eq!(plan.layers[2].block_influence, 1.0 - fixture::COSINES[2]);
    assert_eq!(plan.after.experts_per_layer, [3, 0, 3, 3]);
    assert!(plan.after.bytes < plan.before.bytes);
    assert_eq!(plan.stats.tokens, 400);
    assert_eq!(plan.method.criterion, "reap");
    assert_eq!(plan.method.asked.experts, Some(ExpertBudget::Fraction(0.5)));
}

#[test]
fn the_lowest_block_influence_goes_first() {
    let fixture = fixture::model(Stored::PerExpert);
    let two = PlanOptions {
        drop_layers: Some(LayerBudget::Count(2)),
        ..options(ExpertBudget::Keep(4))
    };
    let valid = try_plan(&fixture, &two).unwrap();
    assert_eq!(valid.keep().layers, [0, 3]);
    let dropped = &valid.plan().layers[2];
    assert!(dropped.dropped);
    assert_eq!((dropped.kept.len(), dropped.removed.len()), (4, 2));
    assert_eq!(valid.plan().after.experts_per_layer, [4, 4]);
}

#[test]
fn domain_weights_replace_those_of_the_statistics() {
    let fixture = fixture::model(Stored::PerExpert);
    let only_math = PlanOptions {
        criterion: "frequency".to_owned(),
        domain_weights: Some(vec![("code".to_owned(), 0.0)]),
        ..options(ExpertBudget::Keep(2))
    };
    let valid = try_plan(&fixture, &only_math).unwrap();
    assert_eq!(
        valid.plan().layers[0].scores,
        [40.0, 50.0, 60.0, 10.0, 20.0, 30.0]
    );
    let weights: Vec<_> = valid
        .plan()
        .stats
        .domains
        .iter()
        .map(|domain| domain.weight)
        .collect();
    assert_eq!(weights, [0.0, 1.0]);

    let unknown = PlanOptions {
        domain_weights: Some(vec![("poetry".to_owned(), 1.0)]),
        ..PlanOptions::default()
    };
    assert_eq!(
        refusal(&unknown).to_string(),
        "unknown domain `poetry`; known: code, math"
    );
    let negative = PlanOptions {
        domain_weights: Some(vec![("code".to_owned(), -1.0)]),
        ..unknown.clone()
    };
    assert!(refusal(&negative)
        .to_string()
        .contains("at least 0 for `code`, found -1"));
    let silent = PlanOptions {
        domain_weights: Some(vec![("code".to_owned(), 0.0), ("math".to_owned(), 0.0)]),
        ..unknown
    };
    assert!(refusal(&silent).to_string().contains("code=0, math=0"));
}

#[test]
fn impossible_budgets_are_explained() {
    for (budget, message, hint) in [
        (
            ExpertBudget::Fraction(0.9),
            "--prune-experts 0.9 would leave 1 of 6 experts, but the model routes each token to 2",
            "the most this model can lose is 0.6667 (2 experts stay); try 0.5",
        ),
        (
            ExpertBudget::Keep(1),
            "--keep-experts 1 would leave 1 of 6 experts, but the model routes each token to 2",
            "keep at least 2",
        ),
        (
            ExpertBudget::Keep(7),
            "--keep-experts 7 asks for more than the 6 experts there are in layer 0",
            "keep at most 6",
        ),
        (
            ExpertBudget::Fraction(0.1),
            "--prune-experts 0.1 would remove none of 6 experts",
            "the least that removes an expert is 0.1667",
        ),
    ] {
        let error = refusal(&options(budget));
        assert_eq!(error.to_string(), message);
        assert_eq!(error.hint().unwrap(), hint);
        assert!(error.is_usage());
    }
    assert!(refusal(&options(ExpertBudget::Fraction(1.0))).is_usage());
}

#[test]
fn a_layer_has_to_stay_and_one_has_to_go() {
    for (budget, message) in [
        (
            LayerBudget::Count(4),
            "--drop-layers 4 would leave 0 of 4 layers",
        ),
        (
            LayerBudget::Count(9),
            "--drop-layers 9 would leave 0 of 4 layers",
        ),
        (
            LayerBudget::Fraction(0.2),
            "--drop-layers 0.2 would remove none of 4 layers",
        ),
    ] {
        let error = refusal(&PlanOptions {
            drop_layers: Some(budget),
            ..PlanOptions::default()
        });
        assert_eq!(error.to_string(), message);
        assert!(error.is_usage());
    }
}

#[test]
fn statistics_of_another_model_are_refused() {
    let fixture = fixture::model(Stored::PerExpert);
    let stats = fixture::stats("0123456789");
    let error = plan(
        &stats,
        &fixture.checkpoint,
        fixture.family,
        &fixture.topology,
        &PlanOptions::default(),
    )
    .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("the statistics were made for model 0123"),
        "{error}"
    );
}

#[test]
fn damaged_statistics_are_refused() {
    let fixture = fixture::model(Stored::PerExpert);
    let mut stats = stats(&fixture);
    stats.tables.get_mut("expert.gated_norm").unwrap().values[8] = f64::NAN;
    stats.tables.get_mut("expert.gated_norm").unwrap().values[13] = f64::NAN;
    let error = plan(
        &stats,
        &fixture.checkpoint,
        fixture.family,
        &fixture.topology,
        &PlanOptions::default(),
    )
    .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("reap of layer 2, expert 1: expected a finite score"),
        "{error}"
    );
}

#[test]
fn unknown_names_are_refused() {
    for bad in [
        PlanOptions {
            criterion: "x".to_owned(),
            ..PlanOptions::default()
        },
        PlanOptions {
            allocator: "x".to_owned(),
            ..PlanOptions::default()
        },
        PlanOptions {
            layer_criterion: "x".to_owned(),
            ..PlanOptions::default()
        },
    ] {
        assert!(matches!(refusal(&bad), Error::Unknown { .. }));
    }
}

/// The fixture with the experts of every layer in `groups`.
fn grouped(groups: Groups) -> Fixture {
    let mut fixture = fixture::model(Stored::PerExpert);
    for mlp in &mut fixture.topology.mlps {
        if let MlpSpec::Moe(moe) = mlp {
            moe.router.groups = Some(groups);
        }
    }
    fixture
}

#[test]
fn every_group_keeps_equally_many() {
    let fixture = grouped(Groups {
        count: 3,
        chosen: 2,
        score: GroupScore::Best,
    });
    let identity = try_plan(&fixture, &PlanOptions::default()).unwrap();
    assert!(identity.keep().is_identity(&fixture.topology));
    // One expert of each pair; 2 and 0.6 round up to the three it takes.
    for budget in [
        ExpertBudget::Fraction(0.5),
        ExpertBudget::Fraction(0.6),
        ExpertBudget::Keep(2),
        ExpertBudget::Keep(3),
    ] {
        check(&options(budget), &fixture.topology).unwrap();
        let valid = try_plan(&fixture, &options(budget)).unwrap();
        let kept = &valid.keep().experts;
        assert_eq!(*kept, [vec![1, 2, 4], vec![], vec![0, 3, 4], vec![0, 2, 4]]);
    }
    let mut uneven = identity.plan().clone();
    uneven.layers[0].kept = vec![0, 1, 2];
    uneven.layers[0].removed = vec![3, 4, 5];
    let (checkpoint, family) = (&fixture.checkpoint, fixture.family);
    let error = ValidPlan::new(uneven, checkpoint, family, &fixture.topology).unwrap_err();
    assert_eq!(
        error.to_string(),
        "this plan: kept experts of layer 0 in group 0 of 3: \
         expected 1 (equally many of each group), found 2"
    );
}

#[test]
fn budgets_that_groups_cannot_meet_are_explained_before_there_are_statistics() {
    let three = |score| Groups {
        count: 3,
        chosen: 2,
        score,
    };
    let two_of_three = Groups {
        count: 2,
        chosen: 1,
        score: GroupScore::BestTwo,
    };
    for (groups, budget, message, hint) in [
        (
            two_of_three,
            ExpertBudget::Keep(1),
            "--keep-experts 1 would leave 2 of 6 experts, but the model needs 2 in each of 2 groups",
            "keep at least 4 of 6: 2 groups of 2",
        ),
        (
            two_of_three,
            ExpertBudget::Fraction(0.7),
            "--prune-experts 0.7 would leave 2 of 6 experts, but the model needs 2 in each of 2 groups",
            "the most this model can lose is 0.3334 (4 experts stay)",
        ),
        (
            three(GroupScore::BestTwo),
            ExpertBudget::Fraction(0.5),
            "--prune-experts 0.5 would leave 3 of 6 experts, but the model needs 2 in each of 3 groups",
            "the groups of this model are as small as they can be, so no expert can be removed",
        ),
        (
            three(GroupScore::Best),
            ExpertBudget::Fraction(0.4),
            "--prune-experts 0.4 would remove none of 6 experts",
            "the least that removes an expert is 0.5",
        ),
        (
            three(GroupScore::Best),
            ExpertBudget::Keep(5),
            "--keep-experts 5 would remove none of 6 experts",
            "each of 3 groups keeps equally many: keep at most 3",
        ),
        (
            three(GroupScore::Best),
            ExpertBudget::Keep(7),
            "--keep-experts 7 asks for more than the 6 experts there are in layer 0",
            "keep at most 6",
        ),
    ] {
        let fixture = grouped(groups);
        let asked = options(budget);
        let early = check(&asked, &fixture.topology).unwrap_err();
        let late = try_plan(&fixture, &asked).unwrap_err();
        for error in [early, late] {
            assert_eq!(error.to_string(), message);
            assert_eq!(error.hint().unwrap(), hint);
            assert!(error.is_usage());
        }
    }
}

proptest! {
    #[test]
    fn every_fraction_gives_a_partition_or_an_explanation(
        fraction in 0.0..1.0_f64,
        criterion in prop::sample::select(saliency::CRITERIA),
        seed: u64,
        drop in 0..4_usize,
    ) {
        let fixture = fixture::model(Stored::PerExpert);
        let asked = PlanOptions {
            criterion: criterion.name().to_owned(),
            seed,
            drop_layers: Some(LayerBudget::Count(drop)),
            ..options(ExpertBudget::Fraction(fraction))
        };
        let removed = (fraction * 6.0 + 1e-9).floor() as usize;
        match try_plan(&fixture, &asked) {
            Err(Error::NoExpertRemoved { .. }) => prop_assert!(removed == 0 && fraction > 0.0),
            Err(Error::TooFewExperts { left, .. }) => prop_assert!(left == 6 - removed && left < 2),
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
            Ok(valid) => {
                prop_assert!(removed > 0 || fraction == 0.0);
                prop_assert!(6 - removed >= 2);
                let plan = valid.plan();
                prop_assert_eq!(plan.layers.iter().filter(|layer| layer.dropped).count(), drop);
                for (layer, experts) in plan.layers.iter().zip(fixture.topology.experts()) {
                    prop_assert_eq!(layer.removed.len(), if experts == 0 { 0 } else { removed });
                    let mut all = [layer.kept.clone(), layer.removed.clone()].concat();
                    all.sort_unstable();
                    prop_assert_eq!(all, (0..experts).collect::<Vec<_>>());
                }
                let again = ValidPlan::new(
                    plan.clone(), &fixture.checkpoint, fixture.family, &fixture.topology,
                );
                prop_assert_eq!(again.unwrap(), valid);
            }
        }
    }
}
