//! Coverage, pairing, order and the degenerate cases.

use super::*;

const BOOTSTRAP: Bootstrap = Bootstrap {
    resamples: 400,
    confidence: 0.95,
    seed: 7,
};
/// Mean outcomes of the simulated models.
const LEFT: f64 = 2.3;
const RIGHT: f64 = 2.0;

/// Approximately normal, variance 1.
fn noise(rng: &mut ChaCha8Rng) -> f64 {
    (0..12).map(|_| rng.random_range(0.0..1.0)).sum::<f64>() - 6.0
}

/// Documents of random length whose difficulty both models share.
fn clusters(rng: &mut ChaCha8Rng, n: usize) -> Vec<Cluster> {
    (0..n)
        .map(|_| {
            let tokens = f64::from(rng.random_range(100..300));
            let difficulty = noise(rng);
            let left = tokens * (LEFT + 0.5 * difficulty + 0.1 * noise(rng));
            let right = tokens * (RIGHT + 0.5 * difficulty + 0.05 * noise(rng));
            Cluster {
                tokens,
                left,
                right,
            }
        })
        .collect()
}

fn single(clusters: &[Cluster], statistic: Statistic) -> Estimate {
    let resampled = BOOTSTRAP.resample("text", clusters).unwrap();
    BOOTSTRAP.estimate(&[(1.0, &resampled)], statistic)
}

fn p_value(clusters: &[Cluster]) -> Option<f64> {
    let resampled = BOOTSTRAP.resample("text", clusters)?;
    BOOTSTRAP.p_value(&[(1.0, &resampled)], Statistic::Difference)
}

/// Makes `left` better or worse by so much per token.
fn shifted(mut clusters: Vec<Cluster>, by: f64) -> Vec<Cluster> {
    for cluster in &mut clusters {
        cluster.left += by * cluster.tokens;
    }
    clusters
}

/// How often intervals of domains of these sizes hold the truth.
fn coverage<const N: usize>(sizes: &[usize], truths: [(Statistic, f64); N]) -> [f64; N] {
    let simulations = 400;
    let mut covered = [0; N];
    for simulation in 0..simulations {
        let mut rng = ChaCha8Rng::seed_from_u64(simulation);
        let domains: Vec<Resampled> = sizes
            .iter()
            .enumerate()
            .map(|(index, &n)| {
                BOOTSTRAP
                    .resample(&index.to_string(), &clusters(&mut rng, n))
                    .unwrap()
            })
            .collect();
        let strata: Vec<_> = domains.iter().map(|domain| (1.0, domain)).collect();
        for (covered, (statistic, truth)) in covered.iter_mut().zip(truths) {
            let (low, high) = BOOTSTRAP.estimate(&strata, statistic).interval().unwrap();
            *covered += u32::from(low <= truth && truth <= high);
        }
    }
    covered.map(|covered| f64::from(covered) / simulations as f64)
}

#[test]
fn intervals_cover_the_truth_as_often_as_they_claim() {
    let difference = LEFT - RIGHT;
    for sizes in [&[5][..], &[40], &[6, 30], &[8, 8, 8]] {
        let truths = [
            (Statistic::Mean, LEFT),
            (Statistic::Difference, difference),
            (Statistic::Ratio, difference.exp_m1()),
        ];
        let covered = coverage(sizes, truths);
        assert!(
            covered
                .iter()
                .all(|covered| (0.90..=0.99).contains(covered)),
            "{sizes:?}: {covered:?}"
        );
    }
}

#[test]
fn pairing_makes_differences_sharper_than_the_models() {
    let sample = clusters(&mut ChaCha8Rng::seed_from_u64(1), 50);
    let width = |statistic| {
        let (low, high) = single(&sample, statistic).interval().unwrap();
        high - low
    };
    assert!(width(Statistic::Difference) < width(Statistic::Mean) / 3.0);
}

#[test]
fn identical_variants_do_not_differ_at_all() {
    let mut sample = clusters(&mut ChaCha8Rng::seed_from_u64(2), 20);
    for cluster in &mut sample {
        cluster.right = cluster.left;
    }
    let zero = Estimate {
        value: 0.0,
        low: Some(0.0),
        high: Some(0.0),
    };
    for statistic in [Statistic::Difference, Statistic::Ratio] {
        let estimate = single(&sample, statistic);
        assert_eq!(estimate, zero);
        assert!(!estimate.excludes_zero());
    }
}

#[test]
fn exchanging_the_models_mirrors_the_interval() {
    let sample = clusters(&mut ChaCha8Rng::seed_from_u64(3), 20);
    let mirrored: Vec<_> = sample
        .iter()
        .map(|c| Cluster {
            tokens: c.tokens,
            left: c.right,
            right: c.left,
        })
        .collect();
    let (a, b) = (
        single(&sample, Statistic::Difference),
        single(&mirrored, Statistic::Difference),
    );
    assert!(a.excludes_zero() && b.excludes_zero());
    assert!((a.value + b.value).abs() < 1e-12);
}

