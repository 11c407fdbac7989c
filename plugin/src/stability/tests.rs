use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use router_stats::family::Skip;
use router_stats::stats::{DomainProvenance, Merge, Provenance, Table};

use super::*;
use crate::plan::{fixture, ExpertBudget};
use crate::saliency::Ranking;

/// A part of one domain of a model with one layer, with so many tokens routed
/// to each expert.
fn part(name: &str, counts: Vec<f64>) -> Stats {
    let experts = counts.len();
    let domain = DomainProvenance {
        name: "d".to_owned(),
        weight: 1.0,
        tokens: 100,
        sequences: 1,
        documents: 1,
    };
    let provenance = Provenance {
        model: "m".to_owned(),
        fingerprint: "f".to_owned(),
        family: "qwen3_moe".to_owned(),
        corpus: name.to_owned(),
        domains: vec![domain],
        seq_len: 100,
        batch_tokens: 100,
        seed: 0,
        experts: vec![experts],
        top_k: 1,
        hidden: 1,
        shards: vec![[0, 1]],
        created_by: "test".to_owned(),
    };
    let counts = Table {
        shape: vec![1, 1, experts],
        values: counts,
        merge: Merge::Sum,
    };
    Stats {
        provenance,
        tables: BTreeMap::from([(routing::COUNT.to_owned(), counts)]),
    }
}

/// Parts whose counts are what `count` makes of an expert and a uniform number.
fn parts(count: usize, experts: usize, of: impl Fn(usize, f64) -> f64) -> Parts {
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let part = |index: usize| {
        let counts = (0..experts).map(|expert| of(expert, rng.random()));
        part(&index.to_string(), counts.collect())
    };
    Parts::new((0..count).map(part).collect()).unwrap()
}

/// Keeps the half of the experts that most tokens were routed to.
fn half(stats: &Stats) -> Result<Vec<LayerPlan>> {
    let scores = stats.table(routing::COUNT)?.values.clone();
    let (kept, removed) = Ranking::new(&scores, &[], 1).split(scores.len() / 2);
    Ok(vec![LayerPlan {
        layer: 0,
        dropped: false,
        skipped: Skip::default(),
        block_influence: 0.5,
        kept,
        removed,
        scores,
    }])
}

#[test]
fn experts_far_apart_stay_whatever_is_drawn() {
    let apart = parts(8, 10, |expert, noise| 10.0 * expert as f64 + noise);
    let found = stability(&apart, 0, &mut half).unwrap();
    assert_eq!((found.parts, found.draws), (8, DRAWS));
    assert_eq!(
        (found.jaccard, found.jaccard_low, found.undecided),
        (1.0, 1.0, 0)
    );
    let layer = &found.layers[0];
    assert_eq!((layer.kept, layer.dropped, layer.jaccard), (5, 0.0, 1.0));
    // Only the two at the cut are told.
    let around: Vec<_> = layer
        .around
        .iter()
        .map(|it| (it.expert, it.share))
        .collect();
    assert_eq!(around, [(5, 1.0), (4, 0.0)]);
    for it in &layer.around {
        let [low, high] = it.interval;
        assert!(
            low < it.score && it.score < high && high - low < 8.0,
            "{it:?}"
        );
    }
}

#[test]
fn of_noise_alone_stays_what_the_shared_text_explains() {
    // A draw is the whole and as much noise again, so their correlation is
    // ρ = √½. Both keep an expert with probability ¼ + asin(ρ) / 2π = ⅜ (Sheppard
    // 1899), three quarters of those that one keeps: an index of 0.6.
    let noise = parts(16, 600, |_, noise| 100.0 + noise);
    let found = stability(&noise, 0, &mut half).unwrap();
    assert!((found.jaccard - 0.6).abs() < 0.03, "{}", found.jaccard);
    assert!(found.jaccard_low < found.jaccard);
    assert!(found.undecided > 400, "{}", found.undecided);
    assert_eq!(found, stability(&noise, 0, &mut half).unwrap());
    assert_ne!(
        found.jaccard,
        stability(&noise, 1, &mut half).unwrap().jaccard
    );
}

