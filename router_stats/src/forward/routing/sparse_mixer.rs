//! SparseMixer-v2 as Phi-3.5-MoE routes with it: experts are chosen one after
//! the other.
//!
//! With the remaining experts R, m = max over R of z, and the close experts
//! C = {j ∈ R : (m − z_j) / max(|z_j|, m) ≤ 2ε}, the expert with z = m is
//! chosen; its gate value is softmax over C at it, 1 / Σ_{j ∈ C} exp(z_j − m).
//! Then it leaves R. Gate values of one row do not sum to one, and a later one
//! may be larger. Source: arXiv 2409.12136, the rule at inference.

use super::choice::largest;

/// Chooses `chosen.len()` experts by `remaining`, the logits of one row, and
/// writes their gate values in the same order. Consumes the logits; −∞ marks
/// experts that are not there.
pub(super) fn choose(remaining: &mut [f32], jitter: f64, chosen: &mut [u32], gates: &mut [f32]) {
    let reach = (2.0 * jitter) as f32;
    for (slot, gate) in chosen.iter_mut().zip(gates) {
        largest(remaining, std::slice::from_mut(slot));
        let best = remaining[*slot as usize];
        let close = remaining.iter().filter(|&&logit| {
            // 0 / 0 is not beyond reach: two logits of 0 are equal.
            let beyond = (best - logit) / logit.abs().max(best) > reach;
            logit != f32::NEG_INFINITY && !beyond
        });
        *gate = 1.0 / close.map(|logit| (logit - best).exp()).sum::<f32>();
        remaining[*slot as usize] = f32::NEG_INFINITY;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(logits: &[f32]) -> ([u32; 2], [f32; 2]) {
        let (mut chosen, mut gates) = ([0; 2], [0.0; 2]);
        choose(&mut logits.to_vec(), 0.01, &mut chosen, &mut gates);
        (chosen, gates)
    }

    #[test]
    fn an_expert_far_ahead_has_the_whole_gate() {
        assert_eq!(route(&[1.0, 3.0, 2.0, 0.0]), ([1, 2], [1.0, 1.0]));
    }

    #[test]
    fn close_experts_share_and_the_chosen_one_leaves() {
        // 2.97 is within 2 % of 3 and alone once 3 has gone.
        let (chosen, gates) = route(&[1.0, 3.0, 2.97, 0.0]);
        let shared = 1.0 / (1.0 + f32::exp(-0.03));
        assert_eq!(chosen, [1, 2]);
        assert!((gates[0] - shared).abs() < 1e-6, "{gates:?}");
        assert_eq!(gates[1], 1.0);
    }

    #[test]
    fn negative_logits_are_compared_by_their_own_size() {
        // (−1 + 1.02) / 1.02 is within reach, (−1 + 1.03) / 1.03 is not.
        let (chosen, gates) = route(&[-1.03, -1.02, -1.0]);
        assert_eq!(chosen, [2, 1]);
        assert!((gates[0] - 1.0 / (1.0 + f32::exp(-0.02))).abs() < 1e-6);
        assert!((gates[1] - 1.0 / (1.0 + f32::exp(-0.01))).abs() < 1e-6);
    }

    #[test]
    fn zeros_tie() {
        assert_eq!(route(&[0.0, 0.0]), ([0, 1], [0.5, 1.0]));
    }
}
