//! What a search chooses from: all that a plan of one budget may keep.
//!
//! Owns the layers whose experts are decided about and what every choice
//! respects: floors, groups, protection and the budget. It does not own how
//! choices are made ([`crate::search`]).

use router_stats::family::Keep;

use crate::allocate::{self, ALLOCATORS};
use crate::saliency::Ranking;

/// What may stay at one budget.
#[derive(Debug, Clone)]
pub struct Space {
    layers: Vec<Open>,
    /// What stays of the other layers; of these, what a plan without a search
    /// keeps.
    fixed: Keep,
    /// Bytes of the experts that the even split keeps.
    budget: u64,
}

/// A layer whose experts are decided about.
#[derive(Debug, Clone)]
pub struct Open {
    /// Its index in the model.
    pub layer: usize,
    /// The order in which its experts stay by saliency.
    pub ranking: Ranking,
    /// Experts that stay, ascending.
    pub protected: Vec<usize>,
    /// What allocators see of it.
    pub(super) seen: allocate::Layer,
}

impl Open {
    /// Ranks that have to stay.
    pub fn least(&self) -> usize {
        self.seen.least
    }

    /// Number of ranks.
    pub fn ranks(&self) -> usize {
        self.ranking.ranks()
    }

    /// Experts, by group: `[G][R]`, the first to stay first.
    pub fn groups(&self) -> &[Vec<usize>] {
        self.ranking.groups()
    }

    /// Number of experts.
    pub fn experts(&self) -> usize {
        self.groups().iter().map(Vec::len).sum()
    }

    /// Bytes of a rank.
    pub fn rank_bytes(&self) -> u64 {
        self.seen.rank_bytes()
    }
}

impl Space {
    /// Layers to decide about, in place of what `fixed` keeps of them.
    pub(super) fn new(layers: Vec<Open>, fixed: Keep) -> Self {
        let even = layers.iter().map(|open| open.seen.even as u64);
        let budget = even
            .zip(&layers)
            .map(|(ranks, open)| ranks * open.rank_bytes())
            .sum();
        Self {
            layers,
            fixed,
            budget,
        }
    }

    /// The layers to decide about.
    pub fn layers(&self) -> &[Open] {
        &self.layers
    }

    /// Bytes that may stay of the experts of [`layers`](Self::layers).
    pub fn budget(&self) -> u64 {
        self.budget
    }

    /// What a plan without a search keeps.
    pub fn unsearched(&self) -> &Keep {
        &self.fixed
    }

    /// Whether every layer may keep so many ranks `[L]`.
    pub fn allows(&self, ranks: &[usize]) -> bool {
        let within =
            |(open, &ranks): (&Open, &usize)| (open.least()..=open.ranks()).contains(&ranks);
        let cost = |(open, &ranks): (&Open, &usize)| open.rank_bytes() * ranks as u64;
        let pairs = || self.layers.iter().zip(ranks);
        ranks.len() == self.layers.len()
            && pairs().all(within)
            && pairs().map(cost).sum::<u64>() <= self.budget
    }

    /// The splits of all allocators that are possible, each once, the even one
    /// first.
    pub fn splits(&self) -> Vec<Vec<usize>> {
        let seen: Vec<allocate::Layer> = self.layers.iter().map(|open| open.seen.clone()).collect();
        let mut splits: Vec<Vec<usize>> = Vec::new();
        for allocator in ALLOCATORS {
            let ranks = allocator.allocate(&seen);
            if self.allows(&ranks) && !splits.contains(&ranks) {
                splits.push(ranks);
            }
        }
        splits
    }

    /// What stays if every layer keeps so many ranks `[L]` by saliency.
    pub fn of_ranks(&self, ranks: &[usize]) -> Keep {
        let kept = self.layers.iter().zip(ranks);
        self.with(kept.map(|(open, &ranks)| open.ranking.split(ranks).0))
    }

    /// What stays if the experts of all layers are bought by their `worth`
    /// `[L][E]`, the most first, until the budget is spent. Ranks that have to
    /// stay, and protected experts, are bought before.
    pub fn of_worth(&self, worth: &[Vec<f64>]) -> Keep {
        let rankings: Vec<Ranking> = self
            .layers
            .iter()
            .zip(worth)
            .map(|(open, worth)| Ranking::new(worth, &open.protected, open.groups().len()))
            .collect();
        let by_rank: Vec<Vec<f64>> = rankings
            .iter()
            .zip(worth)
            .map(|(ranking, worth)| {
                let rank = |rank| ranking.rank(rank).map(|expert| worth[expert]).sum::<f64>();
                let groups = ranking.groups().len().max(1) as f64;
                (0..ranking.ranks()).map(|at| rank(at) / groups).collect()
            })
            .collect();
        let seen: Vec<allocate::Layer> = self.layers.iter().map(|open| open.seen.clone()).collect();
        let ranks = allocate::spend(&seen, &by_rank, allocate::Layer::rank_bytes);
        self.with(
            rankings
                .iter()
                .zip(ranks)
                .map(|(ranking, ranks)| ranking.split(ranks).0),
        )
    }

