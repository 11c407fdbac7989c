//! Every rule against an f64 oracle that ranks by counting, and masked against
//! sliced.

use proptest::prelude::*;

use super::*;
use crate::family::Groups;

fn rule(top_k: usize, renormalize: bool) -> RouterRule {
    RouterRule::softmax(top_k, renormalize)
}

#[test]
fn gates_are_the_softmax_of_the_chosen_and_renormalise() {
    let logits = vec![1.0, 3.0, 2.0, 0.0];
    let exp: Vec<f64> = logits.iter().map(|&z: &f32| f64::from(z).exp()).collect();
    let total: f64 = exp.iter().sum();
    let plain = route(&rule(2, false), 4, logits.clone(), None, None);
    assert_eq!(plain.experts, [1, 2]);
    assert!((f64::from(plain.gates[0]) - exp[1] / total).abs() < 1e-6);
    assert!((f64::from(plain.gates[1]) - exp[2] / total).abs() < 1e-6);
    let renormalised = route(&rule(2, true), 4, logits, None, None);
    assert!((f64::from(renormalised.gates[0]) - exp[1] / (exp[1] + exp[2])).abs() < 1e-6);
}

#[test]
fn masked_experts_are_as_good_as_absent() {
    let full = route(
        &rule(2, false),
        4,
        vec![1.0, 3.0, 2.0, 0.0],
        None,
        Some(&[true, false, true, true]),
    );
    let sliced = route(&rule(2, false), 3, vec![1.0, 2.0, 0.0], None, None);
    assert_eq!(full.experts, [2, 0]);
    assert_eq!(full.gates, sliced.gates);
    assert_eq!(full.scores[1], 0.0);
}

#[test]
fn ties_go_to_the_lower_index() {
    let routes = route(&rule(2, true), 4, vec![5.0, 7.0, 7.0, 7.0], None, None);
    assert_eq!(routes.experts, [1, 2]);
}

#[test]
fn assignments_are_grouped_by_expert_with_their_gates() {
    let logits = vec![9.0, 8.0, 0.0, 0.0, 9.0, 8.0, 8.0, 0.0, 9.0];
    let routes = route(&rule(2, true), 3, logits, None, None);
    let mut seen = 0;
    for expert in 0..3 {
        let (rows, gates) = routes.assigned(expert);
        assert!(rows.windows(2).all(|pair| pair[0] < pair[1]));
        for (&row, &gate) in rows.iter().zip(gates) {
            let row = row as usize;
            let slot = (0..2)
                .find(|slot| routes.experts[row * 2 + slot] == expert as u32)
                .unwrap();
            assert_eq!(gate, routes.gates[row * 2 + slot]);
            seen += 1;
        }
    }
    assert_eq!(seen, 6);
}

#[test]
fn experts_are_ordered_by_gate_value_not_by_bias() {
    let mut rule = rule(2, true);
    rule.scoring = Scoring::Sigmoid;
    rule.correction_bias = true;
    rule.scale = 2.5;
    let logits = vec![1.0, -1.0, 2.0, 0.0];
    let routes = route(&rule, 4, logits, Some(&[0.0, 0.9, 0.0, 0.7]), None);
    // σ + bias: 0.73, 1.17, 0.88, 1.2.
    assert_eq!(routes.experts, [3, 1]);
    let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
    let sum = sigmoid(0.0) + sigmoid(-1.0);
    for (&gate, z) in routes.gates.iter().zip([0.0, -1.0]) {
        assert!((f64::from(gate) - 2.5 * sigmoid(z) / sum).abs() < 1e-6);
    }
    assert!((f64::from(routes.scores[2]) - sigmoid(2.0)).abs() < 1e-6);
}

#[test]
fn sigmoids_of_nothing_renormalise_to_finite_gates() {
    let mut rule = rule(2, true);
    rule.scoring = Scoring::Sigmoid;
    let routes = route(&rule, 3, vec![-300.0; 3], None, None);
    assert!(routes.gates.iter().all(|gate| gate.is_finite()));
}

/// A rule and the inputs of a few rows of it.
#[derive(Debug, Clone)]
struct Case {
    rule: RouterRule,
    experts: usize,
    logits: Vec<f32>,
    bias: Option<Vec<f32>>,
    /// As many experts of every group, enough for the rule.
    keep: Vec<bool>,
}

impl Case {
    fn route(&self, keep: Option<&[bool]>) -> Routes {
        let (logits, bias) = (self.logits.clone(), self.bias.as_deref());
        route(&self.rule, self.experts, logits, bias, keep)
    }

