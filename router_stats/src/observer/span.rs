//! Angular distances between the residual stream at any two depths, from
//! which the best contiguous span of layers to drop follows (Gromov et al.,
//! "The Unreasonable Ineffectiveness of the Deeper Layers", arXiv 2403.17887).
//!
//! It needs the states of all earlier depths at once, so it is not an event
//! observer: the calibration run keeps the last token of every sequence.

use super::{sums, table, Shape, Tables};
use crate::stats::Table;

/// Σ arccos(cos(x_i, x_j))/π over the last token of each sequence, for depths
/// i < j of the residual stream, 0 being the embedding: D × (L+1) × (L+1).
pub const ANGLE: &str = "span.angle";

pub(super) fn tables(shape: &Shape) -> Vec<(&'static str, Table)> {
    let depths = shape.layers + 1;
    vec![(ANGLE, sums([shape.domains, depths, depths]))]
}

/// Angle in units of π of a cosine.
pub(super) fn angle(cosine: f64) -> f64 {
    cosine.clamp(-1.0, 1.0).acos() / std::f64::consts::PI
}

/// Adds the angles between `depth` and every shallower depth.
///
/// `states[i]` holds the last-token states of all sequences at depth i,
/// S × H; `domains` has one entry per sequence.
pub(crate) fn observe(
    states: &[Vec<f32>],
    depth: usize,
    hidden: usize,
    domains: &[u16],
    tables: &mut Tables,
) {
    let table = table(tables, ANGLE);
    for (shallower, earlier) in states[..depth].iter().enumerate() {
        let pairs = earlier
            .chunks_exact(hidden)
            .zip(states[depth].chunks_exact(hidden));
        for ((a, b), &domain) in pairs.zip(domains) {
            let sum = |x: &[f32], y: &[f32]| -> f64 {
                x.iter()
                    .zip(y)
                    .map(|(&x, &y)| f64::from(x) * f64::from(y))
                    .sum()
            };
            let norm = (sum(a, a) * sum(b, b)).sqrt();
            let cosine = if norm > 0.0 { sum(a, b) / norm } else { 0.0 };
            table.row_mut(&[usize::from(domain), shallower])[depth] += angle(cosine);
        }
    }
}