    /// A choice whose layers keep different numbers of experts, if there is one.
    pub fn uneven(&self) -> Option<Keep> {
        let even: Vec<usize> = self.layers.iter().map(|open| open.seen.even).collect();
        let pairs = (0..even.len()).flat_map(|from| (0..even.len()).map(move |to| (from, to)));
        pairs
            .filter(|(from, to)| from != to)
            .find_map(|(from, to)| {
                let mut ranks = even.clone();
                ranks[from] = ranks[from].checked_sub(1)?;
                ranks[to] += 1;
                self.allows(&ranks).then(|| self.of_ranks(&ranks))
            })
    }

    fn with(&self, kept: impl Iterator<Item = Vec<usize>>) -> Keep {
        let mut keep = self.fixed.clone();
        for (open, kept) in self.layers.iter().zip(kept) {
            if let Some(experts) = keep.experts.get_mut(open.layer) {
                *experts = kept;
            }
        }
        keep
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use router_stats::family::Skip;

    use super::*;

    /// Three layers of eight experts in two groups, of which four ranks are the
    /// even share and two have to stay; expert 3 of each is protected.
    fn space() -> Space {
        let open = |layer: usize| {
            let scores: Vec<f64> = (0..8)
                .map(|e| f64::from((5 * e + 3) % 8) + layer as f64)
                .collect();
            let ranking = Ranking::new(&scores, &[3], 2);
            let ranks = (0..4).map(|r| ranking.rank(r).map(|e| scores[e]).collect());
            Open {
                layer: layer + 1,
                protected: vec![3],
                seen: allocate::Layer {
                    ranks: ranks.collect(),
                    least: 1,
                    even: 2,
                    expert_bytes: 10,
                },
                ranking,
            }
        };
        let fixed = Keep {
            layers: (0..4).collect(),
            experts: vec![Vec::new(); 4],
            skipped: vec![Skip::default(); 4],
            top_k: None,
        };
        Space::new((0..3).map(open).collect(), fixed)
    }

    #[test]
    fn splits_are_possible_and_the_even_one_is_first() {
        let space = space();
        assert_eq!(space.budget(), 3 * 2 * 20);
        let splits = space.splits();
        assert_eq!(splits[0], [2, 2, 2]);
        assert!(splits.iter().all(|ranks| space.allows(ranks)));
        for refused in [&[0, 3, 3][..], &[3, 3, 1], &[2, 2], &[1, 5, 0]] {
            assert!(!space.allows(refused), "{refused:?}");
        }
    }

    #[test]
    fn an_uneven_choice_has_the_budget() {
        let keep = space().uneven().unwrap();
        let counts: Vec<usize> = keep.experts.iter().map(Vec::len).collect();
        assert_eq!(counts, [0, 2, 6, 4]);
    }

    proptest! {
        #[test]
        fn whatever_experts_are_worth_the_budget_is_met(
            worth in prop::collection::vec(prop::collection::vec(-9.0..9.0_f64, 8), 3),
        ) {
            let keep = space().of_worth(&worth);
            let counts = keep.experts.iter().map(Vec::len).sum::<usize>();
            prop_assert_eq!(counts, 3 * 2 * 2);
            for (layer, (kept, worth)) in keep.experts[1..].iter().zip(&worth).enumerate() {
                prop_assert!(kept.contains(&3));
                let first = kept.iter().filter(|&&expert| expert < 4).count();
                prop_assert_eq!(2 * first, kept.len(), "groups of layer {}", layer);
                // Of a group the best stay, beside the protected.
                for group in [0..4, 4..8] {
                    let stays = |e: &usize| kept.contains(e);
                    let gone = group.clone().filter(|e| !stays(e)).map(|e| worth[e]);
                    let least = group.filter(|e| stays(e) && *e != 3).map(|e| worth[e]);
                    let (gone, least) = (gone.fold(-10.0, f64::max), least.fold(10.0, f64::min));
                    prop_assert!(gone <= least);
                }
            }
        }
    }
}
