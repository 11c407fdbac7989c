//! What more and less of it costs: quality against bytes, cliffs, calibration
//! sets.

use prune_eval::figure::{Break, Cliff, CliffPoint, Matrix, Pareto, ParetoPoint, Unit};
use prune_eval::page::{Part, Section};
use prune_eval::report::Model;
use prune_eval::sweep::{axis, Cell, Point, Summary};
use prune_eval::{Estimate, Report, Sweep};

use super::cost::{sentences, subject, CHANGE};
use super::{figure, section as of, Inputs};
use crate::Result;

/// Most cliffs, and most calibration matrices, that are drawn; tables hold
/// them all.
const DRAWN: usize = 3;
/// Coordinates by which points of a series differ.
const AMOUNTS: [&str; 3] = [axis::PRUNE_EXPERTS, axis::DROP_LAYERS, axis::QUANTIZE];
/// Name and series of the model as it is.
const ORIGINAL: &str = "original";

/// Figures and tables of a sweep, or of the models in an evaluation whose size
/// is known.
pub(super) fn section(inputs: &Inputs) -> Result<Option<Section>> {
    const TITLE: &str = "Quality against size";
    let mut parts = Vec::new();
    let Some(sweep) = &inputs.sweep()? else {
        if let Some(plot) = inputs.eval().and_then(|report| evaluated(inputs, report)) {
            parts.push(figure(&plot)?);
        }
        return Ok(of(TITLE, Vec::new(), parts));
    };
    let summary = sweep.summary();
    if let Some(plot) = swept(sweep, &summary) {
        parts.push(figure(&plot)?);
    }
    for plot in cliffs(&summary) {
        parts.push(figure(&plot)?);
    }
    for plot in matrices(sweep, &summary) {
        parts.push(figure(&plot)?);
    }
    parts.extend(sweep.tables().into_iter().map(Part::Table));
    Ok(of(TITLE, vec![sentences(&sweep.facts())], parts))
}

/// One point per model of known size: its own, or the plan's.
fn evaluated(inputs: &Inputs, report: &Report) -> Option<Pareto> {
    let planned = subject(inputs, report).map(|(index, _)| index);
    let plan = inputs.plan();
    let bytes = |index: usize, model: &Model| {
        let by_plan = plan.filter(|_| planned == Some(index) && model.quantization.is_none());
        model.bytes.or(by_plan.map(|plan| plan.after.bytes))
    };
    let whole = report
        .reference
        .bytes
        .or(plan.map(|plan| plan.before.bytes))?;
    let mut points = vec![original(whole)];
    for (index, model) in report.variants.iter().enumerate() {
        let (Some(bytes), Some(change)) = (bytes(index, model), model.estimate(CHANGE, None))
        else {
            continue;
        };
        let series = match (model.masked, &model.quantization) {
            (true, Some(_)) => "pruned and quantised",
            (true, None) => "pruned",
            (false, Some(_)) => "quantised",
            (false, None) => "checkpoint",
        };
        points.push(point(&model.name, series, bytes, change));
    }
    let confidence = report.provenance.bootstrap.confidence;
    (points.len() > 1).then(|| pareto(points, confidence))
}

fn original(bytes: u64) -> ParetoPoint {
    let nothing = Estimate {
        value: 0.0,
        low: None,
        high: None,
    };
    point(ORIGINAL, ORIGINAL, bytes, &nothing)
}

fn point(name: &str, series: &str, bytes: u64, change: &Estimate) -> ParetoPoint {
    ParetoPoint {
        name: name.to_owned(),
        series: series.to_owned(),
        bytes,
        value: change.value,
        low: change.low,
        high: change.high,
        on_front: false,
    }
}

fn pareto(points: Vec<ParetoPoint>, confidence: f64) -> Pareto {
    let mut plot = Pareto {
        name: "pareto".to_owned(),
        metric: "change of perplexity".to_owned(),
        unit: Unit::Change,
        lower_is_better: true,
        confidence,
        points,
    };
    plot.find_front();
    plot
}

