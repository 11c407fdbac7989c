//! Law 3: dropping an expert that no token was routed to changes nothing.

use std::ops::Range;

use mistralrs_prune::plan::{self, ExpertBudget, PlanOptions};
use prune_tests::{at_most, logits, ragged, worst, Golden};
use router_stats::family::Scoring;
use router_stats::forward::Model;
use router_stats::observer::{expert, routing};
use router_stats::stats::Stats;

use crate::cut::{layouts, measure, Cut};

/// Whether a gate value depends on the chosen experts alone. Where it is a
/// softmax over others too, it grows when they go, and law 3 cannot hold.
fn gates_are_relative(model: &Model) -> bool {
    (0..model.topology().layers())
        .filter_map(|layer| model.topology().moe(layer))
        .all(|moe| moe.router.renormalize || moe.router.scoring == Scoring::Sigmoid)
}

/// Experts of every layer that no token was routed to.
fn unrouted(stats: &Stats) -> Vec<Vec<usize>> {
    let weights = stats.weights();
    (0..stats.provenance.experts.len())
        .map(|layer| {
            let counts = stats.layer(layer, &weights).unwrap().count;
            (0..counts.len())
                .filter(|&expert| counts[expert] == 0.0)
                .collect()
        })
        .collect()
}

#[test]
fn experts_without_tokens_can_go() {
    for golden in Golden::all() {
        let model = &golden.model;
        // Two tokens reach few experts of a layer.
        let sequences = ragged(&[2], 259, 1);
        let stats = measure(model, &sequences);
        let unrouted = unrouted(&stats);
        // Every group must keep as many as the others.
        let in_groups = |layer| {
            let moe = model.topology().moe(layer)?;
            let of_group = |group: Range<usize>| {
                let unrouted = unrouted[layer].iter();
                unrouted.filter(|expert| group.contains(expert)).count()
            };
            let groups = moe.router.group_ranges(moe.experts);
            let room = (moe.experts - moe.router.floor()) / moe.router.group_count();
            Some(groups.map(of_group).min()?.min(room) * moe.router.group_count())
        };
        let removed = (0..golden.layers()).filter_map(in_groups).min().unwrap();
        assert!(removed >= 1, "{unrouted:?}");
        // By frequency, which puts them last.
        let options = PlanOptions {
            criterion: "frequency".to_owned(),
            experts: Some(ExpertBudget::Keep(model.topology().max_experts() - removed)),
            ..PlanOptions::default()
        };
        let (checkpoint, family) = (model.checkpoint(), model.family());
        let plan = plan::plan(&stats, checkpoint, family, model.topology(), &options).unwrap();
        for (layer, planned) in plan.plan().layers.iter().enumerate() {
            assert!(planned
                .removed
                .iter()
                .all(|expert| unrouted[layer].contains(expert)));
        }

        if !gates_are_relative(model) {
            continue;
        }
        // The softmax has fewer terms, so its last bit may differ.
        let whole = logits(model, &sequences, None);
        let masked = logits(model, &sequences, Some(plan.keep()));
        let what = format!("{} without {removed} unrouted experts", golden.name);
        at_most(1e-5, worst(&masked, &whole), &format!("{what}, masked"));
        for layout in layouts(model) {
            let cut = Cut::new(model, &plan, layout);
            let sliced = logits(&cut.model, &sequences, None);
            at_most(1e-5, worst(&sliced, &whole), &format!("{what}, {layout}"));
        }
    }
}

#[test]
fn nothing_is_counted_where_nothing_was_routed() {
    for golden in Golden::all() {
        let stats = measure(&golden.model, &ragged(&[2], 259, 1));
        let of_routed = [
            routing::COUNT,
            routing::GATE,
            routing::GATE_SQ,
            routing::PAIRS,
            expert::NORM,
            expert::NORM_SQ,
            expert::GATED_NORM,
            expert::GATED_NORM_SQ,
            expert::MAX,
            expert::OUTPUT,
        ];
        for (layer, experts) in unrouted(&stats).into_iter().enumerate() {
            for expert in experts {
                for name in of_routed {
                    let row = stats.table(name).unwrap().row(&[0, layer, expert]);
                    assert!(row.iter().all(|&value| value == 0.0), "{name}");
                }
                // The router gave it some probability all the same.
                let soft = stats.table(routing::SOFT_GATE).unwrap();
                assert!(soft.row(&[0, layer, expert])[0] > 0.0);
            }
        }
    }
}
