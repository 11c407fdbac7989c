//! What criteria keep of routers that a plain softmax would score wrongly.
//!
//! Each case is a handful of tokens with router logits and output norms. An
//! oracle in f64, which tries every pair of experts, says what has to stay.

use router_stats::family::{GroupScore, Groups, RouterRule, Scoring};
use router_stats::forward::{route, Routes};
use router_stats::stats::LayerStats;

use super::{criterion, Ranking};

/// Two experts and their gate values.
type Pair = [(usize, f64); 2];

/// Statistics of a layer whose expert j always has outputs of norm `norms[j]`.
fn stats(routes: &Routes, norms: &[f64]) -> LayerStats {
    let gates = |expert| routes.assigned(expert).1.iter().map(|&g| f64::from(g));
    let sums = |value: &dyn Fn(usize, f64) -> f64| -> Vec<f64> {
        (0..norms.len())
            .map(|expert| gates(expert).map(|gate| value(expert, gate)).sum())
            .collect()
    };
    let scores = routes.scores.chunks_exact(norms.len());
    LayerStats {
        layer: 0,
        experts: norms.len(),
        tokens: scores.len() as f64,
        count: sums(&|_, _| 1.0),
        gate: sums(&|_, gate| gate),
        gate_sq: sums(&|_, gate| gate * gate),
        soft_gate: scores.fold(vec![0.0; norms.len()], |mut sums, row| {
            for (sum, &score) in sums.iter_mut().zip(row) {
                *sum += f64::from(score);
            }
            sums
        }),
        norm: sums(&|expert, _| norms[expert]),
        norm_sq: sums(&|expert, _| norms[expert].powi(2)),
        gated_norm: sums(&|expert, gate| gate * norms[expert]),
        gated_norm_sq: sums(&|expert, gate| (gate * norms[expert]).powi(2)),
        max: norms.to_vec(),
    }
}

/// What `criterion` keeps of a layer routed by `rule`.
fn kept(
    name: &str,
    rule: &RouterRule,
    tokens: &[f32],
    bias: Option<&[f32]>,
    norms: &[f64],
    [count, groups]: [usize; 2],
) -> Vec<usize> {
    let routes = route(rule, norms.len(), tokens.to_vec(), bias, None);
    let scores = criterion(name).unwrap().score(&stats(&routes, norms), 0);
    Ranking::new(&scores, &[], groups).split(count / groups).0
}

/// What has to stay: experts that fewer than `count / groups` others of their
/// group beat, by Σ g‖f‖ / N and by Σ g.
fn expected(pairs: &[Pair], norms: &[f64], [count, groups]: [usize; 2]) -> [Vec<usize>; 2] {
    let of = |expert: usize| {
        let pairs = pairs.iter().flatten();
        pairs.filter(move |(chosen, _)| *chosen == expert)
    };
    let mass = |expert: usize| of(expert).map(|(_, gate)| gate).sum::<f64>();
    let reap = |expert| norms[expert] * mass(expert) / of(expert).count().max(1) as f64;
    let size = norms.len() / groups;
    let best = |score: &dyn Fn(usize) -> f64| {
        let stays = |&expert: &usize| {
            let rivals = (0..norms.len()).filter(|rival| rival / size == expert / size);
            rivals.filter(|&rival| score(rival) > score(expert)).count() < count / groups
        };
        (0..norms.len()).filter(stays).collect()
    };
    [best(&reap), best(&mass)]
}

/// The pair i < j of 0..n with the largest `value`.
fn best_pair(n: usize, value: impl Fn(usize, usize) -> Option<f64>) -> (usize, usize) {
    let pairs = (0..n).flat_map(|j| (0..j).map(move |i| (i, j)));
    let valued = pairs.filter_map(|(i, j)| Some((value(i, j)?, (i, j))));
    valued.max_by(|a, b| a.0.total_cmp(&b.0)).unwrap().1
}

fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

