//! Statistics, a mixture and a budget → what happens to every layer.

use std::borrow::Cow;

use router_stats::family::{Keep, Topology};
use router_stats::stats::Stats;

use super::constraints::Constraints;
use super::coverage::{balance, coverage};
use super::space::{Open, Space};
use super::{drops, ExpertBudget, LayerPlan, PlanOptions};
use crate::allocate::{self, Allocator};
use crate::check::{expect_finite, expect_len};
use crate::error::{Error, Result};
use crate::layers::{self, Evidence};
use crate::saliency::{self, Criterion, Ranking};

/// The part of a decision that does not depend on how many experts go.
pub(super) struct Choice<'a> {
    stats: &'a Stats,
    /// With as many experts a token as stay.
    topology: Cow<'a, Topology>,
    criterion: &'static dyn Criterion,
    allocator: &'static dyn Allocator,
    seed: u64,
    /// Bytes of one expert of each layer.
    expert_bytes: Vec<u64>,
    /// What has to be respected.
    pub(super) constraints: Constraints,
    /// Protected experts of each layer.
    protected: Vec<Vec<usize>>,
    /// What goes from layers as a whole.
    left: Keep,
    /// Block influence of each layer.
    influence: Vec<f64>,
}

impl<'a> Choice<'a> {
    /// Finds what is protected and what goes from layers as a whole, under the
    /// mixture `weights`.
    ///
    /// # Errors
    /// Those of [`plan`](super::plan) about names, layers and constraints.
    pub(super) fn new(
        mut evidence: Evidence<'a, '_>,
        topology: &'a Topology,
        options: &PlanOptions,
        weights: &[f64],
        expert_bytes: Vec<u64>,
    ) -> Result<Self> {
        let stats = evidence.stats;
        let influence = stats.block_influence(weights)?;
        expect_len("block influences", influence.len(), topology.layers())?;
        let constraints = Constraints::new(options, stats, topology, weights)?;
        let protected = constraints.by_layer(topology.layers());
        let influence: Vec<f64> = influence.into_iter().map(|[block, ..]| block).collect();
        let (wanted, held) = drops::wanted(options, topology, &protected, &influence)?;
        let criterion = layers::layer_criterion(&options.layer_criterion)?;
        let gone = criterion.choose(&mut evidence, weights, &wanted)?;
        let gone = gone.ok_or_else(|| drops::nothing_to_drop(options, &held))?;
        let left = wanted.keep(&gone);
        Ok(Self {
            stats,
            topology: left.routed(topology),
            criterion: saliency::criterion(&options.criterion)?,
            allocator: allocate::allocator(&options.allocator)?,
            seed: options.seed,
            expert_bytes,
            constraints,
            protected,
            left,
            influence,
        })
    }

    /// The weights under which the worst domain of the plan for `budget` keeps
    /// most of its expert output.
    ///
    /// # Errors
    /// Those of [`layers`](Self::layers).
    pub(super) fn balanced(
        &self,
        weights: &[f64],
        budget: Option<ExpertBudget>,
    ) -> Result<Vec<f64>> {
        balance(weights, |weights| {
            coverage(self.stats, &self.layers(weights, budget)?)
        })
    }

    /// What happens to every layer.
    ///
    /// # Errors
    /// Those of [`plan`](super::plan) about budgets and scores.
    pub(super) fn layers(
        &self,
        weights: &[f64],
        budget: Option<ExpertBudget>,
    ) -> Result<Vec<LayerPlan>> {
        let (scores, rankings) = self.ranked(weights)?;
        let ranks = self.ranks(&scores, &rankings, budget)?;
        let decided = rankings.into_iter().zip(ranks).zip(scores).enumerate();
        Ok(decided
            .map(|(layer, ((ranking, ranks), scores))| {
                let (kept, removed) = ranking.split(ranks);
                LayerPlan {
                    layer,
                    dropped: !self.left.layers.contains(&layer),
                    skipped: self.left.skip(layer),
                    block_influence: self.influence[layer],
                    kept,
                    removed,
                    scores,
                }
            })
            .collect())
    }

    /// What can be chosen at `budget` in place of what `fixed` keeps.
    ///
    /// # Errors
    /// Those of [`layers`](Self::layers).
    pub(super) fn space(
        &self,
        weights: &[f64],
        budget: ExpertBudget,
        fixed: Keep,
    ) -> Result<Space> {
        let (scores, rankings) = self.ranked(weights)?;
        let budget = Some(budget);
        let seen = self.seen(&scores, &rankings, budget, &self.even(budget)?)?;
        let open = seen.into_iter().map(|(layer, seen)| Open {
            layer,
            ranking: rankings[layer].clone(),
            protected: self.protected[layer].clone(),
            seen,
        });
        Ok(Space::new(open.collect(), fixed))
    }

