//! A memory budget → the plan that loses least of the promising ones that fit.
//!
//! ```text
//! cells      types of weights × layers dropped, each with the most experts that fit
//! estimate   what a cell is likely to lose, to order them
//! measure    what the promising ones do lose on calibration text
//! table      the choice, the runners-up, and why
//! ```
//!
//! Quantising alone is one of the cells, and so is pruning alone. The choice is
//! the cell that loses least of those that are measured, and the best that
//! removes nothing is always measured, so that a plan is not made that quantising
//! beats on that text in the same memory, unless types are left out by hand.
//!
//! Owns the search. What fits, [`crate::memory`] predicts; how many experts a
//! budget leaves in which layer is the plan's business.

mod cells;
mod estimate;
mod measure;
mod table;
#[cfg(test)]
mod tests;

pub use cells::{cells, Cell, Question};
pub use measure::measure;
pub use table::table;

/// Cells that are measured.
pub const MEASURED: usize = 6;

/// Layers that are dropped at most, unless told how many.
const MOST_DROPPED: usize = 2;

/// The cells worth measuring: those that are expected to lose least, the best
/// of those that remove nothing among them.
pub fn promising(mut cells: Vec<Cell>) -> Vec<Cell> {
    cells.sort_by(|a, b| a.estimate.total_cmp(&b.estimate));
    let whole = cells.iter().position(Cell::is_whole);
    if let Some(index) = whole.filter(|&index| index >= MEASURED) {
        let whole = cells.remove(index);
        cells.insert(MEASURED - 1, whole);
    }
    cells.truncate(MEASURED);
    cells
}
