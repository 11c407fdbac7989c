//! Evolution: how many experts stay in which layer, by trial.
//!
//! EvoESAP (arXiv 2603.06003): the genome is the number of ranks that every
//! layer keeps; experts stay in the order of their saliency. A child moves ranks
//! from one layer to another and back the budget is as before (the level-switch
//! mutation of EvoPress, arXiv 2410.14649). Fitness is E Σ_v min(p_v, q_v), the
//! rate at which speculative sampling would accept the candidate's tokens.
//!
//! Of parents and children the best four live on; the first are the splits of
//! the allocators. Nothing is measured twice.
//!
//! Shapes: genome [L].

use std::collections::BTreeSet;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::{Search, Start, Trials};
use crate::plan::Space;
use crate::Result;

/// Generations at most.
const GENERATIONS: usize = 96;
/// Children of a generation.
const CHILDREN: usize = 4;
/// Individuals that live on.
const PARENTS: usize = 4;
/// Moves of a mutation at most.
const MOVES: usize = 3;
/// A move takes at most one in so many ranks of a layer, or one.
const COARSEST: usize = 16;
/// Children that may turn out to be known before the space counts as tried.
const ATTEMPTS: usize = 200;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Evolution;

impl Search for Evolution {
    fn name(&self) -> &'static str {
        "evolution"
    }

    fn about(&self) -> &'static str {
        "evolve how many experts each layer keeps"
    }

    fn source(&self) -> &'static str {
        "EvoESAP (arXiv 2603.06003)"
    }

    fn run(&self, trials: &mut Trials<'_, '_>, rng: &mut ChaCha8Rng) -> Result<()> {
        let space = trials.space();
        let mut living = trials.starts().to_vec();
        living.truncate(PARENTS);
        let mut known: BTreeSet<Vec<usize>> = trials
            .starts()
            .iter()
            .map(|start| start.ranks.clone())
            .collect();
        for generation in 1..=GENERATIONS {
            let mut children = Vec::new();
            for born in 0..CHILDREN {
                let left = (GENERATIONS - generation + 1) * CHILDREN - born;
                trials.describe(&format!("generation {generation}"), left);
                let Some(ranks) = child(space, &living, &mut known, rng) else {
                    break;
                };
                let Some(overlap) = trials.measure(&space.of_ranks(&ranks))? else {
                    return Ok(());
                };
                children.push(Start { ranks, overlap });
            }
            if children.is_empty() {
                return Ok(());
            }
            living.extend(children);
            living.sort_by(|a, b| b.overlap.total_cmp(&a.overlap));
            living.truncate(PARENTS);
        }
        Ok(())
    }
}

/// A mutant of one of the living that is not `known`, which it is from now on;
/// `None` if none is found.
fn child(
    space: &Space,
    living: &[Start],
    known: &mut BTreeSet<Vec<usize>>,
    rng: &mut ChaCha8Rng,
) -> Option<Vec<usize>> {
    if living.is_empty() || space.layers().len() < 2 {
        return None;
    }
    for _ in 0..ATTEMPTS {
        // The better of two draws; the best is the first.
        let draw = |rng: &mut ChaCha8Rng| rng.random_range(0..living.len());
        let parent = draw(rng).min(draw(rng));
        let mut ranks = living[parent].ranks.clone();
        // Few moves more often than many.
        let moves = rng.random_range(1..=MOVES).min(rng.random_range(1..=MOVES));
        for _ in 0..moves {
            shift(space, &mut ranks, rng);
        }
        if space.allows(&ranks) && known.insert(ranks.clone()) {
            return Some(ranks);
        }
    }
    None
}

/// Moves ranks from one layer to another, if both allow it.
fn shift(space: &Space, ranks: &mut [usize], rng: &mut ChaCha8Rng) {
    let from = rng.random_range(0..ranks.len());
    let to = rng.random_range(0..ranks.len());
    let (giver, taker) = (&space.layers()[from], &space.layers()[to]);
    let most = (giver.ranks().min(taker.ranks()) / COARSEST).max(1);
    let amount = rng.random_range(1..=most);
    if from != to && ranks[from] >= giver.least() + amount && ranks[to] + amount <= taker.ranks() {
        ranks[from] -= amount;
        ranks[to] += amount;
    }
}