    /// The same router without the rows of the experts that go.
    fn sliced(&self) -> Routes {
        let slice = |row: &[f32]| -> Vec<f32> {
            let kept = row.iter().zip(&self.keep).filter(|(_, &keep)| keep);
            kept.map(|(&value, _)| value).collect()
        };
        let rows = self.logits.chunks_exact(self.experts);
        let logits = rows.flat_map(slice).collect();
        let bias = self.bias.as_deref().map(slice);
        let left = self.keep.iter().filter(|&&keep| keep).count();
        route(&self.rule, left, logits, bias.as_deref(), None)
    }
}

fn rules() -> impl Strategy<Value = RouterRule> {
    let scoring = prop_oneof![
        Just(Scoring::Softmax),
        Just(Scoring::Sigmoid),
        Just(Scoring::SparseMixer { jitter: 0.07 }),
    ];
    let groups = (2..5_usize, any::<bool>()).prop_flat_map(|(count, best)| {
        (1..count).prop_map(move |chosen| Groups {
            count,
            chosen,
            score: if best {
                GroupScore::Best
            } else {
                GroupScore::BestTwo
            },
        })
    });
    let scale = prop::sample::select(vec![1.0, 2.5]);
    let flags = (any::<bool>(), any::<bool>());
    (1..5_usize, scoring, prop::option::of(groups), flags, scale).prop_map(
        |(top_k, scoring, groups, (correction_bias, renormalize), scale)| {
            // Nobody groups the experts of a sparse mixer.
            let mixes = matches!(scoring, Scoring::SparseMixer { .. });
            RouterRule {
                top_k,
                scoring,
                correction_bias: correction_bias && !mixes,
                groups: groups.filter(|_| !mixes),
                renormalize,
                scale,
            }
        },
    )
}

fn cases() -> impl Strategy<Value = Case> {
    (rules(), 0..4_usize, 0..6_usize).prop_flat_map(|(rule, spare, removed)| {
        let groups = rule.group_count();
        let kept = rule.floor() / groups + spare;
        let size = kept + removed;
        let experts = groups * size;
        // A coarse grid, so that equal logits happen, but none of opposite
        // sign: σ(z) + σ(−z) = 1 would tie groups in f64 alone.
        let logits = prop::collection::vec(
            (-48..=48_i8).prop_map(|z| f32::from(z) / 8.0 + 0.03),
            8 * experts,
        );
        let bias = prop::collection::vec(-0.5..0.5_f32, experts);
        let order: Vec<usize> = (0..size).collect();
        let orders = prop::collection::vec(Just(order).prop_shuffle(), groups);
        (logits, bias, orders).prop_map(move |(logits, bias, orders)| Case {
            bias: rule.correction_bias.then_some(bias),
            rule: rule.clone(),
            experts,
            logits,
            keep: orders
                .concat()
                .into_iter()
                .map(|rank| rank < kept)
                .collect(),
        })
    })
}

/// Chosen experts and their gate values.
type Gated = Vec<(u32, f64)>;

/// What one row of a case routes to, and the scores of all experts, in f64.
/// `None` if f32 could choose otherwise.
fn oracle(case: &Case, row: usize, keep: &[bool]) -> Option<(Gated, Vec<f64>)> {
    let rule = &case.rule;
    let z: Vec<f64> = case.logits[row * case.experts..][..case.experts]
        .iter()
        .map(|&z| f64::from(z))
        .collect();
    let there: Vec<usize> = (0..case.experts).filter(|&j| keep[j]).collect();
    let total: f64 = there.iter().map(|&j| z[j].exp()).sum();
    let score = |j: usize| match rule.scoring {
        _ if !keep[j] => 0.0,
        Scoring::Sigmoid => 0.5 + 0.5 * (0.5 * z[j]).tanh(),
        _ => z[j].exp() / total,
    };
    let scores = (0..case.experts).map(score).collect();
    let gated: Gated = match rule.scoring {
        Scoring::SparseMixer { jitter } => mixed(&z, there, jitter, rule.top_k),
        _ => {
            let bias = |j: usize| case.bias.as_ref().map_or(0.0, |bias| f64::from(bias[j]));
            let choice = |&j: &usize| score(j) + bias(j);
            let allowed: Vec<usize> = match rule.groups {
                None => there,
                Some(groups) => {
                    let size = case.experts / groups.count;
                    let members = |group: usize| there.iter().filter(move |&&j| j / size == group);
                    let scored = |group: &usize| {
                        let mut values: Vec<f64> = members(*group).map(choice).collect();
                        values.sort_by(f64::total_cmp);
                        values.reverse();
                        match groups.score {
                            GroupScore::Best => values[0],
                            GroupScore::BestTwo => values[0] + values[1],
                        }
                    };
                    let all: Vec<usize> = (0..groups.count).collect();
                    let chosen = winners(&all, scored, groups.chosen)?;
                    chosen.into_iter().flat_map(members).copied().collect()
                }
            };
            let chosen = winners(&allowed, choice, rule.top_k)?;
            chosen.into_iter().map(|j| (j as u32, score(j))).collect()
        }
    };
    let sum: f64 = gated.iter().map(|&(_, gate)| gate).sum();
    let by = rule.scale / if rule.renormalize { sum } else { 1.0 };
    let gates = gated.into_iter().map(|(j, gate)| (j, gate * by)).collect();
    Some((gates, scores))
}

