//! Layers and sublayers that go, and how many experts a token takes.

use super::*;
use crate::layers::{Evidence, Unit};

fn dropping(attention: Option<usize>, moe: Option<usize>) -> PlanOptions {
    PlanOptions {
        drop_attention: attention.map(LayerBudget::Count),
        drop_moe: moe.map(LayerBudget::Count),
        ..PlanOptions::default()
    }
}

#[test]
fn sublayers_go_by_their_own_influence_and_are_asked_for() {
    let fixture = fixture::model(Stored::PerExpert);
    let options = PlanOptions {
        prune_super_experts: true,
        ..dropping(Some(1), Some(2))
    };
    let valid = try_plan(&fixture, &options).unwrap();
    let plan = valid.plan();
    // All parts of a layer turn the stream alike in the fixture; layer 1 is
    // dense. Layer 2 loses both and goes.
    let fates: Vec<_> = plan.layers.iter().map(LayerPlan::fate).collect();
    assert_eq!(fates, [None, None, Some("dropped"), Some("no experts")]);
    let flags = plan.method.asked.flags();
    assert_eq!(flags, ["--drop-attention 1", "--drop-moe 2"]);
    assert_eq!(plan.after.experts_per_layer, [6, 0, 0]);
    assert_eq!(plan.version, VERSION);
}

#[test]
fn protected_experts_keep_their_sublayer() {
    let fixture = fixture::model(Stored::PerExpert);
    let options = PlanOptions {
        prune_super_experts: true,
        protect: vec![ExpertId {
            layer: 2,
            expert: 0,
        }],
        ..dropping(None, Some(2))
    };
    let valid = try_plan(&fixture, &options).unwrap();
    let skipped: Vec<_> = valid.keep().skipped.iter().map(|skip| skip.mlp).collect();
    assert_eq!(skipped, [true, false, false, true]);
    let all = PlanOptions {
        protect: [0, 2, 3]
            .map(|layer| ExpertId { layer, expert: 0 })
            .to_vec(),
        ..options
    };
    assert_eq!(
        refusal(&all).to_string(),
        "--drop-moe 2 finds nothing to drop: layers 0, 2, 3 hold protected experts"
    );
}

#[test]
fn some_of_each_kind_stays() {
    let both = PlanOptions {
        drop_layers: Some(LayerBudget::Count(3)),
        ..dropping(Some(1), None)
    };
    for (options, expected) in [
        (
            dropping(Some(4), None),
            "--drop-attention 4 would leave 0 of 4 attention sublayers",
        ),
        (
            dropping(None, Some(3)),
            "--drop-moe 3 would leave 0 of 3 MoE sublayers",
        ),
        (
            both,
            "--drop-attention 1 would leave 0 of 1 attention sublayers",
        ),
        (
            PlanOptions {
                drop_moe: Some(LayerBudget::Fraction(0.2)),
                ..PlanOptions::default()
            },
            "--drop-moe 0.2 would remove none of 3 MoE sublayers",
        ),
        (
            PlanOptions {
                layer_criterion: "angular-span".to_owned(),
                ..dropping(None, Some(1))
            },
            "--layer-criterion: expected one that chooses MoE sublayers (block-influence, greedy), \
             found angular-span",
        ),
    ] {
        let fixture = fixture::model(Stored::PerExpert);
        let early = check(&options, &fixture.topology).unwrap_err();
        assert_eq!(early.to_string(), expected);
        assert_eq!(refusal(&options).to_string(), expected);
        assert!(early.is_usage());
    }
}

#[test]
fn fewer_experts_a_token_are_asked_for_and_lower_the_floor() {
    let fixture = fixture::model(Stored::PerExpert);
    let asked = |top_k, keep| PlanOptions {
        top_k: Some(top_k),
        prune_super_experts: true,
        ..options(ExpertBudget::Keep(keep))
    };
    assert!(matches!(
        refusal(&options(ExpertBudget::Keep(1))),
        Error::TooFewExperts { .. }
    ));
    let one = try_plan(&fixture, &asked(1, 1)).unwrap();
    assert_eq!(one.keep().top_k, Some(1));
    assert_eq!(one.plan().after.experts_per_layer, [1, 0, 1, 1]);
    let flags = one.plan().method.asked.flags();
    assert_eq!(flags, ["--keep-experts 1", "--top-k 1"]);
    let all = |options: &PlanOptions| try_plan(&fixture, options).unwrap().plan().clone();
    let (two, one) = (all(&PlanOptions::default()), all(&asked(1, 6)));
    assert_eq!(one.after.bytes, two.after.bytes);
    assert_eq!(
        two.after.active_parameters - one.after.active_parameters,
        3 * 3 * 8 * 4
    );
    for top_k in [0, 2, 7] {
        let error = check(&asked(top_k, 6), &fixture.topology).unwrap_err();
        assert!(error.is_usage());
        assert_eq!(
            error.to_string(),
            format!("--top-k: expected 1 to 1, fewer than the model's 2, found {top_k}")
        );
    }
}

#[test]
fn a_criterion_that_measures_asks_for_what_is_left() {
    let fixture = fixture::model(Stored::PerExpert);
    let stats = stats(&fixture);
    let options = PlanOptions {
        layer_criterion: "greedy".to_owned(),
        prune_super_experts: true,
        top_k: Some(1),
        ..dropping(None, Some(1))
    };
    let mut asked = Vec::new();
    let mut cost = |keep: &router_stats::family::Keep| {
        assert_eq!(keep.top_k, Some(1));
        keep.check(&fixture.topology)?;
        let gone = (0..4).find(|&layer| keep.skip(layer).mlp);
        asked.push(gone);
        Ok(if gone == Some(2) { 1.0 } else { 2.0 })
    };
    let evidence = Evidence {
        stats: &stats,
        cost: Some(&mut cost),
    };
    let planner = Planner::new(
        evidence,
        &fixture.checkpoint,
        fixture.family,
        &fixture.topology,
        &options,
    );
    let plan = planner.unwrap().plan().unwrap();
    assert_eq!(plan.plan().layers[2].fate(), Some("no experts"));
    assert_eq!(asked, [Some(0), Some(2), Some(3)]);
    let without = refusal(&options).to_string();
    assert!(without.contains("no text to measure on"), "{without}");
    assert_eq!(Unit::Moe.flag(), "--drop-moe");
}
