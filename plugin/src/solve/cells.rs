//! Types of weights × layers dropped, each with the most experts that fit.

use std::collections::btree_map::Entry;
use std::collections::BTreeMap;

use router_stats::checkpoint::Checkpoint;
use router_stats::family::{Family, Keep};
use router_stats::stats::Stats;

use super::estimate::estimate;
use super::MOST_DROPPED;
use crate::memory::{Memory, Serving};
use crate::plan::{Fit, LayerBudget, MemoryBudget, PlanOptions, Planner, ValidPlan};
use crate::surgery::{self, Held, Layout, Uqff, UqffWeights};
use crate::{Error, Result};

/// What is asked: a model, what is known of it, and the memory there is.
#[derive(Clone, Copy)]
pub struct Question<'a> {
    /// Statistics of the model.
    pub stats: &'a Stats,
    /// The model.
    pub checkpoint: &'a Checkpoint,
    /// Its family.
    pub family: &'static dyn Family,
    /// How plans are made, whatever the budget.
    pub options: &'a PlanOptions,
    /// The memory, and the types that weights may have.
    pub budget: &'a MemoryBudget,
    /// Where the result is served, and to whom.
    pub serving: Serving<'a>,
}

/// A plan that fits.
#[derive(Debug, Clone)]
pub struct Cell {
    /// The plan, which says how weights are stored.
    pub plan: ValidPlan,
    /// What it takes.
    pub memory: Memory,
    /// What it is likely to lose, in nats a token.
    pub estimate: f64,
    /// What it lost on calibration text, in nats a token, once measured.
    pub loss: Option<f64>,
}

impl Cell {
    /// Whether every expert and every layer stays.
    pub fn is_whole(&self) -> bool {
        let mut layers = self.plan.plan().layers.iter();
        layers.all(|layer| !layer.dropped && layer.removed.is_empty())
    }

    /// How its weights are stored, by name.
    pub fn weights(&self) -> &'static str {
        self.plan
            .plan()
            .weights
            .map_or("as they are", UqffWeights::name)
    }
}

/// Every cell that fits; of those that are the same in memory and in what stays,
/// one.
///
/// # Errors
/// [`Error::FitTooSmall`] if none fits; those of planning.
pub fn cells(question: &Question<'_>) -> Result<Vec<Cell>> {
    let topology = question.serving.topology;
    let drops: Vec<Option<LayerBudget>> = match question.options.drop_layers {
        Some(budget) => vec![Some(budget)],
        None => (0..=MOST_DROPPED.min(topology.moes().count().saturating_sub(1)))
            .map(|count| (count > 0).then_some(LayerBudget::Count(count)))
            .collect(),
    };
    let mut held = HeldBy::new(question);
    let mut cells: Vec<Cell> = Vec::new();
    let mut smallest: Option<Memory> = None;
    for drop_layers in drops {
        let options = PlanOptions {
            drop_layers,
            experts: None,
            fit: None,
            ..question.options.clone()
        };
        let planner = Planner::new(
            question.stats,
            question.checkpoint,
            question.family,
            topology,
            &options,
        );
        let planner = match planner {
            Ok(planner) => planner,
            // Nobody asked for so many layers to go.
            Err(Error::ProtectedLayers { .. } | Error::TooFewLayers { .. })
                if question.options.drop_layers.is_none() =>
            {
                continue
            }
            Err(error) => return Err(error),
        };
        for weights in question.budget.types() {
            let stored = Some(weights).filter(|it| *it != UqffWeights::Float);
            let mut fits = |plan: &ValidPlan| {
                let Some(memory) = held.memory(stored, plan.keep())? else {
                    return Ok(false);
                };
                if smallest.is_none_or(|least| memory.peak() < least.peak()) {
                    smallest = Some(memory);
                }
                Ok(memory.peak() <= question.budget.bytes)
            };
            let Some(plan) = planner.most(&mut fits)? else {
                continue;
            };
            let Some(memory) = held.memory(stored, plan.keep())? else {
                continue;
            };
            let fit = Fit {
                bytes: question.budget.bytes,
                traffic: question.serving.traffic,
                predicted: memory.peak(),
                scored: memory.scored,
            };
            let plan = planner.stored(&plan, stored, fit)?;
            let layout = layout(stored, plan.keep(), question);
            let (checkpoint, family) = (question.checkpoint, question.family);
            match surgery::check_counts(checkpoint, family, topology, &plan, layout) {
                Err(Error::NotServed { .. } | Error::UnevenExperts { .. }) => continue,
                other => other?,
            }
            let same = |cell: &Cell| cell.memory == memory && cell.plan.keep() == plan.keep();
            if !cells.iter().any(same) {
                cells.push(Cell {
                    estimate: estimate(plan.plan(), stored),
                    plan,
                    memory,
                    loss: None,
                });
            }
        }
    }
    match (cells.is_empty(), smallest) {
        (false, _) => Ok(cells),
        (true, Some(smallest)) => Err(Error::FitTooSmall {
            fit: question.budget.to_string(),
            smallest: smallest.peak(),
            weights: smallest.weights,
        }),
        (true, None) => Err(Error::NotServed {
            model: question.checkpoint.name(),
            reason: "mistral.rs 0.8.1 loads no type of weights of it that --fit may use",
        }),
    }
}

/// How the engine reads what `keep` leaves.
fn layout(weights: Option<UqffWeights>, keep: &Keep, question: &Question<'_>) -> Layout {
    let even = keep.uniform_experts(question.serving.topology).is_some();
    match weights {
        None if even => Layout::Engine,
        _ => Layout::Uqff(Uqff {
            weights: weights.unwrap_or_default(),
            device: question.serving.device,
        }),
    }
}

/// What the engine holds of the model, by how it is stored; listed once for
/// each.
struct HeldBy<'a> {
    question: &'a Question<'a>,
    /// `None` where the engine does not load it.
    known: BTreeMap<(Option<UqffWeights>, bool), Option<Held>>,
}

impl<'a> HeldBy<'a> {
    fn new(question: &'a Question<'a>) -> Self {
        Self {
            question,
            known: BTreeMap::new(),
        }
    }

    /// What `keep` leaves takes; `None` if the engine does not load it so.
    fn memory(&mut self, weights: Option<UqffWeights>, keep: &Keep) -> Result<Option<Memory>> {
        let question = self.question;
        let serving = &question.serving;
        let even = keep.uniform_experts(serving.topology).is_some();
        let held = match self.known.entry((weights, even)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let held = Held::new(
                    question.checkpoint,
                    question.family,
                    serving.topology,
                    layout(weights, keep, question),
                    serving.float,
                    !even,
                );
                unknown.insert(match held {
                    Ok(held) => Some(held),
                    Err(Error::NotServed { .. }) => None,
                    Err(error) => return Err(error),
                })
            }
        };
        Ok(held.as_ref().map(|held| Memory::of(serving, held, keep)))
    }
}
