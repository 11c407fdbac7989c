//! What goes: sizes, experts, layers.

use prune_eval::figure::{Fate, Heatmap, HeatmapLayer, Influence, InfluenceLayer, Table};
use prune_eval::page::{Fact, Part, Section};
use router_stats::stats::Stats;

use super::{figure, section as of, Inputs};
use crate::format;
use crate::plan::{ExpertId, LayerPlan, Plan, Size};
use crate::saliency::CRITERIA;
use crate::Result;

/// The heading of the page.
pub(super) fn title(inputs: &Inputs, model: &str) -> String {
    let Some(plan) = inputs.plan() else {
        return model.to_owned();
    };
    let total = |size: &Size| size.experts_per_layer.iter().sum::<usize>();
    let (before, after) = (&plan.before, &plan.after);
    let mut kept = Vec::new();
    if total(before) > 0 {
        let (kept_experts, experts) = (total(after) as u64, total(before) as u64);
        kept.push(format!(
            "{} of {} experts",
            format::count(kept_experts),
            format::count(experts)
        ));
    }
    if after.layers < before.layers {
        kept.push(format!("{} of {} layers", after.layers, before.layers));
    }
    for (what, gone) in sublayers(plan) {
        kept.push(format!(
            "{} of {} {what} sublayers",
            after.layers - gone,
            after.layers
        ));
    }
    format!("{model} with {}", kept.join(" and "))
}

/// How it was decided, in words.
pub(super) fn summary(inputs: &Inputs) -> Option<String> {
    let plan = inputs.plan()?;
    let method = &plan.method;
    let mut text = format!("Asked for: {}.", method.asked.flags().join(" "));
    if method.asked.experts.is_some() {
        text.push_str(&format!(
            " Experts are ranked by {} and the budget is shared out by {}.",
            method.criterion,
            method.allocation()
        ));
    }
    if method.asked.drops().next().is_some() {
        text.push_str(&format!(
            " Layers are chosen by {}.",
            method.layer_criterion
        ));
    }
    Some(text)
}

/// Bytes.
pub(super) fn facts(inputs: &Inputs) -> Vec<Fact> {
    let Some(plan) = inputs.plan() else {
        return Vec::new();
    };
    let fact = |name: &str, before: u64, after: u64, write: fn(u64) -> String| Fact {
        name: name.to_owned(),
        value: change(before, after),
        detail: format!("{} → {}", write(before), write(after)),
    };
    vec![fact(
        "bytes of weights",
        plan.before.bytes,
        plan.after.bytes,
        format::bytes,
    )]
}

/// What was removed, or without a plan, what there is.
pub(super) fn section(inputs: &Inputs) -> Result<Option<Section>> {
    let mut parts = Vec::new();
    if let Some(plan) = inputs.plan() {
        parts.push(Part::Table(sizes(plan)));
    }
    if let Some(plot) = heatmap(inputs)? {
        parts.push(figure(&plot)?);
    }
    if let Some(plot) = influence(inputs)? {
        parts.push(figure(&plot)?);
    }
    let title = match inputs.plan() {
        Some(_) => "What was removed",
        None => "Experts and layers",
    };
    Ok(of(title, Vec::new(), parts))
}

