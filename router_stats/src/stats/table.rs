//! A dense table of `f64` sums or maxima.

use crate::{Error, Result};

/// How two tables of the same name become one, and domains a mixture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// Entries add up.
    Sum,
    /// The larger entry stays.
    Max,
}

/// A row-major table; its first dimension is always the domain.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// Extent of each dimension.
    pub shape: Vec<usize>,
    /// All entries.
    pub values: Vec<f64>,
    /// How entries combine.
    pub merge: Merge,
}

impl Merge {
    /// Its spelling in files.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sum => "sum",
            Self::Max => "max",
        }
    }

    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::Sum, Self::Max]
            .into_iter()
            .find(|merge| merge.name() == name)
    }

    /// Combines `from`, scaled by a domain's weight if it is a sum, into `into`.
    pub(crate) fn combine(self, into: &mut [f64], from: &[f64], weight: f64) {
        for (into, &from) in into.iter_mut().zip(from) {
            match self {
                Self::Sum => *into += weight * from,
                Self::Max => *into = into.max(from),
            }
        }
    }
}

impl Table {
    /// A table of zeros, which is empty for sums and for maxima of magnitudes.
    pub fn zeros(shape: Vec<usize>, merge: Merge) -> Self {
        let values = vec![0.0; shape.iter().product()];
        Self {
            shape,
            values,
            merge,
        }
    }

    /// The entries whose first indices are `index`: `[d, l]` of a table
    /// [D, L, E] are the E entries of layer l in domain d.
    ///
    /// # Panics
    /// If `index` is out of range.
    pub fn row(&self, index: &[usize]) -> &[f64] {
        &self.values[self.range(index)]
    }

    /// As [`row`](Self::row), to be changed.
    ///
    /// # Panics
    /// If `index` is out of range.
    pub fn row_mut(&mut self, index: &[usize]) -> &mut [f64] {
        let range = self.range(index);
        &mut self.values[range]
    }

    fn range(&self, index: &[usize]) -> std::ops::Range<usize> {
        let (outer, inner) = self.shape.split_at(index.len());
        let position = index.iter().zip(outer).fold(0, |position, (&i, &extent)| {
            assert!(i < extent, "index {index:?} of a table {:?}", self.shape);
            position * extent + i
        });
        let length: usize = inner.iter().product();
        position * length..(position + 1) * length
    }

    /// The entries at `index`, which does not name the domain, of a mixture of
    /// domains: Σ_d w_d · entry_d, or the largest entry of domains with w_d > 0.
    pub(super) fn mixture(&self, index: &[usize], weights: &[f64]) -> Vec<f64> {
        let rows = weights
            .iter()
            .enumerate()
            .filter(|&(_, &weight)| weight > 0.0);
        let mut rows =
            rows.map(|(domain, &weight)| (self.row(&[&[domain], index].concat()), weight));
        // Maxima start from the first row, since zero need not be a lower bound.
        let Some((first, weight)) = rows.next() else {
            return Vec::new();
        };
        let mut mixed = match self.merge {
            Merge::Sum => first.iter().map(|value| weight * value).collect(),
            Merge::Max => first.to_vec(),
        };
        rows.for_each(|(row, weight)| self.merge.combine(&mut mixed, row, weight));
        mixed
    }

    /// Adds or maxes `other`, called `name` in both statistics, into this.
    ///
    /// # Errors
    /// [`Error::StatsMismatch`] if shapes or kinds differ.
    pub(super) fn merge(&mut self, name: &str, other: &Self) -> Result<()> {
        if (&self.shape, self.merge) != (&other.shape, other.merge) {
            let describe = |table: &Self| format!("{} {:?}", table.merge.name(), table.shape);
            return Err(Error::StatsMismatch {
                what: format!("table `{name}`"),
                left: describe(self),
                right: describe(other),
            });
        }
        self.merge.combine(&mut self.values, &other.values, 1.0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(merge: Merge) -> Table {
        Table {
            shape: vec![2, 2, 3],
            values: (0..12).map(f64::from).collect(),
            merge,
        }
    }

    #[test]
    fn rows_are_what_leading_indices_select() {
        let mut table = table(Merge::Sum);
        assert_eq!(table.row(&[1, 0]), [6.0, 7.0, 8.0]);
        assert_eq!(table.row(&[0, 1, 2]), [5.0]);
        assert_eq!(table.row(&[]).len(), 12);
        table.row_mut(&[1])[5] = -1.0;
        assert_eq!(table.values[11], -1.0);
    }

    #[test]
    #[should_panic(expected = "of a table")]
    fn an_index_never_reaches_into_the_next_row() {
        table(Merge::Sum).row(&[0, 2]);
    }

    #[test]
    fn mixtures_weigh_sums_and_select_maxima() {
        assert_eq!(
            table(Merge::Sum).mixture(&[1], &[2.0, 0.5]),
            [10.5, 13.0, 15.5]
        );
        assert_eq!(
            table(Merge::Max).mixture(&[1], &[2.0, 0.5]),
            [9.0, 10.0, 11.0]
        );
        assert_eq!(
            table(Merge::Max).mixture(&[1], &[2.0, 0.0]),
            [3.0, 4.0, 5.0]
        );
    }

    #[test]
    fn tables_of_different_kinds_do_not_merge() {
        let error = table(Merge::Sum)
            .merge("t", &table(Merge::Max))
            .unwrap_err();
        assert!(error
            .to_string()
            .contains("table `t`: sum [2, 2, 3] against max [2, 2, 3]"));
    }
}
