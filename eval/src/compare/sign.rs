//! Exact sign test on paired outcomes.
//!
//! Of n pairs that differ, the number in favour of one side is binomial with
//! probability ½ if neither side is better. On outcomes of 0 and 1 this is the
//! exact form of McNemar's test. Pairs that do not differ tell nothing about
//! the side and are left out.
//!
//! Sources: Dixon and Mood, "The Statistical Sign Test", JASA 41, 1946;
//! McNemar, "Note on the Sampling Error of the Difference between Correlated
//! Proportions or Percentages", Psychometrika 12, 1947.

/// Two-sided p-value of `wins` against `losses`: the chance that fair coins
/// fall at least as unevenly, min(1, 2·P(X ≤ min(wins, losses))), X binomial.
/// 1 where nothing differs; 0 where the chance is below what an f64 holds.
///
/// Binomial coefficients are taken relative to the largest by their ratio to
/// the next, so that none overflows; a few times √n of them matter.
pub fn sign_test(wins: u64, losses: u64) -> f64 {
    let pairs = wins + losses;
    let fewer = wins.min(losses);
    let middle = pairs / 2;
    let (mut coefficient, mut half, mut tail) = (1.0, 0.0, 0.0);
    for successes in (0..=middle).rev() {
        half += coefficient;
        if successes <= fewer {
            tail += coefficient;
        }
        if coefficient <= tail * f64::EPSILON / 4.0 || coefficient == 0.0 {
            break;
        }
        coefficient *= successes as f64 / (pairs - successes + 1) as f64;
    }
    // The other half is the same, but for the middle of an even number.
    let middle = f64::from(u8::from(pairs.is_multiple_of(2)));
    let both = 2.0 * half - middle;
    (2.0 * tail / both).min(1.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_match_those_of_scipy() {
        // scipy.stats.binomtest(wins, wins + losses).pvalue
        for (wins, losses, p) in [
            (1, 0, 1.0),
            (5, 0, 0.0625),
            (9, 1, 0.021_484_375),
            (8, 2, 0.109_375),
            (15, 5, 0.041_389_465_332_031_25),
            (7, 7, 1.0),
            (60, 40, 0.056_887_933_640_980_806),
            (12, 30, 0.007_915_897_334_896_727),
            (501_000, 499_000, 0.045_608_299_865_389_6),
            (502_500, 497_500, 5.762_541_637_743_035e-7),
            (510_000, 490_000, 5.544_363_287_708_518e-89),
            (0, 1000, 1.866_527_237_006_437_8e-301),
        ] {
            let found = sign_test(wins, losses);
            assert!(
                (found / p - 1.0).abs() < 1e-9,
                "{wins} to {losses}: {found:e}, not {p:e}"
            );
        }
        assert_eq!(sign_test(0, 0), 1.0);
        assert_eq!(sign_test(0, 1_000_000), 0.0);
    }

    proptest! {
        #[test]
        fn sides_may_change_and_uneven_is_rarer(wins in 0u64..5000, losses in 0u64..5000) {
            let p = sign_test(wins, losses);
            prop_assert!((0.0..=1.0).contains(&p));
            prop_assert_eq!(p, sign_test(losses, wins));
            if wins >= losses {
                prop_assert!(sign_test(wins + 1, losses) <= p);
            }
        }

        #[test]
        fn small_numbers_match_all_coefficients(wins in 0u64..30, losses in 0u64..30) {
            let pairs = wins + losses;
            let (mut coefficient, mut tail) = (1u64, 0);
            for successes in 0..=wins.min(losses) {
                tail += coefficient;
                coefficient = coefficient * (pairs - successes) / (successes + 1);
            }
            let exact = (tail as f64 * 2f64.powi(1 - pairs as i32)).min(1.0);
            prop_assert!((sign_test(wins, losses) - exact).abs() < 1e-14);
        }
    }
}
