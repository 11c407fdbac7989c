//! What a cell is likely to lose, without running anything.
//!
//! Orders cells so that only promising ones are measured; no decision rests on
//! it. The numbers describe the measurements of docs/evidence.md on three small
//! models; large models lose less of everything.

use crate::plan::Plan;
use crate::surgery::UqffWeights;

/// Nats a token that quantisation alone cost, the worst of three models.
fn quantised(weights: Option<UqffWeights>) -> f64 {
    match weights {
        None | Some(UqffWeights::Float) => 0.0,
        Some(UqffWeights::Q8_0) => 0.0004,
        Some(UqffWeights::Q6K) => 0.001,
        Some(UqffWeights::Q5K) => 0.005,
        Some(UqffWeights::Q4K) => 0.017,
        Some(UqffWeights::Q3K) => 0.066,
        Some(UqffWeights::Q2K) => 0.36,
    }
}

/// Nats a token for the square of the share of gated expert output that goes.
const OUTPUT: f64 = 3.0;

/// Nats a token for each unit of block influence of the layers that go.
const INFLUENCE: f64 = 1.0;

/// Nats a token that `plan` with weights stored so is likely to lose.
pub(super) fn estimate(plan: &Plan, weights: Option<UqffWeights>) -> f64 {
    let shares = plan.stats.domains.iter();
    let (mut lost, mut total) = (0.0, 0.0);
    for domain in shares {
        if let Some(coverage) = domain.coverage {
            lost += domain.weight * (1.0 - coverage);
            total += domain.weight;
        }
    }
    let lost = if total > 0.0 { lost / total } else { 0.0 };
    let dropped = plan.layers.iter().filter(|layer| layer.dropped);
    let influence: f64 = dropped.map(|layer| layer.block_influence.max(0.0)).sum();
    quantised(weights) + OUTPUT * lost * lost + INFLUENCE * influence
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture;

    #[test]
    fn what_keeps_more_is_expected_to_lose_less() {
        let half = fixture::half().plan().clone();
        let mut fewer = half.clone();
        for domain in &mut fewer.stats.domains {
            domain.coverage = domain.coverage.map(|share| share / 2.0);
        }
        let none = estimate(&half, None);
        assert!(none < estimate(&half, Some(UqffWeights::Q4K)));
        assert!(none < estimate(&fewer, None));
        let mut dropped = half.clone();
        dropped.layers[3].dropped = true;
        assert!(none < estimate(&dropped, None));
        let mut before = -1.0;
        for weights in UqffWeights::ALL {
            assert!(estimate(&half, Some(weights)) > before);
            before = estimate(&half, Some(weights));
        }
    }
}
