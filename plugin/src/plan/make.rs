//! Statistics and a budget → a plan.

use router_stats::checkpoint::Checkpoint;
use router_stats::family::{Family, Keep, Topology};
use router_stats::stats::Stats;

use super::validate::{validate, Target};
use super::{
    Asked, DomainShare, LayerPlan, Method, Plan, PlanOptions, PlannedFrom, PlannedModel, Size,
    ValidPlan,
};
use crate::error::{Error, Result};
use crate::{allocate, layers, saliency};

/// Decides which experts and layers go. Layers are chosen first; the experts of
/// the others are then split among them.
///
/// Equal scores are told apart by index: the lower expert or layer stays. The
/// same statistics, options and version give the same plan.
///
/// # Errors
/// Usage errors for names that no registry or domain has and for budgets that
/// the model cannot meet; [`Error::OtherModel`] if `stats` were not made with
/// this checkpoint; [`Error::NonFiniteScore`] if they are damaged.
pub fn plan(
    stats: &Stats,
    checkpoint: &Checkpoint,
    family: &dyn Family,
    topology: &Topology,
    options: &PlanOptions,
) -> Result<ValidPlan> {
    let target = Target::new(checkpoint, family, topology)?;
    let made = &stats.provenance;
    target.expect_fingerprint(&made.fingerprint, &made.model, "the statistics were")?;
    let weights = weights(stats, options)?;
    let layers = decide(stats, topology, options, &weights)?;
    let before = Size::of(checkpoint, family, topology, &Keep::all(topology))?;
    let plan = Plan {
        version: super::VERSION,
        created_by: concat!("mistralrs-prune ", env!("CARGO_PKG_VERSION")).to_owned(),
        model: PlannedModel {
            name: made.model.clone(),
            fingerprint: made.fingerprint.clone(),
            family: family.model_type().to_owned(),
        },
        stats: planned_from(stats, &weights),
        method: Method {
            criterion: options.criterion.clone(),
            allocator: options.allocator.clone(),
            layer_criterion: options.layer_criterion.clone(),
            seed: options.seed,
            asked: Asked {
                experts: options.experts,
                layers: options.drop_layers,
            },
        },
        // Validation computes what is left.
        after: before.clone(),
        before,
        layers,
    };
    validate(plan, "the plan", &target)
}

/// What happens to every layer.
fn decide(
    stats: &Stats,
    topology: &Topology,
    options: &PlanOptions,
    weights: &[f64],
) -> Result<Vec<LayerPlan>> {
    let allocator = allocate::allocator(&options.allocator)?;
    let influence = stats.block_influence(weights)?;
    expect_len("block influences", influence.len(), topology.layers())?;
    let dropped = dropped(stats, topology, options, weights)?;
    let scores = scores(stats, topology, options, weights)?;
    let mut kept = match options.experts {
        Some(budget) => budget.per_layer(topology)?,
        None => topology.experts(),
    };
    // The allocator sees the layers whose experts it decides about.
    let staying: Vec<usize> = (0..topology.layers())
        .filter(|&layer| !dropped[layer] && topology.moe(layer).is_some())
        .collect();
    let staying_scores: Vec<_> = staying.iter().map(|&layer| scores[layer].clone()).collect();
    let even: Vec<_> = staying.iter().map(|&layer| kept[layer]).collect();
    let allocated = allocator.allocate(&staying_scores, &even);
    for (&layer, count) in staying.iter().zip(allocated) {
        kept[layer] = count;
        if let Some(budget) = options.experts {
            budget.leaves_floor(topology, layer, count)?;
        }
    }
    Ok(scores
        .into_iter()
        .enumerate()
        .map(|(layer, scores)| {
            let groups = topology
                .moe(layer)
                .map_or(1, |moe| moe.router.group_count());
            let (kept, removed) = saliency::select_in_groups(&scores, kept[layer], groups);
            LayerPlan {
                layer,
                dropped: dropped[layer],
                block_influence: influence[layer][0],
                kept,
                removed,
                scores,
            }
        })
        .collect())
}

/// The saliency of every expert: `[L][E_ℓ]`, empty for dense layers.
fn scores(
    stats: &Stats,
    topology: &Topology,
    options: &PlanOptions,
    weights: &[f64],
) -> Result<Vec<Vec<f64>>> {
    let criterion = saliency::criterion(&options.criterion)?;
    let in_layer = |layer| {
        let Some(moe) = topology.moe(layer) else {
            return Ok(Vec::new());
        };
        let scores = criterion.score(&stats.layer(layer, weights)?, options.seed);
        expect_len("scored experts", scores.len(), moe.experts)?;
        expect_finite(&scores, |expert| {
            format!("{} of layer {layer}, expert {expert}", criterion.name())
        })?;
        Ok(scores)
    };
    (0..topology.layers()).map(in_layer).collect()
}

