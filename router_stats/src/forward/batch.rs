//! A batch of ragged sequences, flattened.

use std::ops::Range;

use candle_core::{Device, Tensor};

use super::frequencies::{extended, Frequencies};
use crate::calibration::{batches, Sequences};
use crate::family::{AttentionSpec, RotarySpec};
use crate::Result;

/// Sequences that pass through a block together, one row per token.
///
/// Sequences are ragged: none is padded, so there is no padding to mask out of
/// attention, routing or statistics.
#[derive(Debug)]
pub struct Batch {
    /// First row of each sequence, and one past the last: length S + 1.
    pub starts: Vec<usize>,
    /// Domain of each row: length N.
    pub domains: Vec<u16>,
    /// Rotary cosines [N, rotary dim / 2].
    pub(super) cos: Tensor,
    /// Rotary sines [N, rotary dim / 2].
    pub(super) sin: Tensor,
}

impl Batch {
    /// The sequences of `range`, with the rotary angles of `spec`.
    ///
    /// # Errors
    /// Only if the device has no room for the angles.
    pub fn new(
        sequences: &Sequences,
        range: Range<usize>,
        spec: &AttentionSpec,
        device: &Device,
    ) -> Result<Self> {
        let first = sequences.starts[range.start];
        let starts: Vec<usize> = sequences.starts[range.start..=range.end]
            .iter()
            .map(|start| start - first)
            .collect();
        let mut domains = Vec::with_capacity(starts[starts.len() - 1]);
        for (index, rows) in range.zip(starts.windows(2)) {
            domains.resize(rows[1], sequences.domains[index]);
        }
        let (cos, sin) = rotary_angles(&starts, &spec.rotary, device)?;
        Ok(Self {
            starts,
            domains,
            cos,
            sin,
        })
    }

    /// Number of rows, N.
    pub fn rows(&self) -> usize {
        self.domains.len()
    }

    /// The batch in pieces of whole sequences that hold at most `limit` rows
    /// each, or a single sequence where one alone holds more, each with the
    /// rows it has of the batch.
    pub(super) fn pieces(&self, limit: usize) -> Result<Vec<(Range<usize>, Self)>> {
        let piece = |sequences: Range<usize>| {
            let starts = &self.starts[sequences.start..=sequences.end];
            let rows = starts[0]..starts[starts.len() - 1];
            let piece = Self {
                starts: starts.iter().map(|start| start - rows.start).collect(),
                domains: self.domains[rows.clone()].to_vec(),
                cos: self.cos.narrow(0, rows.start, rows.len())?,
                sin: self.sin.narrow(0, rows.start, rows.len())?,
            };
            Ok((rows, piece))
        };
        batches(&self.starts, limit)
            .into_iter()
            .map(piece)
            .collect()
    }

    /// The rows of each sequence.
    pub fn sequences(&self) -> impl Iterator<Item = Range<usize>> + '_ {
        self.starts.windows(2).map(|pair| pair[0]..pair[1])
    }
}

/// Cosines and sines of position · frequency [N, rotary dim / 2], positions
/// counted from the start of each sequence, computed in f64.
fn rotary_angles(
    starts: &[usize],
    rotary: &RotarySpec,
    device: &Device,
) -> Result<(Tensor, Tensor)> {
    let lengths = || starts.windows(2).map(|pair| pair[1] - pair[0]);
    let [short, long] = [false, true].map(|long| {
        let lengths = lengths().filter(|&length| extended(rotary, length) == long);
        lengths.max().map_or_else(Angles::default, |longest| {
            Angles::new(&Frequencies::new(rotary, longest), longest)
        })
    });
    let half = rotary.dim / 2;
    let rows = starts[starts.len() - 1];
    let gather = |part: fn(&Angles) -> &[f32]| -> Result<Tensor> {
        let mut angles = Vec::with_capacity(rows * half);
        for length in lengths() {
            let table = part(if extended(rotary, length) {
                &long
            } else {
                &short
            });
            angles.extend_from_slice(&table[..length * half]);
        }
        Ok(Tensor::from_vec(angles, (rows, half), device)?)
    };
    Ok((gather(|angles| &angles.cos)?, gather(|angles| &angles.sin)?))
}

/// Cosines and sines of the positions of one sequence [T, rotary dim / 2].
#[derive(Default)]
struct Angles {
    cos: Vec<f32>,
    sin: Vec<f32>,
}

impl Angles {
    fn new(frequencies: &Frequencies, length: usize) -> Self {
        let mut angles = Self::default();
        for position in 0..length {
            for radians in &frequencies.radians {
                let (sin, cos) = (position as f64 * radians).sin_cos();
                angles.cos.push((cos * frequencies.magnitude) as f32);
                angles.sin.push((sin * frequencies.magnitude) as f32);
            }
        }
        angles
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::{GroupedQuery, LongRope, Scaling};

    #[test]
    fn every_sequence_starts_at_0_and_turns_by_its_own_length() {
        let sequences = Sequences {
            tokens: vec![0; 12],
            starts: vec![0, 3, 8, 12],
            domains: vec![4, 5, 6],
            document: vec![0; 3],
            names: vec!["text".to_owned()],
            weights: vec![1.0],
            documents: vec![1],
            seq_len: 5,
            seed: 0,
            hash: String::new(),
        };
        let rotary = RotarySpec {
            scaling: Scaling::Long(LongRope {
                original: 4,
                short: vec![1.0, 2.0],
                long: vec![4.0, 8.0],
                short_magnitude: 1.0,
                long_magnitude: 1.5,
            }),
            ..RotarySpec::plain(4, 100.0)
        };
        let spec = AttentionSpec::grouped(GroupedQuery::plain(1, 1, 4), rotary, vec![None]);
        let batch = Batch::new(&sequences, 0..3, &spec, &Device::Cpu).unwrap();
        assert_eq!(batch.domains, [4, 4, 4, 5, 5, 5, 5, 5, 6, 6, 6, 6]);
        let tables = |batch: &Batch| [&batch.cos, &batch.sin].map(|x| x.to_vec2().unwrap());
        let [cos, sin] = tables(&batch);
        for (rows, radians, magnitude) in [
            (0..3, [1.0, 0.05], 1.0),
            (3..8, [0.25, 0.0125], 1.5),
            (8..12, [1.0, 0.05], 1.0),
        ] {
            for (position, row) in rows.enumerate() {
                for (pair, radians) in radians.into_iter().enumerate() {
                    let (s, c) = (position as f64 * radians).sin_cos();
                    let found: [f32; 2] = [cos[row][pair], sin[row][pair]];
                    assert_eq!(found, [c, s].map(|x| (x * magnitude) as f32));
                }
            }
        }
        let pieces = batch.pieces(8).unwrap();
        for ((rows, piece), (expected, starts)) in pieces
            .iter()
            .zip([(0..8, &[0, 3, 8][..]), (8..12, &[0, 4])])
        {
            assert_eq!((rows, &piece.starts[..]), (&expected, starts));
            assert_eq!(piece.domains, batch.domains[rows.clone()]);
            let whole = [&cos, &sin].map(|table| table[rows.clone()].to_vec());
            assert_eq!(tables(piece), whole);
        }
        assert_eq!(pieces.len(), 2);
        assert_eq!(batch.pieces(1).unwrap().len(), 3);
    }
}
