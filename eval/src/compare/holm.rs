//! Correction of p-values for the number of comparisons.
//!
//! Source: Holm, "A Simple Sequentially Rejective Multiple Test Procedure",
//! Scandinavian Journal of Statistics 6, 1979.

/// Holm–Bonferroni adjusted p-values, in the order given: the i-th smallest of
/// m becomes max over j ≤ i of min(1, (m − j + 1)·p₍ⱼ₎), j from 1. What stays
/// below α is wrong anywhere in the family with a chance of at most α, however
/// the comparisons depend on each other. A NaN is a comparison that was not
/// made: it stays NaN and does not count.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).filter(|&index| !p[index].is_nan()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut adjusted = vec![f64::NAN; p.len()];
    let mut highest = 0f64;
    for (rank, &index) in order.iter().enumerate() {
        let left = (order.len() - rank) as f64;
        highest = highest.max((left * p[index]).min(1.0));
        adjusted[index] = highest;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_match_those_of_statsmodels() {
        // statsmodels.stats.multitest.multipletests(p, method="holm")[1]
        for (p, expected) in [
            (
                &[0.01, 0.04, 0.03, 0.005][..],
                &[0.03, 0.06, 0.06, 0.02][..],
            ),
            (&[0.02, 0.02, 0.02], &[0.06, 0.06, 0.06]),
            (
                &[0.001, 0.9, 0.0111, 0.04, 0.5],
                &[0.005, 1.0, 0.0444, 0.12, 1.0],
            ),
            (&[], &[]),
        ] {
            let found = holm(p);
            assert_eq!(found.len(), expected.len());
            assert!(
                found
                    .iter()
                    .zip(expected)
                    .all(|(f, e)| (f - e).abs() < 1e-12),
                "{p:?}: {found:?}"
            );
        }
    }

    #[test]
    fn what_was_not_compared_does_not_count() {
        let adjusted = holm(&[0.02, f64::NAN, 0.3]);
        assert!(adjusted[1].is_nan());
        assert_eq!([adjusted[0], adjusted[2]], [0.04, 0.3]);
    }

    proptest! {
        #[test]
        fn adjusted_values_keep_their_order_and_only_grow(
            p in prop::collection::vec(0f64..=1.0, 1..40),
        ) {
            let adjusted = holm(&p);
            let count = p.len() as f64;
            for (a, p_a) in adjusted.iter().zip(&p) {
                prop_assert!(*a >= *p_a && *a <= (count * p_a).min(1.0));
                for (b, p_b) in adjusted.iter().zip(&p) {
                    prop_assert!(p_a > p_b || a <= b);
                }
            }
            let mut reversed = p.clone();
            reversed.reverse();
            let mut again = holm(&reversed);
            again.reverse();
            prop_assert_eq!(adjusted, again);
        }
    }
}
