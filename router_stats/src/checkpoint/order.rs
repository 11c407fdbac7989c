//! Rows of queries and keys in another order than the model's.
//!
//! Rotary positions turn pairs of dimensions of a head: halves apart in one
//! convention, side by side in the other. A file in the other convention has
//! the rows of a head in an order that makes it the same model.

use crate::family::{Names, Pairs, Projections, Topology};

/// Where the rows of each head lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    /// Rows of a head.
    head: usize,
    /// How many of them turn, from the first.
    turning: usize,
    /// How pairs lie in the file.
    stored: Pairs,
}

impl Order {
    /// The order of the rows of the tensor called `name` in a file that pairs
    /// dimensions as `stored` says; `None` if it is the model's.
    pub(super) fn of(
        name: &str,
        names: &Names,
        topology: &Topology,
        stored: Pairs,
    ) -> Option<Self> {
        let rotary = &topology.attention.rotary;
        let Projections::Grouped(query) = &topology.attention.projections else {
            return None;
        };
        let inside = names.inside(name)?.strip_prefix(names.attention)?;
        let turns = inside
            .split_once('.')
            .is_some_and(|(module, _)| ["q_proj", "k_proj"].contains(&module));
        (turns && rotary.pairs != stored).then_some(Self {
            head: query.head_dim,
            turning: rotary.dim,
            stored,
        })
    }

    /// The row of the file that is row `row` of the model.
    pub(super) fn stored(self, row: usize) -> usize {
        let (first, place) = (row / self.head * self.head, row % self.head);
        let half = self.turning / 2;
        if place >= self.turning {
            return row;
        }
        first
            + match self.stored {
                Pairs::Adjacent => place % half * 2 + place / half,
                Pairs::Halves => place % 2 * half + place / 2,
            }
    }

    /// Puts `rows` rows of values, which are as in the file, into the order of
    /// the model.
    pub(super) fn restore(self, values: &mut [f32], rows: usize) {
        let width = values.len() / rows.max(1);
        let mut stored = vec![0.0; (self.head * width).min(values.len())];
        for values in values.chunks_mut((self.head * width).max(1)) {
            let stored = &mut stored[..values.len()];
            stored.copy_from_slice(values);
            for (row, values) in values.chunks_mut(width.max(1)).enumerate() {
                let start = self.stored(row) * width;
                values.copy_from_slice(&stored[start..start + width]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_back_into_the_model_s_order() {
        let order = |stored| Order {
            head: 6,
            turning: 4,
            stored,
        };
        let adjacent = order(Pairs::Adjacent);
        let rows: Vec<_> = (0..12).map(|row| adjacent.stored(row)).collect();
        assert_eq!(rows, [0, 2, 1, 3, 4, 5, 6, 8, 7, 9, 10, 11]);
        let mut values: Vec<f32> = (0..24).map(|it| it as f32).collect();
        adjacent.restore(&mut values, 12);
        assert_eq!(values[..8], [0.0, 1.0, 4.0, 5.0, 2.0, 3.0, 6.0, 7.0]);
        assert_eq!(values[20..], [20.0, 21.0, 22.0, 23.0]);
        let wide = |stored| Order {
            head: 8,
            turning: 8,
            stored,
        };
        for row in 0..16 {
            let there = wide(Pairs::Adjacent).stored(row);
            assert_eq!(wide(Pairs::Halves).stored(there), row);
        }
    }
}