#[test]
fn more_parts_of_the_same_text_decide_more() {
    let index = |count: usize| {
        let some = parts(count, 100, |expert, noise| expert as f64 / 50.0 + noise);
        stability(&some, 0, &mut half).unwrap().jaccard
    };
    let indices = [4, 16, 64].map(index);
    assert!(indices.is_sorted() && indices[2] > 0.9, "{indices:?}");
}

#[test]
fn what_is_in_one_part_is_not_varied() {
    let mut apart = parts(3, 6, |expert, noise| expert as f64 + noise).into_parts();
    for (index, part) in apart.iter_mut().enumerate() {
        let mut rare = part.provenance.domains[0].clone();
        rare.name = "rare".to_owned();
        rare.tokens = if index == 1 { 9 } else { 0 };
        part.provenance.domains.push(rare);
        let table = part.tables.get_mut(routing::COUNT).unwrap();
        table.shape[0] = 2;
        table.values.extend([index as f64; 6]);
    }
    let mut rare = Vec::new();
    let found = stability(&Parts::new(apart.clone()).unwrap(), 0, &mut |stats| {
        rare.push(stats.table(routing::COUNT)?.row(&[1])[0]);
        half(&part(
            "draw",
            stats.table(routing::COUNT)?.row(&[0]).to_vec(),
        ))
    });
    assert_eq!(found.unwrap().fixed, ["rare"]);
    // All of it, and in every draw that one part, once.
    assert_eq!(rare[0], 0.0 + 1.0 + 2.0);
    assert!(rare[1..].iter().all(|&count| count == 1.0));

    let alone = Parts::new(apart.drain(..1).collect()).unwrap();
    let error = stability(&alone, 0, &mut half).unwrap_err();
    assert!(matches!(error, Error::OnePart) && error.is_usage());
    assert!(error.hint().is_some());
}

#[test]
fn the_sum_of_a_draw_varies_as_a_sum_of_parts_does() {
    let counts = [3.0, 5.0, 4.0, 9.0, 1.0];
    let all = counts.map(|count| part(&count.to_string(), vec![count]));
    let mut draws = draw::Draws::new(&Parts::new(all.to_vec()).unwrap(), 0);
    let sums: Vec<f64> = (0..20_000)
        .map(|_| {
            let weights = draws.next();
            let total: f64 = weights.iter().map(|weights| weights[0]).sum();
            assert!((total - 5.0).abs() < 1e-12);
            let weighed = counts.iter().zip(&weights);
            weighed.map(|(count, weights)| count * weights[0]).sum()
        })
        .collect();
    let moments = |values: &[f64]| {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        (mean, squares / (n - 1.0))
    };
    let ((mean, variance), (_, of_one)) = (moments(&sums), moments(&counts));
    assert!((mean - 22.0).abs() < 0.2, "{mean}");
    // Of a sum of five: five times that of one.
    assert!((variance / (5.0 * of_one) - 1.0).abs() < 0.05, "{variance}");
}

#[test]
fn parts_of_different_sizes_vary_no_more_for_that() {
    // The same text in every part, of some more than of others.
    let apart = [1.0, 1.0, 2.0, 6.0].map(|size| {
        let mut part = part(&size.to_string(), vec![size * 2.0, size * 3.0]);
        part.provenance.domains[0].tokens = size as u64 * 100;
        part
    });
    let mut apart = apart.to_vec();
    // Not the same text twice, only one like it.
    apart[1].provenance.corpus.push('b');
    let parts = Parts::new(apart).unwrap();
    let mut draws = draw::Draws::new(&parts, 0);
    for _ in 0..50 {
        let drawn = parts.weighed(&draws.next());
        let counts = &drawn.tables[routing::COUNT].values;
        let expected = [20.0, 30.0];
        let near = counts
            .iter()
            .zip(expected)
            .all(|(a, b)| (a - b).abs() < 1e-9);
        assert!(near, "{counts:?}");
    }
}

