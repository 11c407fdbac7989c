//! Router statistics: mergeable sums with their provenance.
//!
//! Owns the tables, how they merge, their file and the typed views that
//! criteria read. What is summed, and under which name, is defined by the
//! [observers](crate::observer); what the numbers mean for pruning is not
//! decided here.
//!
//! Every table keeps domains apart, so a mixture is weighed afterwards without
//! another forward pass: S(w) = Σ_d w_d · S_d.

mod beside;
mod file;
mod parts;
mod provenance;
mod table;
#[cfg(test)]
pub(crate) mod testing;
mod view;

use std::collections::BTreeMap;

pub use parts::Parts;
pub use provenance::{DomainProvenance, Provenance};
pub use table::{Merge, Table};
pub use view::LayerStats;

use crate::{Error, Result};

/// Tables of one model on one corpus, or on some shards of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Stats {
    /// What was measured.
    pub provenance: Provenance,
    /// The tables by name.
    pub tables: BTreeMap<String, Table>,
}

impl Stats {
    /// The table called `name`.
    ///
    /// # Errors
    /// [`Error::MissingTable`]
    pub fn table(&self, name: &str) -> Result<&Table> {
        self.tables.get(name).ok_or_else(|| Error::MissingTable {
            table: name.to_owned(),
            known: names(&self.tables),
        })
    }

    /// The weights of the domains that were given with the corpus.
    pub fn weights(&self) -> Vec<f64> {
        self.provenance
            .domains
            .iter()
            .map(|domain| domain.weight)
            .collect()
    }

    /// Statistics of both together. Shards may be merged in any order and
    /// grouping; complete ones equal those of a single run up to rounding.
    ///
    /// # Errors
    /// [`Error::StatsMismatch`] if they are of different models, texts or
    /// settings, or cover a shard twice.
    pub fn merge(self, other: Self) -> Result<Self> {
        let provenance = self.provenance.merge(other.provenance)?;
        if !self.tables.keys().eq(other.tables.keys()) {
            return Err(Error::StatsMismatch {
                what: "tables".to_owned(),
                left: names(&self.tables),
                right: names(&other.tables),
            });
        }
        let mut tables = self.tables;
        for ((name, table), from) in tables.iter_mut().zip(other.tables.values()) {
            table.merge(name, from)?;
        }
        Ok(Self { provenance, tables })
    }
}

fn names(tables: &BTreeMap<String, Table>) -> String {
    tables
        .keys()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests;