#[test]
fn order_of_clusters_and_domains_does_not_matter() {
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let (a, b) = (clusters(&mut rng, 9), clusters(&mut rng, 14));
    let mut reversed = a.clone();
    reversed.reverse();
    let first = BOOTSTRAP.resample("a", &a).unwrap();
    assert_eq!(first, BOOTSTRAP.resample("a", &reversed).unwrap());
    let second = BOOTSTRAP.resample("b", &b).unwrap();
    let forwards = BOOTSTRAP.estimate(&[(0.3, &first), (0.7, &second)], Statistic::Ratio);
    let backwards = BOOTSTRAP.estimate(&[(0.7, &second), (0.3, &first)], Statistic::Ratio);
    assert_eq!(forwards, backwards);
}

#[test]
fn draws_do_not_depend_on_threads() {
    let sample = clusters(&mut ChaCha8Rng::seed_from_u64(5), 30);
    let alone = rayon::ThreadPoolBuilder::new()
        .num_threads(1)
        .build()
        .unwrap();
    let one = alone.install(|| single(&sample, Statistic::Mean));
    assert_eq!(one, single(&sample, Statistic::Mean));
    let reseeded = Bootstrap {
        seed: 8,
        ..BOOTSTRAP
    };
    let resampled = reseeded.resample("text", &sample).unwrap();
    assert_ne!(
        one,
        reseeded.estimate(&[(1.0, &resampled)], Statistic::Mean)
    );
}

#[test]
fn one_cluster_has_a_value_and_neither_interval_nor_p() {
    let sample = [Cluster {
        tokens: 10.0,
        left: 20.0,
        right: 10.0,
    }];
    assert_eq!(p_value(&sample), None);
    let estimate = single(&sample, Statistic::Difference);
    assert_eq!(
        estimate,
        Estimate {
            value: 1.0,
            low: None,
            high: None
        }
    );
    assert!(!estimate.excludes_zero());
    // A mixture with such a domain has none either.
    let lonely = BOOTSTRAP.resample("a", &sample).unwrap();
    let many = BOOTSTRAP
        .resample("b", &clusters(&mut ChaCha8Rng::seed_from_u64(6), 20))
        .unwrap();
    assert_eq!(
        BOOTSTRAP
            .estimate(&[(1.0, &lonely), (1.0, &many)], Statistic::Mean)
            .interval(),
        None
    );
    assert!(BOOTSTRAP
        .estimate(&[(0.0, &lonely), (1.0, &many)], Statistic::Mean)
        .interval()
        .is_some());
    assert_eq!(BOOTSTRAP.resample("a", &[]), None);
}

#[test]
fn mixtures_weigh_domains_not_tokens() {
    let domain = |tokens: f64, mean: f64| {
        let cluster = Cluster {
            tokens,
            left: tokens * mean,
            right: 0.0,
        };
        BOOTSTRAP.resample("text", &[cluster; 3]).unwrap()
    };
    let (large, small) = (domain(1e6, 1.0), domain(10.0, 3.0));
    let mixed = BOOTSTRAP.estimate(&[(2.0, &large), (2.0, &small)], Statistic::Exp);
    assert!((mixed.value - 2f64.exp()).abs() < 1e-9);
}

#[test]
fn percentiles_interpolate() {
    let sorted = [1.0, 2.0, 4.0];
    assert_eq!(
        [0.0, 0.25, 0.5, 0.75, 1.0].map(|share| percentile(&sorted, share)),
        [1.0, 1.5, 2.0, 3.0, 4.0]
    );
}

#[test]
fn without_a_difference_p_values_are_uniform() {
    for n in [6, 40] {
        let values: Vec<f64> = (0..400)
            .map(|simulation| {
                let mut rng = ChaCha8Rng::seed_from_u64(simulation);
                p_value(&shifted(clusters(&mut rng, n), RIGHT - LEFT)).unwrap()
            })
            .collect();
        for (level, allowed) in [(0.05, 0.01..=0.1), (0.2, 0.13..=0.28), (0.5, 0.4..=0.6)] {
            let below = values.iter().filter(|&&p| p <= level).count() as f64 / 400.0;
            assert!(
                allowed.contains(&below),
                "{n} clusters: {below} below {level}"
            );
        }
    }
}

#[test]
fn p_values_say_what_intervals_say() {
    let step = 2.0 / (BOOTSTRAP.resamples + 1) as f64;
    for simulation in 0..200 {
        let mut rng = ChaCha8Rng::seed_from_u64(simulation);
        let n = rng.random_range(2..30);
        let effect = rng.random_range(-0.2..0.2);
        let sample = shifted(clusters(&mut rng, n), RIGHT - LEFT + effect);
        let p = p_value(&sample).unwrap();
        let excludes_zero = single(&sample, Statistic::Difference).excludes_zero();
        assert!((step..=1.0).contains(&p));
        // Percentiles interpolate, counts of draws do not.
        assert!(p > 0.05 || excludes_zero, "{n} clusters, p = {p}");
        assert!(
            p <= 0.05 + 2.0 * step || !excludes_zero,
            "{n} clusters, p = {p}"
        );
    }
}

#[test]
fn p_values_of_all_and_nothing() {
    let sample = clusters(&mut ChaCha8Rng::seed_from_u64(6), 40);
    let lowest = 2.0 / (BOOTSTRAP.resamples + 1) as f64;
    assert_eq!(p_value(&sample), Some(lowest));
    assert_eq!(p_value(&shifted(sample.clone(), -5.0)), Some(lowest));
    let mut same = sample;
    for cluster in &mut same {
        cluster.right = cluster.left;
    }
    assert_eq!(p_value(&same), Some(1.0));
}
