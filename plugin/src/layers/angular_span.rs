//! Angular span: of all n neighbouring layers, those across which the residual
//! stream turns least, argmin_ℓ d(x_ℓ, x_{ℓ+n}) with
//! d(a, b) = E[arccos(cos(a, b))] / π over the last tokens of sequences.
//!
//! "The Unreasonable Ineffectiveness of the Deeper Layers" (arXiv 2403.17887):
//! layers that are dropped together are judged together, while influences of
//! single blocks need not add up.
//!
//! Shapes: mean angles [L+1, L+1] between depths → the first of n layers.

use super::{Evidence, LayerCriterion, Removal, Unit, Wanted};
use crate::check::expect_finite;
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

    fn units(&self) -> &'static [Unit] {
        &[Unit::Layer]
    }

    fn choose(
        &self,
        evidence: &mut Evidence<'_, '_>,
        weights: &[f64],
        wanted: &Wanted<'_>,
    ) -> Result<Option<Vec<Removal>>> {
        let angles = evidence.stats.spans(weights)?;
        let count = wanted.count(Unit::Layer);
        let free = wanted.candidates(Unit::Layer, &[]);
        let mut best: Option<(f64, usize)> = None;
        for first in 0..angles.len().saturating_sub(count) {
            let span = first..first + count;
            if !span.clone().all(|layer| free.contains(&layer)) {
                continue;
            }
            let angle = angles[span.start][span.end];
            expect_finite(&[angle], |_| format!("angular-span from layer {first}"))?;
            // Of equal spans the later goes.
            if best.is_none_or(|(least, _)| angle <= least) {
                best = Some((angle, first));
            }
        }
        let removal = |layer| Removal {
            unit: Unit::Layer,
            layer,
        };
        Ok(best.map(|(_, first)| (first..first + count).map(removal).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::choose;
    use super::*;
    use crate::plan::fixture;

    #[test]
    fn the_span_that_turns_least_goes_as_a_whole() {
        let stats = fixture::stats("x");
        let choose = |count, pinned: &[usize]| -> Option<Vec<usize>> {
            let chosen = choose(&AngularSpan, &stats, [count, 0, 0], pinned)?;
            Some(chosen.iter().map(|removal| removal.layer).collect())
        };
        // Angles of the fixture: a block turns by 4, 1, 2, 3 twentieths.
        assert_eq!(choose(1, &[]), Some(vec![1]));
        assert_eq!(choose(2, &[]), Some(vec![1, 2]));
        assert_eq!(choose(3, &[]), Some(vec![1, 2, 3]));
        assert_eq!(choose(2, &[1]), Some(vec![2, 3]));
        assert_eq!(choose(2, &[1, 3]), None);
        assert_eq!(choose(0, &[0, 1, 2, 3]), Some(vec![]));
    }
}