#[test]
fn a_layer_that_goes_keeps_nothing() {
    let layer = |layer, dropped, kept: &[usize]| LayerPlan {
        layer,
        dropped,
        skipped: Skip::default(),
        block_influence: 0.5,
        kept: kept.to_vec(),
        removed: (0..4).filter(|expert| !kept.contains(expert)).collect(),
        scores: vec![1.0, 4.0, 3.0, 2.0],
    };
    let all = [layer(0, false, &[1, 2]), layer(1, true, &[1, 2])];
    let other = [layer(0, false, &[1, 3]), layer(1, false, &[1, 2])];
    assert_eq!(jaccard(&all, &all), 1.0);
    // One in common; two, one more and the two of the layer.
    assert_eq!(jaccard(&all, &other), 1.0 / 5.0);
    assert_eq!(jaccard(&all[1..], &all[1..]), 1.0);

    let found = measure::measure(
        &all,
        &[all.to_vec(), all.to_vec(), other.to_vec(), other.to_vec()],
    );
    assert_eq!((found.experts, found.undecided), (8, 4));
    assert!((found.jaccard - 0.6).abs() < 1e-12);
    let [first, second] = &found.layers[..] else {
        panic!("{found:?}")
    };
    assert_eq!((first.kept, second.kept), (2, 0));
    assert_eq!((first.dropped, second.dropped), (0.0, 0.5));
    assert!((first.jaccard - 2.0 / 3.0).abs() < 1e-12);
    assert_eq!(second.jaccard, 0.5);
    let shares = |layer: &LayerStability| -> Vec<(usize, f64)> {
        layer
            .around
            .iter()
            .map(|it| (it.expert, it.share))
            .collect()
    };
    assert_eq!(shares(first), [(2, 0.5), (3, 0.5)]);
    assert_eq!(shares(second), [(1, 0.5), (2, 0.5)]);
}

#[test]
fn every_constraint_of_a_plan_counts() {
    let model = fixture::model(fixture::Stored::PerExpert);
    let fingerprint = model.checkpoint.fingerprint().unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let part = |index: usize| {
        let mut stats = fixture::stats(&fingerprint);
        stats.provenance.shards = vec![[index, 8]];
        let norms = stats.tables.get_mut(expert::GATED_NORM).unwrap();
        norms
            .values
            .iter_mut()
            .for_each(|norm| *norm *= rng.random_range(0.2..1.8));
        stats
    };
    let parts = Parts::new((0..8).map(part).collect()).unwrap();
    let found = |options: PlanOptions| {
        let (checkpoint, topology) = (&model.checkpoint, &model.topology);
        let mut decide = |stats: &Stats| {
            let plan = crate::plan::plan(stats, checkpoint, model.family, topology, &options)?;
            Ok(plan.plan().layers.clone())
        };
        stability(&parts, 0, &mut decide).unwrap()
    };
    let half = PlanOptions {
        experts: Some(ExpertBudget::Fraction(0.5)),
        ..PlanOptions::default()
    };
    let free = found(half.clone());
    assert_eq!((free.experts, free.layers.len()), (18, 3));
    assert!(free.jaccard < 1.0);
    // The weakest of layer 0 stays in every draw if it is protected.
    let protect = vec!["0:0".parse().unwrap()];
    let held = found(PlanOptions { protect, ..half });
    let weakest = held.layers[0].around.iter().rfind(|it| it.kept);
    assert_eq!(weakest.map(|it| (it.expert, it.share)), Some((0, 1.0)));
}

#[test]
fn a_loss_is_not_decided_by_statistics() {
    let options = PlanOptions {
        max_loss: Some(0.02),
        ..PlanOptions::default()
    };
    let error = check(&options).unwrap_err();
    assert!(error.is_usage() && error.to_string().contains("--max-loss"));
    assert!(check(&PlanOptions::default()).is_ok());
}
