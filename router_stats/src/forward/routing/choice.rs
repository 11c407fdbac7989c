//! The largest values of a row, and of the groups it is made of.

use crate::family::{GroupScore, Groups};

/// Indices of the `chosen.len()` largest values, largest first; of equal ones,
/// the lower index.
pub(super) fn largest(values: &[f32], chosen: &mut [u32]) {
    let mut found = 0;
    for (index, &value) in values.iter().enumerate() {
        let better = |&other: &u32| values[other as usize] >= value;
        let place = chosen[..found]
            .iter()
            .take_while(|other| better(other))
            .count();
        if place == chosen.len() {
            continue;
        }
        found = (found + 1).min(chosen.len());
        chosen[place..found].rotate_right(1);
        chosen[place] = index as u32;
    }
}

/// Sets every value outside the chosen groups to −∞. The groups with the
/// largest group scores are chosen; of equal ones, the lower index.
pub(super) fn limit_to_groups(values: &mut [f32], groups: &Groups) {
    let size = values.len() / groups.count;
    let scores: Vec<f32> = values
        .chunks_exact(size)
        .map(|group| group_score(groups.score, group))
        .collect();
    let mut chosen = vec![0u32; groups.chosen];
    largest(&scores, &mut chosen);
    for (index, group) in values.chunks_exact_mut(size).enumerate() {
        if !chosen.contains(&(index as u32)) {
            group.fill(f32::NEG_INFINITY);
        }
    }
}

/// What one group is chosen by.
fn group_score(score: GroupScore, group: &[f32]) -> f32 {
    let (mut first, mut second) = (f32::NEG_INFINITY, f32::NEG_INFINITY);
    for &value in group {
        if value > first {
            (first, second) = (value, first);
        } else if value > second {
            second = value;
        }
    }
    match score {
        GroupScore::Best => first,
        GroupScore::BestTwo => first + second,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(score: GroupScore, mut values: Vec<f32>) -> Vec<usize> {
        let groups = Groups {
            count: 3,
            chosen: 1,
            score,
        };
        limit_to_groups(&mut values, &groups);
        (0..values.len())
            .filter(|&index| values[index].is_finite())
            .collect()
    }

    #[test]
    fn groups_are_chosen_by_one_or_two_values() {
        let values = vec![5.0, 0.0, 3.0, 3.0, 4.0, 1.0];
        assert_eq!(limited(GroupScore::Best, values.clone()), [0, 1]);
        assert_eq!(limited(GroupScore::BestTwo, values), [2, 3]);
    }

    #[test]
    fn of_equal_groups_the_lower_is_chosen() {
        let values = vec![1.0, 2.0, 2.0, 3.0, 3.0, 2.0];
        assert_eq!(limited(GroupScore::Best, values.clone()), [2, 3]);
        assert_eq!(limited(GroupScore::BestTwo, values), [2, 3]);
    }

    #[test]
    fn the_largest_come_first_and_ties_go_to_the_lower_index() {
        let mut chosen = [0; 3];
        largest(&[1.0, 7.0, 9.0, 7.0, 7.0], &mut chosen);
        assert_eq!(chosen, [2, 1, 3]);
    }
}
