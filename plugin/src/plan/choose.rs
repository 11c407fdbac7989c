//! Statistics, a mixture and a budget → what happens to every layer.

use router_stats::family::{Keep, Topology};
use router_stats::stats::Stats;

use super::constraints::Constraints;
use super::coverage::{balance, coverage};
use super::space::{Open, Space};
use super::{ExpertBudget, LayerPlan, PlanOptions};
use crate::allocate::{self, Allocator};
use crate::check::{expect_finite, expect_len};
use crate::error::{Error, Result};
use crate::layers;
use crate::saliency::{self, Criterion, Ranking};

/// The part of a decision that does not depend on how many experts go.
pub(super) struct Choice<'a> {
    stats: &'a Stats,
    topology: &'a Topology,
    criterion: &'static dyn Criterion,
    allocator: &'static dyn Allocator,
    seed: u64,
    /// Bytes of one expert of each layer.
    expert_bytes: Vec<u64>,
    /// What has to be respected.
    pub(super) constraints: Constraints,
    /// Protected experts of each layer.
    protected: Vec<Vec<usize>>,
    /// One flag per layer, true for those that go.
    dropped: Vec<bool>,
    /// Block influence of each layer.
    influence: Vec<f64>,
}

impl<'a> Choice<'a> {
    /// Finds what is protected and which layers go, under the mixture `weights`.
    ///
    /// # Errors
    /// Those of [`plan`](super::plan) about names, layers and constraints.
    pub(super) fn new(
        stats: &'a Stats,
        topology: &'a Topology,
        options: &PlanOptions,
        weights: &[f64],
        expert_bytes: Vec<u64>,
    ) -> Result<Self> {
        let influence = stats.block_influence(weights)?;
        expect_len("block influences", influence.len(), topology.layers())?;
        let constraints = Constraints::new(options, stats, topology, weights)?;
        let protected = constraints.by_layer(topology.layers());
        let mut dropped = vec![false; topology.layers()];
        let criterion = layers::layer_criterion(&options.layer_criterion)?;
        if let Some(budget) = options.drop_layers {
            let count = budget.of(topology.layers())?;
            let mut pinned: Vec<bool> = protected
                .iter()
                .map(|experts| !experts.is_empty())
                .collect();
            // A model of experts keeps a layer of them.
            let held = pinned.contains(&true);
            if !held && count >= topology.moes().count() {
                let moes = (0..topology.layers()).filter(|&layer| topology.moe(layer).is_some());
                let most = moes.max_by(|&a, &b| influence[a][0].total_cmp(&influence[b][0]));
                most.into_iter().for_each(|layer| pinned[layer] = true);
            }
            let chosen = criterion.choose(stats, weights, count, &pinned)?;
            let chosen = chosen.ok_or_else(|| Error::ProtectedLayers {
                budget,
                held: indices(&pinned),
            })?;
            for layer in chosen {
                dropped[layer] = true;
            }
        }
        Ok(Self {
            stats,
            topology,
            criterion: saliency::criterion(&options.criterion)?,
            allocator: allocate::allocator(&options.allocator)?,
            seed: options.seed,
            expert_bytes,
            constraints,
            protected,
            dropped,
            influence: influence.into_iter().map(|[block, ..]| block).collect(),
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
                    dropped: self.dropped[layer],
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
            Some(budget) => budget.per_layer(self.topology)?,
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
            let Some(moe) = self.topology.moe(layer).filter(|_| !self.dropped[layer]) else {
                continue;
            };
            if let Some(budget) = budget {
                budget.leaves_floor(self.topology, layer, even[layer] * self.groups(layer))?;
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

    fn groups(&self, layer: usize) -> usize {
        self.topology
            .moe(layer)
            .map_or(1, |moe| moe.router.group_count())
    }
}

/// The indices that are true: `0, 3`.
fn indices(flags: &[bool]) -> String {
    let indices = flags.iter().enumerate().filter(|&(_, &flag)| flag);
    let indices: Vec<String> = indices.map(|(index, _)| index.to_string()).collect();
    indices.join(", ")
}