/// Sublayers that go of layers that stay, of the kinds of which some do.
fn sublayers(plan: &Plan) -> impl Iterator<Item = (&'static str, usize)> + '_ {
    let of = |goes: fn(&LayerPlan) -> bool| plan.layers.iter().filter(|it| goes(it)).count();
    let kinds = [
        ("attention", of(|layer| layer.skipped.attention)),
        ("expert or MLP", of(|layer| layer.skipped.mlp)),
    ];
    kinds.into_iter().filter(|&(_, gone)| gone > 0)
}

/// `−38.2%`.
fn change(before: u64, after: u64) -> String {
    format::change(after as f64 / before.max(1) as f64 - 1.0)
}

fn sizes(plan: &Plan) -> Table {
    let (before, after) = (&plan.before, &plan.after);
    let experts = |size: &Size| format::range(size.experts_per_layer.iter().copied());
    let row = |name: &str, write: fn(u64) -> String, of: fn(&Size) -> u64| {
        let (before, after) = (of(before), of(after));
        [
            name.to_owned(),
            write(before),
            write(after),
            change(before, after),
        ]
    };
    let layers = |size: &Size| size.layers as u64;
    let mut table = Table::new("", ["", "before", "after", "change"]);
    table
        .row(row("bytes of weights", format::bytes, |size| size.bytes))
        .row(row("parameters", format::parameters, |size| {
            size.parameters
        }))
        .row(row("active per token", format::parameters, |size| {
            size.active_parameters
        }))
        .row([
            "experts per layer".to_owned(),
            experts(before),
            experts(after),
            String::new(),
        ])
        .row(row("layers", format::count, layers));
    for (what, gone) in sublayers(plan) {
        table.row([
            format!("{what} sublayers"),
            format::count(before.layers as u64),
            format::count((after.layers - gone) as u64),
            change(before.layers as u64, (after.layers - gone) as u64),
        ]);
    }
    table
}

/// The plan's decision, or without one what the first criterion says of the
/// statistics.
fn heatmap(inputs: &Inputs) -> Result<Option<Heatmap>> {
    let (criterion, layers) = match (inputs.plan(), inputs.stats()) {
        (Some(plan), _) => (plan.method.criterion.clone(), decided(plan)),
        (None, Some(stats)) => scored(stats)?,
        (None, None) => return Ok(None),
    };
    Ok((!layers.is_empty()).then_some(Heatmap { criterion, layers }))
}

fn decided(plan: &Plan) -> Vec<HeatmapLayer> {
    let constraints = &plan.method.constraints;
    let protected: Vec<&ExpertId> = constraints
        .super_experts
        .iter()
        .flatten()
        .chain(&constraints.protected)
        .collect();
    let fate = |layer: &LayerPlan, expert: usize| {
        let is_protected = protected
            .iter()
            .any(|id| id.layer == layer.layer && id.expert == expert);
        match (layer.kept.contains(&expert), is_protected) {
            (false, _) => Fate::Dropped,
            (true, true) => Fate::Protected,
            (true, false) => Fate::Kept,
        }
    };
    plan.layers
        .iter()
        .filter(|layer| !layer.scores.is_empty())
        .map(|layer| HeatmapLayer {
            layer: layer.layer,
            dropped: !layer.keeps_mlp(),
            scores: layer.scores.clone(),
            fates: (0..layer.scores.len())
                .map(|expert| fate(layer, expert))
                .collect(),
        })
        .collect()
}

fn scored(stats: &Stats) -> Result<(String, Vec<HeatmapLayer>)> {
    let criterion = CRITERIA[0];
    let weights = stats.weights();
    let mut layers = Vec::new();
    for (layer, &experts) in stats.provenance.experts.iter().enumerate() {
        if experts > 0 {
            layers.push(HeatmapLayer {
                layer,
                dropped: false,
                scores: criterion.score(&stats.layer(layer, &weights)?, 0),
                fates: Vec::new(),
            });
        }
    }
    Ok((criterion.name().to_owned(), layers))
}

/// The plan's block influence, with its parts if statistics tell them.
fn influence(inputs: &Inputs) -> Result<Option<Influence>> {
    let measured = inputs
        .stats()
        .map(|stats| stats.block_influence(&inputs.weights(stats)))
        .transpose()?;
    let layers = match (inputs.plan(), measured) {
        (Some(plan), measured) => {
            let parts = |layer: usize| {
                let [_, attention, mlp] = *measured.as_ref()?.get(layer)?;
                Some([attention, mlp])
            };
            let layers = plan.layers.iter().map(|layer| InfluenceLayer {
                layer: layer.layer,
                dropped: layer.dropped,
                skipped: [layer.skipped.attention, layer.skipped.mlp],
                block: layer.block_influence,
                parts: parts(layer.layer),
            });
            layers.collect()
        }
        (None, Some(measured)) => {
            let layers = measured.into_iter().enumerate();
            let layers = layers.map(|(layer, [block, attention, mlp])| InfluenceLayer {
                layer,
                dropped: false,
                skipped: [false; 2],
                block,
                parts: Some([attention, mlp]),
            });
            layers.collect()
        }
        (None, None) => return Ok(None),
    };
    Ok(Some(Influence { layers }))
}