#[test]
fn a_sigmoid_router_with_bias_and_groups_keeps_other_experts_than_a_softmax() {
    const EXPERTS: usize = 8;
    const KEEP: [usize; 2] = [4, 2];
    #[rustfmt::skip]
    let tokens: [f32; 6 * EXPERTS] = [
        -1.5, 1.5, 0.25, -0.25, -0.5, -1.0, -0.75, -2.0,
        -0.75, -2.0, -1.25, 1.25, 1.75, -2.0, -2.0, -0.75,
        -1.75, -0.5, -1.25, -0.5, 2.0, -1.75, 0.5, -1.5,
        -1.0, -0.25, -2.0, -2.0, 1.0, 0.25, 2.0, -1.5,
        -0.25, -0.5, -0.75, 0.0, 0.25, 1.5, 0.5, -0.75,
        0.5, 0.5, 0.75, 0.0, 1.0, 0.25, -2.0, 0.5,
    ];
    let bias = [-0.2, 0.4, -0.2, -0.4, -0.2, -0.2, -0.2, 0.4];
    let norms = [2.0, 2.0, 1.0, 3.0, 3.0, 3.0, 2.0, 3.0];
    let rule = RouterRule {
        top_k: 2,
        scoring: Scoring::Sigmoid,
        correction_bias: true,
        groups: Some(Groups {
            count: 2,
            chosen: 1,
            score: GroupScore::BestTwo,
        }),
        renormalize: true,
        scale: 2.5,
    };
    // One group of two is chosen by its two best, which are then the experts.
    let pairs: Vec<Pair> = tokens
        .chunks(EXPERTS)
        .map(|z| {
            let score = |j: usize| sigmoid(f64::from(z[j]));
            let choice = |j: usize| score(j) + f64::from(bias[j]);
            let (i, j) = best_pair(EXPERTS, |i, j| {
                (i / 4 == j / 4).then(|| choice(i) + choice(j))
            });
            let sum = score(i) + score(j);
            [(i, 2.5 * score(i) / sum), (j, 2.5 * score(j) / sum)]
        })
        .collect();
    let softmax = RouterRule::softmax(2, true);
    let expected = expected(&pairs, &norms, KEEP);
    assert_eq!(expected, [[1, 2, 4, 5], [1, 2, 4, 7]]);
    for (name, expected) in ["reap", "gate-mass"].into_iter().zip(expected) {
        let ours = kept(name, &rule, &tokens, Some(&bias), &norms, KEEP);
        let plain = kept(name, &softmax, &tokens, None, &norms, KEEP);
        assert_eq!(ours, expected, "{name}");
        assert_ne!(plain, expected, "{name}");
    }
}

#[test]
fn a_renormalised_router_keeps_other_experts_than_one_that_is_not() {
    const EXPERTS: usize = 4;
    const KEEP: [usize; 2] = [2, 1];
    // Four undecided tokens, whose two best have little of the softmax, and two
    // decided ones.
    #[rustfmt::skip]
    let tokens: [f32; 6 * EXPERTS] = [
        0.5, 0.0, 0.4, -0.1,
        0.6, 0.1, 0.5, 0.0,
        0.5, -0.1, 0.4, 0.0,
        0.4, 0.0, 0.35, -0.2,
        -3.0, 3.0, -3.5, 1.0,
        -2.5, 3.5, -3.0, 1.5,
    ];
    let norms = [3.0, 1.5, 3.5, 1.0];
    // A softmax over two is a sigmoid of their difference.
    let pairs: Vec<Pair> = tokens
        .chunks(EXPERTS)
        .map(|z| {
            let z = |j: usize| f64::from(z[j]);
            let (i, j) = best_pair(EXPERTS, |i, j| Some(z(i) + z(j)));
            [(i, sigmoid(z(i) - z(j))), (j, sigmoid(z(j) - z(i)))]
        })
        .collect();
    let expected = expected(&pairs, &norms, KEEP);
    assert_eq!(expected, [[0, 2], [0, 2]]);
    for (name, expected) in ["reap", "gate-mass"].into_iter().zip(expected) {
        let with = |renormalize| {
            let rule = RouterRule::softmax(2, renormalize);
            kept(name, &rule, &tokens, None, &norms, KEEP)
        };
        assert_eq!(with(true), expected, "{name}");
        assert_ne!(with(false), expected, "{name}");
    }
}
