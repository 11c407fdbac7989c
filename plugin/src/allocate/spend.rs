//! Spending a budget rank by rank.

use super::Layer;

/// Ranks that each layer keeps if they are bought one by one, always the most
/// `worth` next, until the budget does not reach for the next. Of equal worth
/// the first layer's is bought.
///
/// `worth` is `[L][R]` and must not rise with the rank beyond those that have
/// to stay, which are bought first. `cost` is that of a rank; the budget is
/// what the even split costs. As the order of buying does not depend on the
/// budget, a larger one keeps all that a smaller one keeps.
pub(crate) fn spend(
    layers: &[Layer],
    worth: &[Vec<f64>],
    cost: impl Fn(&Layer) -> u64,
) -> Vec<usize> {
    let total = |ranks: fn(&Layer) -> usize| -> u64 {
        layers
            .iter()
            .map(|layer| ranks(layer) as u64 * cost(layer))
            .sum()
    };
    let mut left = total(|layer| layer.even).saturating_sub(total(|layer| layer.least));
    let mut kept: Vec<usize> = layers.iter().map(|layer| layer.least).collect();
    loop {
        let mut next: Option<(usize, f64)> = None;
        for (index, (worth, &rank)) in worth.iter().zip(&kept).enumerate() {
            if let Some(&worth) = worth.get(rank) {
                if next.is_none_or(|(_, most)| worth > most) {
                    next = Some((index, worth));
                }
            }
        }
        let Some((index, _)) = next.filter(|&(index, _)| cost(&layers[index]) <= left) else {
            return kept;
        };
        left -= cost(&layers[index]);
        kept[index] += 1;
    }
}

/// What each rank holds of its layer's saliency: `[L][R]`, the sum over its
/// groups of `of` the scores. Scores below zero are raised by the lowest of
/// all, so that shares make sense.
pub(super) fn masses(layers: &[Layer], of: impl Fn(f64) -> f64) -> Vec<Vec<f64>> {
    let scores = layers.iter().flat_map(|layer| layer.ranks.iter().flatten());
    let lowest = scores.copied().fold(0.0, f64::min);
    let mass = |rank: &Vec<f64>| rank.iter().map(|&score| of(score - lowest)).sum();
    layers
        .iter()
        .map(|layer| layer.ranks.iter().map(mass).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocate::testing::layer;

    #[test]
    fn the_most_worth_is_bought_while_the_budget_reaches() {
        let layers = [layer(&[0.0; 3], 1, 2), layer(&[0.0; 3], 0, 1)];
        let worth = [vec![0.0, 5.0, 1.0], vec![4.0, 3.0, 2.0]];
        assert_eq!(spend(&layers, &worth, |_| 1), [2, 1]);
        let none = [vec![0.0; 3], vec![0.0; 3]];
        assert_eq!(spend(&layers, &none, |_| 7), [3, 0]);
        assert_eq!(spend(&[], &[], |_| 1), Vec::<usize>::new());
    }

    #[test]
    fn what_costs_more_than_is_left_is_not_bought() {
        let wide = Layer {
            expert_bytes: 300,
            ..layer(&[0.0; 3], 0, 0)
        };
        let layers = [wide, layer(&[0.0; 4], 0, 4)];
        let worth = [vec![9.0, 1.0, 0.0], vec![5.0; 4]];
        // 400 bytes: the wide rank, then one narrow.
        assert_eq!(spend(&layers, &worth, Layer::rank_bytes), [1, 1]);
    }

    #[test]
    fn negative_scores_are_raised_together() {
        let layers = [layer(&[1.0, -1.0], 0, 1), layer(&[-2.0, -2.0], 0, 1)];
        assert_eq!(masses(&layers, |s| s), [vec![3.0, 1.0], vec![0.0, 0.0]]);
        assert_eq!(masses(&layers, |s| s * s)[0], [9.0, 1.0]);
    }
}
