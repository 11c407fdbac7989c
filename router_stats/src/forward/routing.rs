//! From router logits to experts and the gate values that are really applied.

use rayon::prelude::*;

use super::simd;
use crate::family::{RouterRule, Scoring};

/// Where every row of a batch is routed.
#[derive(Debug, Clone, PartialEq)]
pub struct Routes {
    /// Experts per row, k.
    pub top_k: usize,
    /// Chosen experts, best first: N × k.
    pub experts: Vec<u32>,
    /// Gate value of each: N × k.
    pub gates: Vec<f32>,
    /// Scores of all experts before the choice, softmax(z) for softmax
    /// routers: N × E. Masked experts have 0.
    pub scores: Vec<f32>,
    /// Row of each assignment, grouped by expert and ascending inside it.
    by_expert_rows: Vec<u32>,
    /// Gate value of each assignment, in the same order.
    by_expert_gates: Vec<f32>,
    /// First assignment of each expert: length E + 1.
    starts: Vec<usize>,
}

impl Routes {
    /// Number of experts, E.
    pub fn expert_count(&self) -> usize {
        self.starts.len() - 1
    }

    /// Rows routed to `expert`, ascending, and their gate values.
    pub fn assigned(&self, expert: usize) -> (&[u32], &[f32]) {
        let range = self.starts[expert]..self.starts[expert + 1];
        (
            &self.by_expert_rows[range.clone()],
            &self.by_expert_gates[range],
        )
    }
}

/// Routes every row of `logits` (N × E, row-major).
///
/// The k experts with the largest logits are chosen; of equal ones, the lower
/// index. Experts that `keep` marks false take part with a logit of −∞, as if
/// the router had no row for them.
pub fn route(
    rule: &RouterRule,
    experts: usize,
    mut logits: Vec<f32>,
    keep: Option<&[bool]>,
) -> Routes {
    let k = rule.top_k;
    let rows = logits.len() / experts;
    let mut chosen = vec![0u32; rows * k];
    let mut gates = vec![0f32; rows * k];
    logits
        .par_chunks_mut(experts)
        .zip(chosen.par_chunks_mut(k))
        .zip(gates.par_chunks_mut(k))
        .with_min_len(64)
        .for_each(|((logits, chosen), gates)| {
            if let Some(keep) = keep {
                for (logit, &keep) in logits.iter_mut().zip(keep) {
                    if !keep {
                        *logit = f32::NEG_INFINITY;
                    }
                }
            }
            largest(logits, chosen);
            match rule.scoring {
                Scoring::Softmax => simd::dispatch(
                    #[inline(always)]
                    || softmax(logits),
                ),
                Scoring::Sigmoid | Scoring::SparseMixer { .. } => unreachable!(),
            }
            for (gate, &expert) in gates.iter_mut().zip(chosen.iter()) {
                *gate = logits[expert as usize];
            }
            if rule.renormalize {
                let sum: f32 = gates.iter().sum();
                gates.iter_mut().for_each(|gate| *gate /= sum);
            }
        });
    group_by_expert(k, experts, chosen, gates, logits)
}

/// Indices of the `chosen.len()` largest values, largest first.
fn largest(values: &[f32], chosen: &mut [u32]) {
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

/// softmax in place, f32, the maximum subtracted first; 0 for −∞.
#[inline(always)]
fn softmax(logits: &mut [f32]) {
    let max = simd::max(logits);
    for logit in logits.iter_mut() {
        let weight = simd::exp(*logit - max);
        *logit = if *logit == f32::NEG_INFINITY {
            0.0
        } else {
            weight
        };
    }
    let sum: f32 = logits.iter().sum();
    logits.iter_mut().for_each(|p| *p /= sum);
}

/// Counting sort of the assignments by expert.
fn group_by_expert(
    top_k: usize,
    count: usize,
    experts: Vec<u32>,
    gates: Vec<f32>,
    scores: Vec<f32>,
) -> Routes {
    let mut starts = vec![0usize; count + 1];
    for &expert in &experts {
        starts[expert as usize + 1] += 1;
    }
    for expert in 0..count {
        starts[expert + 1] += starts[expert];
    }
    let mut next = starts.clone();
    let mut by_expert_rows = vec![0u32; experts.len()];
    let mut by_expert_gates = vec![0f32; experts.len()];
    for (assignment, (&expert, &gate)) in experts.iter().zip(&gates).enumerate() {
        let place = &mut next[expert as usize];
        by_expert_rows[*place] = (assignment / top_k) as u32;
        by_expert_gates[*place] = gate;
        *place += 1;
    }
    Routes {
        top_k,
        experts,
        gates,
        scores,
        by_expert_rows,
        by_expert_gates,
        starts,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(top_k: usize, renormalize: bool) -> RouterRule {
        RouterRule::softmax(top_k, renormalize)
    }

    #[test]
    fn gates_are_the_softmax_of_the_chosen_and_renormalise() {
        let logits = vec![1.0, 3.0, 2.0, 0.0];
        let exp: Vec<f64> = logits.iter().map(|&z: &f32| f64::from(z).exp()).collect();
        let total: f64 = exp.iter().sum();
        let plain = route(&rule(2, false), 4, logits.clone(), None);
        assert_eq!(plain.experts, [1, 2]);
        assert!((f64::from(plain.gates[0]) - exp[1] / total).abs() < 1e-6);
        assert!((f64::from(plain.gates[1]) - exp[2] / total).abs() < 1e-6);
        let renormalised = route(&rule(2, true), 4, logits, None);
        assert!((f64::from(renormalised.gates[0]) - exp[1] / (exp[1] + exp[2])).abs() < 1e-6);
    }

    #[test]
    fn masked_experts_are_as_good_as_absent() {
        let full = route(
            &rule(2, false),
            4,
            vec![1.0, 3.0, 2.0, 0.0],
            Some(&[true, false, true, true]),
        );
        let sliced = route(&rule(2, false), 3, vec![1.0, 2.0, 0.0], None);
        assert_eq!(full.experts, [2, 0]);
        assert_eq!(full.gates, sliced.gates);
        assert_eq!(full.scores[1], 0.0);
    }

    #[test]
    fn ties_go_to_the_lower_index() {
        let routes = route(&rule(2, true), 4, vec![5.0, 7.0, 7.0, 7.0], None);
        assert_eq!(routes.experts, [1, 2]);
    }

    #[test]
    fn assignments_are_grouped_by_expert_with_their_gates() {
        let logits = vec![9.0, 8.0, 0.0, 0.0, 9.0, 8.0, 8.0, 0.0, 9.0];
        let routes = route(&rule(2, true), 3, logits, None);
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
}