/// The cells of the first calibration set.
fn swept(sweep: &Sweep, summary: &Summary) -> Option<Pareto> {
    let on = |cell: &Cell| cell.point.get(axis::CALIBRATE_ON).cloned();
    let first = summary.cells.iter().find_map(on);
    let cells = summary
        .cells
        .iter()
        .filter(|cell| on(cell).is_none() || on(cell) == first);
    let mut points = vec![original(sweep.header.size.bytes)];
    points.extend(cells.filter_map(|cell| {
        let name = cell
            .point
            .label(&[axis::CALIBRATE_ON, axis::LAYER_CRITERION]);
        let change = cell.all.get(CHANGE)?;
        // A point at which nothing goes is the original.
        if name.is_empty() {
            return None;
        }
        Some(point(&name, &series(&cell.point), cell.size.bytes, change))
    }));
    (points.len() > 1).then(|| pareto(points, summary.confidence))
}

/// What the points of a series have in common: the criterion, or that only
/// layers go, or only bits.
fn series(point: &Point) -> String {
    let left_out = [&AMOUNTS[..], &[axis::CALIBRATE_ON]].concat();
    let mut parts = Vec::new();
    let label = point.label(&left_out);
    if !label.is_empty() {
        parts.push(label);
    }
    if point.get(axis::QUANTIZE).is_some() {
        parts.push("quantised".to_owned());
    }
    parts.join(", ")
}

fn cliffs(summary: &Summary) -> Vec<Cliff> {
    let drawn = summary.cliffs.iter().take(DRAWN).enumerate();
    let cliffs = drawn.map(|(index, cliff)| {
        let at = cliff.fraction.value;
        let first = cliff.series.first().map_or(0.0, |point| point.0);
        let last = cliff.series.last().map_or(1.0, |point| point.0);
        let points = cliff.series.iter().map(|&(fraction, value)| CliffPoint {
            fraction,
            value,
            low: None,
            high: None,
        });
        let interval = cliff.fraction.interval();
        Cliff {
            name: numbered("cliff", index),
            series: cliff.point.label(&[]),
            metric: "loss, nats per token".to_owned(),
            unit: Unit::Number,
            confidence: summary.confidence,
            points: points.collect(),
            breaks: interval.map(|(low, high)| Break {
                fraction: at,
                low,
                high,
            }),
            fit: vec![
                [first, cliff.loss - cliff.before.value * (at - first)],
                [at, cliff.loss],
                [last, cliff.loss + cliff.beyond.value * (last - at)],
            ],
        }
    });
    cliffs.collect()
}

/// Calibrated on × evaluated on, for what was tried with several calibration
/// sets.
fn matrices(sweep: &Sweep, summary: &Summary) -> Vec<Matrix> {
    let names: Vec<String> = sweep
        .header
        .base
        .domains()
        .map(|domain| domain.name.clone())
        .collect();
    let mut groups: Vec<(Point, Vec<&Cell>)> = Vec::new();
    for cell in &summary.cells {
        if cell.point.get(axis::CALIBRATE_ON).is_none() {
            continue;
        }
        let rest = cell.point.without(&[axis::CALIBRATE_ON]);
        match groups.iter_mut().find(|(point, _)| *point == rest) {
            Some((_, cells)) => cells.push(cell),
            None => groups.push((rest, vec![cell])),
        }
    }
    let several = groups.into_iter().filter(|(_, cells)| cells.len() > 1);
    several
        .take(DRAWN)
        .enumerate()
        .map(|(index, (rest, cells))| {
            let row = |cell: &&Cell| {
                let name = cell.point.get(axis::CALIBRATE_ON)?.to_string();
                let values: Option<Vec<Estimate>> = names
                    .iter()
                    .map(|domain| cell.domains.get(domain)?.get(CHANGE).copied())
                    .collect();
                Some((name, values?))
            };
            let (rows, values) = cells.iter().filter_map(row).unzip();
            Matrix {
                name: numbered("matrix", index),
                title: format!(
                    "What calibrating on one domain costs on another: {}",
                    rest.label(&[])
                ),
                description: "Change of perplexity, by the domains that experts were ranked on."
                    .to_owned(),
                down: "calibrated on".to_owned(),
                across: "evaluated on".to_owned(),
                rows,
                columns: names.clone(),
                values,
                unit: Unit::Change,
            }
        })
        .filter(|matrix| !matrix.rows.is_empty())
        .collect()
}

/// `cliff`, `cliff-2`, `cliff-3`.
fn numbered(name: &str, index: usize) -> String {
    match index {
        0 => name.to_owned(),
        _ => format!("{name}-{}", index + 1),
    }
}
