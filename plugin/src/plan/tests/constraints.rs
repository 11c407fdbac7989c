//! What stays whatever its score.

use router_stats::observer::expert::{GATED_NORM, MAX};

use super::super::coverage::coverage;
use super::*;
use crate::allocate::ALLOCATORS;
use crate::layers::LAYER_CRITERIA;

const fn id(layer: usize, expert: usize) -> ExpertId {
    ExpertId { layer, expert }
}

/// Statistics with a super expert that reap ranks last: expert 0 of layer 0.
fn with_super_expert(fixture: &Fixture) -> Stats {
    let mut stats = stats(fixture);
    let max = stats.tables.get_mut(MAX).unwrap();
    max.row_mut(&[0, 0])[0] = 1000.0;
    stats
}

fn planned(fixture: &Fixture, stats: &Stats, options: &PlanOptions) -> Result<ValidPlan> {
    plan(
        stats,
        &fixture.checkpoint,
        fixture.family,
        &fixture.topology,
        options,
    )
}

#[test]
fn super_experts_stay_unless_told_otherwise() {
    let fixture = fixture::model(Stored::PerExpert);
    let stats = with_super_expert(&fixture);
    let kept = |options: &PlanOptions| {
        let valid = planned(&fixture, &stats, options).unwrap();
        let plan = valid.plan();
        (
            plan.layers[0].kept.clone(),
            plan.layers[0].scores[0],
            plan.method.constraints.clone(),
        )
    };
    let asked = options(ExpertBudget::Fraction(0.5));
    let (protected, score, constraints) = kept(&asked);
    assert_eq!(protected, [0, 1, 2]);
    assert!((score - 1.0).abs() < 1e-12, "scores are what they were");
    assert_eq!(constraints.super_experts, Some(vec![id(0, 0)]));
    let (free, _, constraints) = kept(&PlanOptions {
        prune_super_experts: true,
        ..asked
    });
    assert_eq!(free, [1, 2, 3]);
    assert_eq!(constraints.super_experts, None);
}

#[test]
fn protected_experts_stay_by_every_allocator_and_layer_criterion() {
    let fixture = fixture::model(Stored::PerExpert);
    let stats = with_super_expert(&fixture);
    for allocator in ALLOCATORS {
        // Those that measure have no text here; how they take what is pinned is
        // tested beside them.
        for layers in LAYER_CRITERIA.iter().filter(|it| !it.measures()) {
            let asked = PlanOptions {
                allocator: allocator.name().to_owned(),
                layer_criterion: layers.name().to_owned(),
                drop_layers: Some(LayerBudget::Count(1)),
                protect: vec![id(2, 0), id(2, 1)],
                ..options(ExpertBudget::Fraction(0.5))
            };
            let valid = planned(&fixture, &stats, &asked).unwrap();
            let plan = valid.plan();
            for id in [id(0, 0), id(2, 0), id(2, 1)] {
                let layer = &plan.layers[id.layer];
                assert!(layer.kept.contains(&id.expert) && !layer.dropped, "{id}");
            }
            assert_eq!(plan.method.constraints.protected, asked.protect);
        }
    }
}

#[test]
fn constraints_without_room_are_explained() {
    let fixture = fixture::model(Stored::PerExpert);
    let refused = |options: &PlanOptions| {
        let error = try_plan(&fixture, options).unwrap_err();
        assert!(error.is_usage() && error.hint().is_some_and(|hint| hint.contains("protect")));
        error.to_string()
    };
    let three = vec![id(2, 0), id(2, 1), id(2, 2)];
    for allocator in ALLOCATORS {
        let every = (0..6).map(|expert| id(3, expert)).chain(three.clone());
        let asked = PlanOptions {
            allocator: allocator.name().to_owned(),
            protect: every.collect(),
            ..options(ExpertBudget::Keep(2))
        };
        assert_eq!(
            refused(&asked),
            "--keep-experts 2 leaves 2 experts in layer 2, but it takes 3 to keep those that are protected",
        );
    }
    let layers = PlanOptions {
        drop_layers: Some(LayerBudget::Count(3)),
        protect: vec![id(0, 1), id(3, 1)],
        ..PlanOptions::default()
    };
    assert_eq!(
        refused(&layers),
        "--drop-layers 3 finds nothing to drop: layers 0, 3 hold protected experts"
    );
}

#[test]
fn experts_that_do_not_exist_are_refused_before_there_are_statistics() {
    let fixture = fixture::model(Stored::PerExpert);
    for (expert, message) in [
        (id(4, 0), "--protect: expected a layer below 4, found 4:0"),
        (
            id(1, 0),
            "--protect: expected a layer with experts, found 1:0",
        ),
        (
            id(2, 6),
            "--protect: expected an expert below 6 in layer 2, found 2:6",
        ),
    ] {
        let asked = PlanOptions {
            protect: vec![expert],
            ..PlanOptions::default()
        };
        let error = check(&asked, &fixture.topology).unwrap_err();
        assert_eq!(error.to_string(), message);
        assert!(error.is_usage());
    }
}

#[test]
fn balanced_domains_cover_the_worst_better_and_can_be_typed_back() {
    let fixture = fixture::model(Stored::PerExpert);
    let mut stats = stats(&fixture);
    // Code uses only experts 0, 1 and 2; math, three times the text, 3, 4 and 5.
    for layer in [0, 2, 3] {
        for (domain, idle) in [(0, 3..6), (1, 0..3)] {
            for name in ["routing.gate", GATED_NORM] {
                let row = stats.tables.get_mut(name).unwrap();
                row.row_mut(&[domain, layer])[idle.clone()].fill(0.0);
            }
        }
    }
    let asked = PlanOptions {
        criterion: "gate-mass".to_owned(),
        ..options(ExpertBudget::Fraction(0.5))
    };
    let mixed = PlanOptions {
        balance_domains: true,
        ..asked.clone()
    };
    let worst = |valid: &ValidPlan| {
        let domains = valid.plan().stats.domains.iter();
        domains.filter_map(|d| d.coverage).fold(1.0, f64::min)
    };
    let (before, after) = (
        planned(&fixture, &stats, &asked).unwrap(),
        planned(&fixture, &stats, &mixed).unwrap(),
    );
    assert!(worst(&after) >= worst(&before));
    assert!(after.plan().method.constraints.balanced_domains);
    let shares = coverage(&stats, &after.plan().layers).unwrap();
    for (domain, share) in after.plan().stats.domains.iter().zip(shares) {
        assert_eq!(domain.coverage, share);
    }
    let weights = after.plan().stats.domains.iter();
    let typed = PlanOptions {
        domain_weights: Some(weights.map(|d| (d.name.clone(), d.weight)).collect()),
        ..asked
    };
    let again = planned(&fixture, &stats, &typed).unwrap();
    assert_eq!(again.keep(), after.keep());
}
