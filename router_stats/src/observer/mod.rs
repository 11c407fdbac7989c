//! What is measured while a model runs: one observer per file.
//!
//! Everything an observer records is a sum (or a maximum) over tokens, kept
//! per domain, so that statistics of shards, machines and domains merge
//! exactly and a mixture of domains is weighed afterwards. An observer is one
//! file and one line in [`OBSERVERS`].

pub mod block;
pub mod expert;
pub mod routing;
pub mod span;

use std::collections::BTreeMap;

use crate::forward::{Batch, Event};
use crate::stats::{Merge, Table};
use crate::Result;

/// Every observer, in the order events are shown to them.
pub const OBSERVERS: &[&dyn Observer] = &[&routing::Routing, &expert::Experts, &block::Blocks];

/// Turns the events of one block into sums.
pub trait Observer: Sync {
    /// The tables it adds to, domain first. They are those of one block; in
    /// statistics the layer comes second.
    fn tables(&self, shape: &Shape) -> Vec<(&'static str, Table)>;

    /// Adds one event to `tables`, which holds the block's tables of every
    /// observer.
    ///
    /// # Errors
    /// Only if a tensor cannot be read back from the device.
    fn observe(&self, event: &Event<'_>, batch: &Batch, tables: &mut Tables) -> Result<()>;
}

/// Tables by name.
pub type Tables = BTreeMap<String, Table>;

/// Sizes that tables are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Domains, D.
    pub domains: usize,
    /// Layers, L.
    pub layers: usize,
    /// Largest number of experts of any layer, E.
    pub experts: usize,
    /// Width of the residual stream, H.
    pub hidden: usize,
}

/// Tokens seen, by domain: D.
pub const TOKENS: &str = "tokens";
/// Sequences seen, by domain: D.
pub const SEQUENCES: &str = "sequences";

/// Empty tables of statistics.
pub fn tables(shape: &Shape) -> Tables {
    let counts = [TOKENS, SEQUENCES].map(|name| (name, sums([shape.domains])));
    let mut tables = named(span::tables(shape).into_iter().chain(counts));
    for (name, table) in block_tables(shape) {
        let (domains, rest) = table.shape.split_at(1);
        let shape = [domains, &[shape.layers], rest].concat();
        tables.insert(name, Table::zeros(shape, table.merge));
    }
    tables
}

/// Empty tables of one block, which every observer can add to.
pub fn block_tables(shape: &Shape) -> Tables {
    named(OBSERVERS.iter().flat_map(|observer| observer.tables(shape)))
}

/// Merges what observers saw of block `layer` into statistics.
pub fn add_block(tables: &mut Tables, layer: usize, block: &Tables) {
    for (name, block) in block {
        let table = table(tables, name);
        for domain in 0..block.shape[0] {
            let merge = table.merge;
            merge.combine(table.row_mut(&[domain, layer]), block.row(&[domain]), 1.0);
        }
    }
}

fn named(tables: impl IntoIterator<Item = (&'static str, Table)>) -> Tables {
    tables
        .into_iter()
        .map(|(name, table)| (name.to_owned(), table))
        .collect()
}

/// An empty table of sums.
fn sums(shape: impl Into<Vec<usize>>) -> Table {
    Table::zeros(shape.into(), Merge::Sum)
}

/// The table an observer declared.
fn table<'a>(tables: &'a mut Tables, name: &str) -> &'a mut Table {
    match tables.get_mut(name) {
        Some(table) => table,
        None => unreachable!("table {name} is declared by its observer"),
    }
}
