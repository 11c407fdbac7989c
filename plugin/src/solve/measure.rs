//! What cells lose on calibration text, in masked and rounded forward passes.

use prune_eval::{EvalOptions, Evaluation, Variant};
use router_stats::calibration::Sequences;
use router_stats::forward::Model;
use router_stats::progress::Progress;

use super::Cell;
use crate::Result;

/// Measures every cell and puts the one that loses least first. The text
/// decides, so it is not the text that the loss is reported on.
///
/// # Errors
/// Those of running the model.
pub fn measure(
    model: &Model,
    cells: &mut [Cell],
    sequences: &Sequences,
    options: &EvalOptions,
    progress: &dyn Progress,
) -> Result<()> {
    let reference = Variant {
        name: "original".to_owned(),
        model,
        keep: None,
    };
    let mut evaluation = Evaluation::new(&reference, sequences, options, progress)?;
    let mut measured = Vec::with_capacity(cells.len());
    for (index, cell) in cells.iter().enumerate() {
        let rounding = cell.plan.rounding(model.family(), model.topology());
        let rounded = rounding.map(|rounding| model.rounded(rounding));
        let variant = Variant {
            name: index.to_string(),
            model: rounded.as_ref().unwrap_or(model),
            keep: Some(cell.plan.keep().clone()),
        };
        measured.push(evaluation.measure(&variant, progress)?);
    }
    let report = evaluation.report(measured, progress)?;
    for (cell, variant) in cells.iter_mut().zip(&report.variants) {
        let change = variant.estimate("perplexity_change", None);
        cell.loss = change.map(|change| change.value.ln_1p());
    }
    let loss = |cell: &Cell| cell.loss.unwrap_or(f64::INFINITY);
    cells.sort_by(|a, b| loss(a).total_cmp(&loss(b)));
    Ok(())
}
