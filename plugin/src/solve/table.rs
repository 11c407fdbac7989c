//! The choice and what came after it, as lines of a table.

use super::Cell;
use crate::format;

/// Cells that are shown: the choice and two runners-up.
const SHOWN: usize = 3;

/// One row per cell, best first: weights, experts and layers, bytes stored,
/// bytes resident, change of perplexity on calibration text, and why it has its
/// place.
pub fn table(cells: &[Cell], bytes: u64) -> Vec<Vec<String>> {
    let heading = [
        "",
        "weights",
        "experts",
        "layers",
        "stored",
        "resident",
        "perplexity",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for (place, cell) in cells.iter().take(SHOWN).enumerate() {
        let after = &cell.plan.plan().after;
        let change = cell
            .loss
            .map_or_else(String::new, |loss| format::change(loss.exp_m1()));
        rows.push(vec![
            match place {
                0 => "chosen".to_owned(),
                _ => format!("runner-up {place}"),
            },
            cell.weights().to_owned(),
            format::range(after.experts_per_layer.iter().copied()),
            after.layers.to_string(),
            format::bytes(after.bytes),
            format!(
                "{} ({:.0}%)",
                format::bytes(cell.memory.peak()),
                cell.memory.peak() as f64 / bytes as f64 * 100.0
            ),
            change,
        ]);
    }
    rows
}
