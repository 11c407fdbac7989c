//! Sums against naive f64, and what is refused.

use proptest::prelude::*;

use super::*;

fn softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits
        .iter()
        .fold(f64::NEG_INFINITY, |m, &z| m.max(f64::from(z)));
    let weights: Vec<f64> = logits.iter().map(|&z| (f64::from(z) - max).exp()).collect();
    let sum: f64 = weights.iter().sum();
    weights.into_iter().map(|w| w / sum).collect()
}

/// Deterministic logits, roughly like a model's: most low, few high.
fn logits(n: usize, phase: f32) -> Vec<f32> {
    (0..n)
        .map(|i| 12.0 * (i as f32 * 0.37 + phase).sin().powi(5) - 3.0 * (i as f32 * 1.7).cos())
        .collect()
}

#[test]
fn exp_is_accurate_over_its_range() {
    for i in 0..=400_000 {
        let x = -87.0 * i as f32 / 400_000.0;
        let exact = f64::from(x).exp();
        let error = (f64::from(exp(x)) - exact).abs() / exact;
        assert!(error < 3e-7, "exp({x}): relative error {error:e}");
    }
    assert_eq!(exp(0.0), 1.0);
    assert_eq!(exp(-88.0), 0.0);
    assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    assert!(exp(f32::NAN).is_nan());
}

#[test]
fn a_distribution_matches_f64_softmax_at_every_length() {
    for n in (1..70).chain([511, 512, 513, 1000, 50_257, 151_936]) {
        let z = logits(n, 0.0);
        let exact = softmax(&z);
        let target = n / 3;
        let mut row = z.clone();
        let p = Distribution::new(&mut row, target).unwrap();
        assert!(
            (p.nll() + exact[target].ln()).abs() < 1e-6,
            "nll at V = {n}"
        );
        let top = (0..n).rev().max_by(|&a, &b| z[a].total_cmp(&z[b])).unwrap();
        assert_eq!(p.top(), top, "top at V = {n}");
        for v in [0, n / 2, n - 1] {
            assert!(
                (p.probability(v) - exact[v]).abs() <= 2e-6 * exact[v],
                "p({v}) at V = {n}"
            );
        }
    }
}

#[test]
fn overlap_matches_its_definition() {
    for n in [1, 15, 16, 17, 600, 151_936] {
        let (a, b) = (logits(n, 0.0), logits(n, 0.05));
        let exact: f64 = softmax(&a)
            .iter()
            .zip(softmax(&b))
            .map(|(p, q)| p.min(q))
            .sum();
        let (mut a, mut b) = (a, b);
        let (p, q) = (
            Distribution::new(&mut a, 0).unwrap(),
            Distribution::new(&mut b, 0).unwrap(),
        );
        assert!((p.overlap(&q) - exact).abs() < 1e-6);
        assert!((p.overlap(&q) - q.overlap(&p)).abs() < 1e-6);
        assert!((p.overlap(&p) - 1.0).abs() < 1e-6);
    }
}

#[test]
fn divergence_matches_its_definition_near_and_far() {
    for n in [2, 15, 16, 17, 600, 151_936] {
        for phase in [1e-4, 1e-3, 0.05, 1.5] {
            let (a, b) = (logits(n, 0.0), logits(n, phase));
            let exact: f64 = softmax(&a)
                .iter()
                .zip(softmax(&b))
                .map(|(p, q)| p * (p / q).ln())
                .sum();
            let (mut a, mut b) = (a, b);
            let (p, q) = (
                Distribution::new(&mut a, 0).unwrap(),
                Distribution::new(&mut b, 0).unwrap(),
            );
            let found = p.divergence(&q);
            // Weights are exact to 3·10⁻⁷ and δ off; the divergence is δ² / 2.
            let error = (found - exact).abs();
            assert!(
                found >= 0.0 && error < 1e-6 * (exact + exact.sqrt()) + 1e-13,
                "V = {n}, phase {phase}: {found:e}, not {exact:e}"
            );
            assert_eq!(p.divergence(&p), 0.0);
        }
    }
}

#[test]
fn divergence_is_finite_where_tokens_are_impossible() {
    let (mut both, mut one) = ([0.0, 0.0], [0.0, f32::NEG_INFINITY]);
    let p = Distribution::new(&mut both, 0).unwrap();
    let q = Distribution::new(&mut one, 0).unwrap();
    let floor = 0.5 * (0.5f64.ln() + 0.5f64.ln() + 87.0);
    assert!((p.divergence(&q) - floor).abs() < 1e-5);
    assert!((q.divergence(&p) - 2f64.ln()).abs() < 1e-7);
}

#[test]
fn unusable_logits_are_refused_and_masked_ones_are_not() {
    for bad in [f32::NAN, f32::INFINITY] {
        for position in [0, 3, 19] {
            let mut row = logits(20, 0.0);
            row[position] = bad;
            assert!(Distribution::new(&mut row, 1).is_none());
        }
    }
    assert!(Distribution::new(&mut [f32::NEG_INFINITY; 4], 0).is_none());
    assert!(Distribution::new(&mut [0.0; 4], 4).is_none());
    let mut row = [0.0, f32::NEG_INFINITY, 0.0];
    assert!(
        Distribution::new(&mut row.clone(), 1).is_none(),
        "the target is impossible"
    );
    let p = Distribution::new(&mut row, 2).unwrap();
    assert!((p.nll() - 2f64.ln()).abs() < 1e-7);
    assert_eq!(p.probability(1), 0.0);
}

#[test]
fn ties_go_to_the_lowest_token() {
    let mut row = vec![0.0; 2000];
    for v in [700, 701, 1500] {
        row[v] = 5.0;
    }
    assert_eq!(Distribution::new(&mut row, 0).unwrap().top(), 700);
}

proptest! {
    #[test]
    fn nll_is_invariant_to_a_shift(z in prop::collection::vec(-20f32..20.0, 1..300), shift in -100f32..100.0) {
        let target = z.len() / 2;
        let mut moved: Vec<f32> = z.iter().map(|z| z + shift).collect();
        let mut z = z;
        let a = Distribution::new(&mut z, target).unwrap().nll();
        let b = Distribution::new(&mut moved, target).unwrap().nll();
        prop_assert!(a >= -1e-6);
        prop_assert!((a - b).abs() < 1e-4);
    }

    #[test]
    fn divergence_is_never_negative(
        z in prop::collection::vec((-200f32..200.0, -200f32..200.0), 1..300),
    ) {
        let (mut a, mut b): (Vec<f32>, Vec<f32>) = z.into_iter().unzip();
        let target = |z: &[f32]| (0..z.len()).max_by(|&i, &j| z[i].total_cmp(&z[j])).unwrap();
        let (i, j) = (target(&a), target(&b));
        let p = Distribution::new(&mut a, i).unwrap();
        let q = Distribution::new(&mut b, j).unwrap();
        for divergence in [p.divergence(&q), q.divergence(&p)] {
            prop_assert!(divergence >= 0.0 && divergence.is_finite());
        }
        // Pinsker's inequality, with the total variation 1 − Σ min(p, q).
        let variation = 1.0 - p.overlap(&q);
        prop_assert!(2.0 * variation * variation <= p.divergence(&q) + 1e-5);
    }
}
