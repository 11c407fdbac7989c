//! The order in which the experts of a layer stay.
//!
//! Owns how scores, groups and protection become an order, so that of two
//! budgets the smaller one always keeps a subset of what the larger keeps.
//! Does not own what is protected ([`crate::plan`]) nor how many stay
//! ([`crate::allocate`]).

/// The experts of a layer by rank. Rank r holds one expert of each of the
/// router's groups; a layer that keeps n ranks keeps the ranks below n.
///
/// In every group protected experts come first, then the others by score. Of
/// equal scores the lower index comes first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ranking {
    /// Experts of each group, the first to stay first: `[G][R]`.
    groups: Vec<Vec<usize>>,
    /// Protected experts of the group that has most of them.
    protected: usize,
}

impl Ranking {
    /// Ranks the experts 0..E of `scores` `[E]` in `groups` consecutive groups
    /// of equal size. `protected` holds experts below E.
    pub fn new(scores: &[f64], protected: &[usize], groups: usize) -> Self {
        let size = (scores.len() / groups).max(1);
        let ranked = |group: usize| {
            let first = group * size;
            let scores = scores.get(first..first + size).unwrap_or_default();
            let order = by_score(scores).into_iter().map(|expert| first + expert);
            let (mut order, others): (Vec<_>, Vec<_>) =
                order.partition(|expert| protected.contains(expert));
            let protected = order.len();
            order.extend(others);
            (order, protected)
        };
        let (groups, counts): (Vec<_>, Vec<usize>) = (0..groups).map(ranked).unzip();
        Self {
            groups,
            protected: counts.into_iter().max().unwrap_or(0),
        }
    }

    /// The experts by group: `[G][R]`, the first to stay first.
    pub fn groups(&self) -> &[Vec<usize>] {
        &self.groups
    }

    /// Number of ranks, R = E / G.
    pub fn ranks(&self) -> usize {
        self.groups.first().map_or(0, Vec::len)
    }

    /// Ranks that hold every protected expert.
    pub fn protected_ranks(&self) -> usize {
        self.protected
    }

    /// The experts of rank `rank`, one of each group.
    pub fn rank(&self, rank: usize) -> impl Iterator<Item = usize> + '_ {
        self.groups
            .iter()
            .filter_map(move |group| group.get(rank).copied())
    }

    /// Splits the experts into those of the first `ranks` ranks and the rest,
    /// both ascending.
    pub fn split(&self, ranks: usize) -> (Vec<usize>, Vec<usize>) {
        let (mut stay, mut go) = (Vec::new(), Vec::new());
        for group in &self.groups {
            let (best, rest) = group.split_at(ranks.min(group.len()));
            stay.extend(best);
            go.extend(rest);
        }
        stay.sort_unstable();
        go.sort_unstable();
        (stay, go)
    }
}

/// The indices of `scores`, the highest score first.
fn by_score(scores: &[f64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    // A stable sort, so equal scores (0.0 and −0.0 too) stay in index order.
    order.sort_by(|&a, &b| {
        scores[b]
            .partial_cmp(&scores[a])
            .unwrap_or(std::cmp::Ordering::Equal)
    });
    order
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_group_keeps_its_best() {
        let scores = [9.0, 8.0, 7.0, 1.0, 3.0, 3.0];
        let ranking = Ranking::new(&scores, &[], 2);
        assert_eq!((ranking.ranks(), ranking.protected_ranks()), (3, 0));
        assert_eq!(ranking.split(2), (vec![0, 1, 4, 5], vec![2, 3]));
        assert_eq!(ranking.split(1), (vec![0, 4], vec![1, 2, 3, 5]));
        assert_eq!(ranking.rank(1).collect::<Vec<_>>(), [1, 5]);
        assert_eq!(Ranking::new(&[], &[], 1).split(0), (vec![], vec![]));
    }

    #[test]
    fn protected_experts_stay_first() {
        let scores = [9.0, 8.0, 7.0, 1.0, 3.0, 3.0];
        let ranking = Ranking::new(&scores, &[2, 3, 1], 2);
        assert_eq!(ranking.protected_ranks(), 2);
        assert_eq!(ranking.split(1), (vec![1, 3], vec![0, 2, 4, 5]));
        assert_eq!(ranking.split(2), (vec![1, 2, 3, 4], vec![0, 5]));
        assert_eq!(Ranking::new(&scores, &[3], 1).split(2).0, [0, 3]);
    }

    #[test]
    fn of_equal_scores_the_lower_index_stays() {
        let split = |scores: &[f64], kept| Ranking::new(scores, &[], 1).split(kept);
        assert_eq!(split(&[1.0, 2.0, 1.0, 1.0], 2), (vec![0, 1], vec![2, 3]));
        assert_eq!(split(&[-0.0, 0.0, 0.0], 1), (vec![0], vec![1, 2]));
        assert_eq!(split(&[3.0, 1.0], 9), (vec![0, 1], vec![]));
    }

    proptest! {
        #[test]
        fn less_is_a_subset_and_protected_experts_are_in_it(
            scores in prop::collection::vec(-1e3..1e3_f64, 12),
            protected in prop::collection::vec(0..12_usize, 0..4),
            groups in prop::sample::select(vec![1_usize, 2, 3, 4]),
        ) {
            let ranking = Ranking::new(&scores, &protected, groups);
            let mut larger = ranking.split(ranking.ranks()).0;
            prop_assert_eq!(&larger, &(0..12).collect::<Vec<_>>());
            for ranks in (0..ranking.ranks()).rev() {
                let (stay, go) = ranking.split(ranks);
                prop_assert_eq!(stay.len(), ranks * groups);
                prop_assert!(stay.iter().all(|expert| larger.contains(expert)));
                if ranks >= ranking.protected_ranks() {
                    prop_assert!(protected.iter().all(|expert| stay.contains(expert)));
                }
                prop_assert_eq!(stay.len() + go.len(), 12);
                larger = stay;
            }
        }
    }
}
