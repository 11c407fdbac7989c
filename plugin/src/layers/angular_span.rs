//! Angular span: of all n neighbouring layers, those across which the residual
//! stream turns least, argmin_ℓ d(x_ℓ, x_{ℓ+n}) with
//! d(a, b) = E[arccos(cos(a, b))] / π over the last tokens of sequences.
//!
//! "The Unreasonable Ineffectiveness of the Deeper Layers" (arXiv 2403.17887):
//! layers that are dropped together are judged together, while influences of
//! single blocks need not add up.
//!
//! Shapes: mean angles [L+1, L+1] between depths → the first of n layers.

use router_stats::stats::Stats;

use super::LayerCriterion;
use crate::check::{expect_finite, expect_len};
use crate::error::Result;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct AngularSpan;

impl LayerCriterion for AngularSpan {
    fn name(&self) -> &'static str {
        "angular-span"
    }

    fn about(&self) -> &'static str {
        "the neighbouring layers that together turn the residual stream least"
    }

    fn source(&self) -> &'static str {
        "The Unreasonable Ineffectiveness of the Deeper Layers (arXiv 2403.17887)"
    }

    fn choose(
        &self,
        stats: &Stats,
        weights: &[f64],
        count: usize,
        pinned: &[bool],
    ) -> Result<Option<Vec<usize>>> {
        let angles = stats.spans(weights)?;
        expect_len("depths", angles.len(), pinned.len() + 1)?;
        let mut best: Option<(f64, usize)> = None;
        for first in 0..=pinned.len().saturating_sub(count) {
            let span = first..first + count;
            if pinned
                .get(span.clone())
                .is_none_or(|pins| pins.contains(&true))
            {
                continue;
            }
            let angle = angles[span.start][span.end];
            expect_finite(&[angle], |_| format!("angular-span from layer {first}"))?;
            // Of equal spans the later goes.
            if best.is_none_or(|(least, _)| angle <= least) {
                best = Some((angle, first));
            }
        }
        Ok(best.map(|(_, first)| (first..first + count).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture;

    #[test]
    fn the_span_that_turns_least_goes_as_a_whole() {
        let stats = fixture::stats("x");
        let choose = |count, pinned: [bool; 4]| {
            AngularSpan
                .choose(&stats, &stats.weights(), count, &pinned)
                .unwrap()
        };
        // Angles of the fixture: a block turns by 4, 1, 2, 3 twentieths.
        assert_eq!(choose(1, [false; 4]), Some(vec![1]));
        assert_eq!(choose(2, [false; 4]), Some(vec![1, 2]));
        assert_eq!(choose(3, [false; 4]), Some(vec![1, 2, 3]));
        assert_eq!(choose(2, [false, true, false, false]), Some(vec![2, 3]));
        assert_eq!(choose(2, [false, true, false, true]), None);
        assert_eq!(choose(0, [true; 4]), Some(vec![]));
    }
}
