//! What is asked of layers as a whole, and what has to stay of them.
//!
//! Owns the limits: a model of experts keeps some, and some attention, and a
//! layer with protected experts keeps them. Which of the rest goes is a
//! [`LayerCriterion`](crate::layers::LayerCriterion)'s choice.

use router_stats::family::Topology;

use super::PlanOptions;
use crate::error::{Error, Result};
use crate::layers::{self, Unit, Wanted};

/// Fails if no model of this structure could lose what `options` ask for.
///
/// # Errors
/// [`Error::Option`] for what the layer criterion does not choose, or one that
/// measures with a memory budget, [`Error::TooFewLayers`] and
/// [`Error::NoLayerRemoved`].
pub(super) fn check(options: &PlanOptions, topology: &Topology) -> Result<()> {
    let criterion = layers::layer_criterion(&options.layer_criterion)?;
    if options.fit.is_some() && criterion.measures() {
        return Err(Error::Option {
            option: "--layer-criterion",
            expected: "one that statistics decide, with --fit".to_owned(),
            found: criterion.name().to_owned(),
        });
    }
    for (unit, _) in options.drops() {
        if !criterion.units().contains(&unit) {
            let able = layers::LAYER_CRITERIA
                .iter()
                .filter(|it| it.units().contains(&unit))
                .map(|it| it.name());
            return Err(Error::Option {
                option: "--layer-criterion",
                expected: format!(
                    "one that chooses {} ({})",
                    unit.plural(),
                    able.collect::<Vec<_>>().join(", ")
                ),
                found: criterion.name().to_owned(),
            });
        }
    }
    counts(options, topology).map(|_| ())
}

/// Forward passes, at most, that the layer criterion of `options` takes to choose
/// what they ask for; 0 if statistics decide.
///
/// # Errors
/// Those of [`check`](super::check) about layers.
pub fn measurements(options: &PlanOptions, topology: &Topology) -> Result<usize> {
    if !layers::layer_criterion(&options.layer_criterion)?.measures() {
        return Ok(0);
    }
    let total: usize = counts(options, topology)?.iter().sum();
    let candidates: usize = options
        .drops()
        .map(|(unit, _)| match unit {
            Unit::Layer | Unit::Attention => topology.layers(),
            Unit::Moe => topology.moes().count(),
        })
        .sum();
    Ok((0..total).map(|gone| candidates.saturating_sub(gone)).sum())
}

/// How many of each [`Unit`] go.
fn counts(options: &PlanOptions, topology: &Topology) -> Result<[usize; 3]> {
    let mut counts = [0; 3];
    for (unit, budget) in options.drops() {
        let there = match unit {
            Unit::Layer => topology.layers(),
            // Those of layers that go are gone already.
            Unit::Attention => topology.layers() - counts[Unit::Layer as usize],
            Unit::Moe => topology.moes().count(),
        };
        counts[unit as usize] = budget.of(unit, there)?;
    }
    Ok(counts)
}

/// What is to go and what may, and the layers that hold protected experts.
/// Where all experts could go, the layer of most `influence` keeps its own.
///
/// # Errors
/// Those of [`check`].
pub(super) fn wanted<'a>(
    options: &PlanOptions,
    topology: &'a Topology,
    protected: &[Vec<usize>],
    influence: &[f64],
) -> Result<(Wanted<'a>, Vec<usize>)> {
    check(options, topology)?;
    let mut wanted = Wanted::nothing(topology, options.top_k);
    let counts = counts(options, topology)?;
    for (unit, count) in Unit::ALL.into_iter().zip(counts) {
        wanted.ask(unit, count);
    }
    let holds = |&layer: &usize| !protected[layer].is_empty();
    let held: Vec<usize> = (0..topology.layers()).filter(holds).collect();
    held.iter().for_each(|&layer| wanted.pin(layer));
    let without_experts = counts[Unit::Layer as usize] + counts[Unit::Moe as usize];
    if held.is_empty() && without_experts >= topology.moes().count() {
        let moes = (0..topology.layers()).filter(|&layer| topology.moe(layer).is_some());
        let most = moes.max_by(|&a, &b| influence[a].total_cmp(&influence[b]));
        most.into_iter().for_each(|layer| wanted.pin(layer));
    }
    Ok((wanted, held))
}

/// That what has to stay leaves nothing to drop.
pub(super) fn nothing_to_drop(options: &PlanOptions, held: &[usize]) -> Error {
    let asked = options
        .drops()
        .map(|(unit, budget)| format!("{} {budget}", unit.flag()));
    let layers: Vec<String> = held.iter().map(ToString::to_string).collect();
    Error::ProtectedLayers {
        asked: asked.collect::<Vec<_>>().join(" "),
        held: match layers.len() {
            0 => "some experts and some attention have to stay".to_owned(),
            _ => format!("layers {} hold protected experts", layers.join(", ")),
        },
    }
}