/// Those of `from` that fewer than `count` others beat, where a larger value
/// beats, and of equal ones the lower index. `None` if two values are nearly
/// equal.
fn winners(from: &[usize], value: impl Fn(&usize) -> f64, count: usize) -> Option<Vec<usize>> {
    let values: Vec<f64> = from.iter().map(&value).collect();
    let near = |a: f64, b: f64| a != b && (a - b).abs() < 1e-6 * a.abs().max(b.abs());
    if values.iter().any(|&a| values.iter().any(|&b| near(a, b))) {
        return None;
    }
    let beaten_by = |i: usize| {
        let beats = |j: usize| values[j] > values[i] || (values[j] == values[i] && j < i);
        (0..from.len()).filter(|&j| beats(j)).count()
    };
    let winners = (0..from.len()).filter(|&i| beaten_by(i) < count);
    Some(winners.map(|i| from[i]).collect())
}

fn mixed(z: &[f64], mut there: Vec<usize>, jitter: f64, top_k: usize) -> Gated {
    let mut gates = Vec::new();
    for _ in 0..top_k {
        let best = there.iter().map(|&j| z[j]).fold(f64::MIN, f64::max);
        let close = |&&j: &&usize| best - z[j] <= 2.0 * jitter * z[j].abs().max(best);
        let sum: f64 = there.iter().filter(close).map(|&j| z[j].exp()).sum();
        let place = there.iter().position(|&j| z[j] == best).unwrap();
        gates.push((there.remove(place) as u32, best.exp() / sum));
    }
    gates
}

proptest! {
    #[test]
    fn every_rule_routes_as_its_oracle(case in cases(), masked: bool) {
        let keep = if masked { case.keep.clone() } else { vec![true; case.experts] };
        let routes = case.route(masked.then_some(&keep));
        let k = case.rule.top_k;
        let close = |a: f32, b: f64| (f64::from(a) - b).abs() <= 2e-6 * b.abs().max(1e-3);
        for row in 0..8 {
            let found = routes.experts[row * k..][..k].iter().zip(&routes.gates[row * k..][..k]);
            let found: Vec<(u32, f32)> = found.map(|(&expert, &gate)| (expert, gate)).collect();
            prop_assert!(found.windows(2).all(|pair| pair[0].1 >= pair[1].1));
            let Some((expected, scores)) = oracle(&case, row, &keep) else {
                continue;
            };
            for &(expert, gate) in &expected {
                let same = found.iter().find(|&&(other, _)| other == expert);
                prop_assert!(same.is_some_and(|&(_, found)| close(found, gate)), "{expected:?} {found:?}");
            }
            for (&found, expected) in routes.scores[row * case.experts..].iter().zip(scores) {
                prop_assert!(close(found, expected), "{found} {expected}");
            }
        }
    }

    #[test]
    fn masked_is_sliced_for_every_rule(case in cases()) {
        let masked = case.route(Some(&case.keep));
        let sliced = case.sliced();
        let kept: Vec<u32> = (0..case.experts as u32).filter(|&j| case.keep[j as usize]).collect();
        let renamed: Vec<u32> = sliced.experts.iter().map(|&j| kept[j as usize]).collect();
        prop_assert_eq!(&masked.experts, &renamed);
        prop_assert_eq!(&masked.gates, &sliced.gates);
        let rows = masked.scores.chunks_exact(case.experts);
        for (masked, sliced) in rows.zip(sliced.scores.chunks_exact(kept.len())) {
            for (new, &old) in kept.iter().enumerate() {
                prop_assert_eq!(masked[old as usize], sliced[new]);
            }
            let removed = masked.iter().zip(&case.keep).filter(|(_, &keep)| !keep);
            prop_assert!(removed.into_iter().all(|(&score, _)| score == 0.0));
        }
    }
}