/// One flag per layer, true for those that go: the ones with the lowest scores.
fn dropped(
    stats: &Stats,
    topology: &Topology,
    options: &PlanOptions,
    weights: &[f64],
) -> Result<Vec<bool>> {
    let criterion = layers::layer_criterion(&options.layer_criterion)?;
    let scores = criterion.score(stats, weights)?;
    expect_len("scored layers", scores.len(), topology.layers())?;
    expect_finite(&scores, |layer| {
        format!("{} of layer {layer}", criterion.name())
    })?;
    let mut dropped = vec![false; scores.len()];
    if let Some(budget) = options.drop_layers {
        let count = budget.of(scores.len())?;
        for layer in saliency::select(&scores, scores.len() - count).1 {
            dropped[layer] = true;
        }
    }
    Ok(dropped)
}

/// Fails for names that no registry has and for budgets that a model of this
/// structure cannot meet: what can be refused before there are statistics.
///
/// # Errors
/// The usage errors of [`plan`], except those about domains.
pub fn check(options: &PlanOptions, topology: &Topology) -> Result<()> {
    saliency::criterion(&options.criterion)?;
    allocate::allocator(&options.allocator)?;
    layers::layer_criterion(&options.layer_criterion)?;
    if let Some(budget) = options.drop_layers {
        budget.of(topology.layers())?;
    }
    let Some(budget) = options.experts else {
        return Ok(());
    };
    let kept = budget.per_layer(topology)?;
    // Layers that are dropped meet no floor, but which they are is not known
    // yet; every layer of the families at hand has the same floor.
    (0..topology.layers()).try_for_each(|layer| budget.leaves_floor(topology, layer, kept[layer]))
}

/// One weight per domain of the statistics, with those of `options` in place.
fn weights(stats: &Stats, options: &PlanOptions) -> Result<Vec<f64>> {
    let domains = &stats.provenance.domains;
    let mut weights = stats.weights();
    expect_len("domain weights", weights.len(), domains.len())?;
    for (name, weight) in options.domain_weights.iter().flatten() {
        let Some(index) = domains.iter().position(|domain| domain.name == *name) else {
            let known: Vec<_> = domains.iter().map(|domain| domain.name.as_str()).collect();
            return Err(Error::Unknown {
                what: "domain",
                found: name.clone(),
                known: known.join(", "),
            });
        };
        if !(weight.is_finite() && *weight >= 0.0) {
            return Err(Error::Option {
                option: "domain weight",
                expected: format!("a finite number of at least 0 for `{name}`"),
                found: weight.to_string(),
            });
        }
        weights[index] = *weight;
    }
    let mixture = || domains.iter().zip(&weights);
    if !mixture().any(|(domain, &weight)| domain.tokens > 0 && weight > 0.0) {
        let shares: Vec<_> = mixture()
            .map(|(domain, weight)| format!("{}={weight}", domain.name))
            .collect();
        return Err(Error::NoTokens {
            weights: shares.join(", "),
        });
    }
    Ok(weights)
}

fn planned_from(stats: &Stats, weights: &[f64]) -> PlannedFrom {
    let made = &stats.provenance;
    PlannedFrom {
        hash: stats.hash(),
        corpus: made.corpus.clone(),
        tokens: made.domains.iter().map(|domain| domain.tokens).sum(),
        domains: made
            .domains
            .iter()
            .zip(weights)
            .map(|(domain, &weight)| DomainShare {
                name: domain.name.clone(),
                weight,
                tokens: domain.tokens,
            })
            .collect(),
    }
}

fn expect_finite(scores: &[f64], what: impl Fn(usize) -> String) -> Result<()> {
    match scores.iter().position(|score| !score.is_finite()) {
        None => Ok(()),
        Some(index) => Err(Error::NonFiniteScore {
            what: what(index),
            value: scores[index],
        }),
    }
}

/// Fails if the statistics describe another structure than the model has.
fn expect_len(what: &str, found: usize, expected: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(router_stats::Error::Structure {
        what: format!("{what} in the statistics"),
        expected: expected.to_string(),
        found: found.to_string(),
    }
    .into())
}
