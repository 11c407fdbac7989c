//! From router logits to experts and the gate values that are really applied.
//!
//! Owns what a [`RouterRule`] means. It does not own which rule a model has
//! (its family does) nor where logits and bias come from.

mod choice;
mod scores;
mod sparse_mixer;
#[cfg(test)]
mod tests;

use rayon::prelude::*;

use crate::family::{GroupScore, RouterRule, Scoring};

/// Where every row of a batch is routed.
#[derive(Debug, Clone, PartialEq)]
pub struct Routes {
    /// Experts per row, k.
    pub top_k: usize,
    /// Chosen experts, by falling gate value: N × k. Where that ties, the one
    /// chosen first is first.
    pub experts: Vec<u32>,
    /// Gate value of each: N × k.
    pub gates: Vec<f32>,
    /// Scores of all experts before the choice, without bias: σ(z) for sigmoid
    /// routers, softmax(z) for others: N × E. Masked experts have 0.
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

/// Routes every row of `logits` (N × E, row-major) by `rule`.
///
/// * [`Softmax`](Scoring::Softmax): p = softmax(z); experts are chosen by
///   p + `bias`, and have the gate values p.
/// * [`Sigmoid`](Scoring::Sigmoid): the same with p = σ(z) (DeepSeek-V3, arXiv
///   2412.19437, equations 12 to 16).
/// * [`SparseMixer`](Scoring::SparseMixer): see the module of that name.
///
/// A rule with groups first chooses groups and then experts inside them. Of
/// equal experts or groups the one with the lower index is chosen. Gate values
/// are divided by their sum if the rule says so, and multiplied by its scale at
/// last.
///
/// `bias` is `[E]`, for rules with a correction bias. Experts that `keep`
/// (`[E]`) marks false are never chosen, as if the router had no row for them;
/// the others must fill top-k.
pub fn route(
    rule: &RouterRule,
    experts: usize,
    mut logits: Vec<f32>,
    bias: Option<&[f32]>,
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
        .for_each_init(Vec::new, |choice, ((logits, chosen), gates)| {
            if let Some(keep) = keep {
                mask(logits, keep);
            }
            match rule.scoring {
                Scoring::SparseMixer { jitter } => {
                    choice.clear();
                    choice.extend_from_slice(logits);
                    sparse_mixer::choose(choice, jitter, chosen, gates);
                    scores::softmax(logits);
                }
                Scoring::Softmax | Scoring::Sigmoid => {
                    choose(rule, logits, bias, keep, choice, chosen);
                    for (gate, &expert) in gates.iter_mut().zip(chosen.iter()) {
                        *gate = logits[expert as usize];
                    }
                }
            }
            finish(rule, gates);
            sort_by_gate(chosen, gates);
        });
    group_by_expert(k, experts, chosen, gates, logits)
}

/// Fills `chosen` and turns `logits` into scores. `choice` is scratch.
fn choose(
    rule: &RouterRule,
    logits: &mut [f32],
    bias: Option<&[f32]>,
    keep: Option<&[bool]>,
    choice: &mut Vec<f32>,
    chosen: &mut [u32],
) {
    // A softmax keeps the order of logits, so these choose alike, and without
    // a copy; a sum of two scores is another matter.
    let by_logits = rule.scoring == Scoring::Softmax
        && bias.is_none()
        && rule
            .groups
            .is_none_or(|groups| groups.score == GroupScore::Best);
    if by_logits && rule.groups.is_none() {
        choice::largest(logits, chosen);
        return scores::softmax(logits);
    }
    if !by_logits {
        scores::score(rule.scoring, logits);
    }
    choice.clear();
    choice.extend_from_slice(logits);
    if let Some(bias) = bias {
        for (choice, &bias) in choice.iter_mut().zip(bias) {
            *choice += bias;
        }
    }
    // A masked expert has a score of 0 here, and its bias.
    if let Some(keep) = keep {
        mask(choice, keep);
    }
    if let Some(groups) = rule.groups {
        choice::limit_to_groups(choice, &groups);
    }
    choice::largest(choice, chosen);
    if by_logits {
        scores::softmax(logits);
    }
}

/// Sets what `keep` marks false to −∞.
fn mask(values: &mut [f32], keep: &[bool]) {
    for (value, &keep) in values.iter_mut().zip(keep) {
        if !keep {
            *value = f32::NEG_INFINITY;
        }
    }
}

/// From the scores of the chosen experts to their gate values.
fn finish(rule: &RouterRule, gates: &mut [f32]) {
    /// Sigmoids may all be 0; this is what DeepSeek-V3 adds to their sum.
    const SIGMOID_EPS: f32 = 1e-20;
    if rule.renormalize {
        let sum: f32 = gates.iter().sum();
        let sum = match rule.scoring {
            Scoring::Sigmoid => sum + SIGMOID_EPS,
            Scoring::Softmax | Scoring::SparseMixer { .. } => sum,
        };
        gates.iter_mut().for_each(|gate| *gate /= sum);
    }
    if rule.scale != 1.0 {
        let scale = rule.scale as f32;
        gates.iter_mut().for_each(|gate| *gate *= scale);
    }
}

/// Orders one row by falling gate value; equal ones stay in order.
fn sort_by_gate(chosen: &mut [u32], gates: &mut [f32]) {
    for sorted in 1..gates.len() {
        let mut place = sorted;
        while place > 0 && gates[place - 1] < gates[place] {
            gates.swap(place - 1, place);
            chosen.swap(place - 1, place);
            place -= 1;
        }
    }
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