    /// Scores and order of the experts of every layer.
    fn ranked(&self, weights: &[f64]) -> Result<(Vec<Vec<f64>>, Vec<Ranking>)> {
        let scores = (0..self.topology.layers()).map(|layer| self.scores(layer, weights));
        let scores = scores.collect::<Result<Vec<_>>>()?;
        let protected = scores.iter().zip(&self.protected).enumerate();
        let rankings = protected.map(|(layer, (scores, protected))| {
            Ranking::new(scores, protected, self.groups(layer))
        });
        let rankings = rankings.collect();
        Ok((scores, rankings))
    }

    /// Ranks that an even split keeps of each layer: `[L]`.
    fn even(&self, budget: Option<ExpertBudget>) -> Result<Vec<usize>> {
        let kept = match budget {
            Some(budget) => budget.per_layer(&self.topology)?,
            None => self.topology.experts(),
        };
        let ranks = kept.iter().enumerate();
        Ok(ranks
            .map(|(layer, kept)| kept / self.groups(layer))
            .collect())
    }

    /// The layers whose experts are decided about, with what allocators see of
    /// them, `even` being an even split `[L]`.
    fn seen(
        &self,
        scores: &[Vec<f64>],
        rankings: &[Ranking],
        budget: Option<ExpertBudget>,
        even: &[usize],
    ) -> Result<Vec<(usize, allocate::Layer)>> {
        let mut seen = Vec::new();
        for (layer, ranking) in rankings.iter().enumerate() {
            let stays = self.left.layers.contains(&layer);
            let Some(moe) = self.left.moe(&self.topology, layer).filter(|_| stays) else {
                continue;
            };
            if let Some(budget) = budget {
                budget.leaves_floor(&self.topology, layer, even[layer] * self.groups(layer))?;
            }
            let own = allocate::Layer {
                ranks: (0..ranking.ranks())
                    .map(|rank| ranking.rank(rank).map(|e| scores[layer][e]).collect())
                    .collect(),
                least: (moe.router.floor() / moe.router.group_count())
                    .max(ranking.protected_ranks()),
                even: even[layer],
                expert_bytes: self.expert_bytes[layer],
            };
            seen.push((layer, own));
        }
        Ok(seen)
    }

    /// How many ranks of experts each layer keeps: `[L]`.
    fn ranks(
        &self,
        scores: &[Vec<f64>],
        rankings: &[Ranking],
        budget: Option<ExpertBudget>,
    ) -> Result<Vec<usize>> {
        let mut ranks = self.even(budget)?;
        let seen = self.seen(scores, rankings, budget, &ranks)?;
        let (staying, seen): (Vec<usize>, Vec<allocate::Layer>) = seen.into_iter().unzip();
        // A protected layer may take more than its share, but not all together.
        let over = |cost: fn(&allocate::Layer) -> u64| {
            let sum = |ranks: fn(&allocate::Layer) -> usize| -> u64 {
                seen.iter()
                    .map(|layer| ranks(layer) as u64 * cost(layer))
                    .sum()
            };
            sum(|layer| layer.least) > sum(|layer| layer.even)
        };
        let allocated = if over(|layer| layer.groups() as u64) || over(allocate::Layer::rank_bytes)
        {
            seen.iter().map(|layer| layer.even).collect()
        } else {
            self.allocator.allocate(&seen)
        };
        for ((&layer, seen), count) in staying.iter().zip(&seen).zip(allocated) {
            if let Some(budget) = budget.filter(|_| count < rankings[layer].protected_ranks()) {
                return Err(Error::ProtectedExperts {
                    budget,
                    layer,
                    left: count * seen.groups(),
                    needed: rankings[layer].protected_ranks() * seen.groups(),
                });
            }
            ranks[layer] = count;
        }
        Ok(ranks)
    }

    /// The saliency of every expert of `layer`; of none if it is dense.
    fn scores(&self, layer: usize, weights: &[f64]) -> Result<Vec<f64>> {
        let Some(moe) = self.topology.moe(layer) else {
            return Ok(Vec::new());
        };
        let scores = self
            .criterion
            .score(&self.stats.layer(layer, weights)?, self.seed);
        expect_len("scored experts", scores.len(), moe.experts)?;
        expect_finite(&scores, |expert| {
            format!(
                "{} of layer {layer}, expert {expert}",
                self.criterion.name()
            )
        })?;
        Ok(scores)
    }

    /// The structure of the model, with as many experts a token as stay.
    pub(super) fn topology(&self) -> &Topology {
        &self.topology
    }

    fn groups(&self, layer: usize) -> usize {
        self.topology
            .moe(layer)
            .map_or(1, |moe| moe.router.group_count())
    }
}
