//! A sweep as text: aligned for a terminal, or Markdown.
//!
//! Methods down and how much goes across, one block per metric; then, where
//! several calibration sets were tried, calibrated on down and measured on
//! across; then the cliffs.

use std::fmt::Write;

use super::point::axis;
use super::summary::{Cell, Rank, Summary};
use super::{Coordinate, Sweep};
use crate::evaluator::{self, Metric, Unit, EVALUATORS};
use crate::figure::Table;
use crate::report::{format, Block};

/// The metric that has a worst domain, marks and a matrix.
const CHANGE: &str = "perplexity_change";
/// Axes that can be columns, and what is said of each.
const COLUMNS: [(&str, &str); 3] = [
    (axis::PRUNE_EXPERTS, "by fraction of the experts that goes"),
    (axis::DROP_LAYERS, "by layers that go"),
    (axis::QUANTIZE, "by type of the weights"),
];
/// Slopes are given for this part of the experts.
const TENTH: f64 = 0.1;

impl Sweep {
    /// Aligned plain text, at most `width` columns wide unless a single column
    /// of numbers is wider.
    pub fn to_text(&self, width: usize) -> String {
        let mut text = String::new();
        for line in self.facts() {
            for line in format::wrap(&line, width) {
                text.push_str(&line);
                text.push('\n');
            }
        }
        for block in blocks(self, &self.summary()) {
            text.push('\n');
            block.text(width, &mut text);
        }
        text
    }

    /// GitHub-flavoured Markdown.
    pub fn to_markdown(&self) -> String {
        let mut text = String::new();
        for block in blocks(self, &self.summary()) {
            block.markdown(&mut text);
            text.push('\n');
        }
        for fact in self.facts() {
            // Infallible: the target is a string.
            let _ = writeln!(text, "- {fact}");
        }
        text
    }

    /// Every table, for a page.
    pub fn tables(&self) -> Vec<Table> {
        let blocks = blocks(self, &self.summary());
        blocks.into_iter().map(Table::from).collect()
    }

    /// Where the numbers come from and how to read them.
    pub fn facts(&self) -> Vec<String> {
        let base = &self.header.base;
        let bootstrap = &base.provenance.bootstrap;
        let tokens: u64 = base.domains().map(|domain| domain.tokens).sum();
        let names: Vec<&str> = base.domains().map(|domain| domain.name.as_str()).collect();
        let original = base.reference.estimate("perplexity", None);
        let original = original.map_or_else(String::new, |estimate| {
            format::cell(Unit::Perplexity, false, estimate)
        });
        let mut facts = vec![
            format!(
                "{} ({}), perplexity {original} on {} tokens of {}",
                base.reference.name,
                format::short(&base.reference.fingerprint),
                format::thousands(tokens),
                names.join(", ")
            ),
            format!(
                "{} points, {} seeds; [{}% intervals]: text and seeds, where there are several; text alone for one",
                self.lines.len(),
                self.seeds(),
                format::rounded(100.0 * bootstrap.confidence, 1)
            ),
            "*: lowest perplexity of those that remove as much; ≈: not distinguishable from it (paired by seed and text, Holm)".to_owned(),
        ];
        facts.extend(base.without_interval());
        facts
    }

    /// Different seeds of all points.
    fn seeds(&self) -> usize {
        let mut seeds = Vec::new();
        for seed in self
            .lines
            .iter()
            .filter_map(|line| line.point.get(axis::SEED))
        {
            if !seeds.contains(&seed) {
                seeds.push(seed);
            }
        }
        seeds.len()
    }
}

fn blocks(sweep: &Sweep, summary: &Summary) -> Vec<Block> {
    let mut blocks = Vec::new();
    let calibrated = values(&summary.cells, axis::CALIBRATE_ON);
    // Grids show one calibration set, the first; the matrix shows the others.
    let shown: Vec<&Cell> = summary
        .cells
        .iter()
        .filter(|cell| {
            let on = cell.point.get(axis::CALIBRATE_ON);
            on.is_none() || on == calibrated.first()
        })
        .collect();
    for (column, about) in COLUMNS {
        let cells: Vec<&Cell> = shown
            .iter()
            .copied()
            .filter(|cell| column_of(cell) == Some(column))
            .collect();
        if !cells.is_empty() {
            blocks.extend(grids(sweep, &cells, column, about));
        }
    }
    if calibrated.len() > 1 {
        blocks.extend(matrices(sweep, summary));
    }
    blocks.extend(cliffs(summary));
    blocks
}

/// The axis that a cell is a column of.
fn column_of(cell: &Cell) -> Option<&'static str> {
    COLUMNS
        .into_iter()
        .map(|(axis, _)| axis)
        .find(|axis| cell.point.get(axis).is_some())
}

/// Values of an axis in order of appearance.
fn values(cells: &[Cell], axis: &str) -> Vec<Coordinate> {
    let mut values = Vec::new();
    for value in cells.iter().filter_map(|cell| cell.point.get(axis)) {
        if !values.contains(value) {
            values.push(value.clone());
        }
    }
    values
}

/// Metrics that are printed: the change of perplexity, and whatever compares
/// with the reference.
fn shown_metrics() -> Vec<&'static Metric> {
    let change = evaluator::metric(CHANGE).ok().map(|(_, metric)| metric);
    let compared = evaluator::metrics()
        .filter(|(index, _)| EVALUATORS[*index].against_reference())
        .map(|(_, metric)| metric);
    change.into_iter().chain(compared).collect()
}

/// Methods down, one axis across: sizes, metrics, worst domains.
fn grids(sweep: &Sweep, cells: &[&Cell], column: &str, about: &str) -> Vec<Block> {
    let left_out = [column, axis::CALIBRATE_ON];
    let mut across: Vec<&Coordinate> = Vec::new();
    let mut down: Vec<String> = Vec::new();
    for cell in cells {
        let label = cell.point.label(&left_out);
        if !down.contains(&label) {
            down.push(label);
        }
        if let Some(value) = cell.point.get(column).filter(|it| !across.contains(it)) {
            across.push(value);
        }
    }
    across.sort_by(|a, b| match (a, b) {
        (Coordinate::Number(a), Coordinate::Number(b)) => a.total_cmp(b),
        _ => std::cmp::Ordering::Equal,
    });
    let block = |title: String, of: &dyn Fn(&Cell) -> String| {
        let row = |label: &String| {
            let cells = across.iter().map(|&value| {
                let here = cells.iter().find(|cell| {
                    cell.point.get(column) == Some(value) && cell.point.label(&left_out) == *label
                });
                here.map_or_else(String::new, |cell| of(cell))
            });
            std::iter::once(label.clone()).chain(cells).collect()
        };
        Block {
            title,
            header: std::iter::once(String::new())
                .chain(across.iter().map(ToString::to_string))
                .collect(),
            rows: down.iter().map(row).collect(),
        }
    };
    let mut blocks = Vec::new();
    for metric in shown_metrics() {
        let marked = metric.name == CHANGE;
        let better = if metric.higher_is_better {
            "higher is better"
        } else {
            "lower is better"
        };
        blocks.push(block(
            format!("{}, {about} ({better})", metric.title),
            &|cell| {
                let Some(estimate) = cell.all.get(metric.name) else {
                    return String::new();
                };
                let text = format::cell(metric.unit, metric.statistic.is_paired(), estimate);
                match cell.rank.filter(|_| marked) {
                    Some(Rank::Best) => text + " *",
                    Some(Rank::NotDistinguishable) => text + " ≈",
                    Some(Rank::Worse) | None => text,
                }
            },
        ));
    }
    if cells.iter().any(|cell| cell.worst.is_some()) {
        blocks.push(block(
            format!("worst domain and its change of perplexity, {about}"),
            &|cell| worst(cell).unwrap_or_default(),
        ));
    }
    let whole = sweep.header.size.bytes as f64;
    blocks.push(block(format!("change of bytes, {about}"), &|cell| {
        let change = cell.size.bytes as f64 / whole - 1.0;
        format::number(Unit::Percent, true, change)
    }));
    blocks
}

/// `python +98.2%`.
fn worst(cell: &Cell) -> Option<String> {
    let worst = cell.worst.as_ref()?;
    let estimate = worst.estimates.get(CHANGE)?;
    let value = format::number(Unit::Percent, true, estimate.value);
    Some(format!("{} {value}", worst.domain))
}

/// Calibrated on down, measured on across, for everything that was tried with
/// several calibration sets.
fn matrices(sweep: &Sweep, summary: &Summary) -> Vec<Block> {
    let mut done = Vec::new();
    let mut blocks = Vec::new();
    for cell in &summary.cells {
        let rest = cell.point.without(&[axis::CALIBRATE_ON]);
        if cell.point.get(axis::CALIBRATE_ON).is_none() || done.contains(&rest) {
            continue;
        }
        let rows: Vec<&Cell> = summary
            .cells
            .iter()
            .filter(|other| other.point.without(&[axis::CALIBRATE_ON]) == rest)
            .collect();
        if rows.len() > 1 {
            let title = format!(
                "{}: change of perplexity, calibrated on (down), measured on (across)",
                rest.label(&[])
            );
            blocks.push(matrix(sweep, title, &rows));
        }
        done.push(rest);
    }
    blocks
}

fn matrix(sweep: &Sweep, title: String, cells: &[&Cell]) -> Block {
    let base = &sweep.header.base;
    let names = || base.domains().map(|domain| domain.name.as_str());
    let shown = |estimate| format::cell(Unit::Percent, true, estimate);
    let rows = cells.iter().map(|cell| {
        let on = cell.point.get(axis::CALIBRATE_ON);
        let mut row = vec![on.map_or_else(String::new, ToString::to_string)];
        row.push(cell.all.get(CHANGE).map_or_else(String::new, shown));
        for name in names() {
            let estimate = cell.domains.get(name).and_then(|own| own.get(CHANGE));
            row.push(estimate.map_or_else(String::new, shown));
        }
        row
    });
    Block {
        title,
        header: ["", "all"]
            .into_iter()
            .chain(names())
            .map(str::to_owned)
            .collect(),
        rows: rows.collect(),
    }
}

fn cliffs(summary: &Summary) -> Option<Block> {
    if summary.cliffs.is_empty() {
        return None;
    }
    let header = [
        "",
        "fraction",
        "loss there",
        "per tenth before",
        "per tenth beyond",
    ];
    let rows = summary.cliffs.iter().map(|cliff| {
        let slope = |mut estimate: crate::compare::Estimate| {
            estimate.value *= TENTH;
            estimate.low = estimate.low.map(|low| low * TENTH);
            estimate.high = estimate.high.map(|high| high * TENTH);
            format::cell(Unit::Nats, true, &estimate)
        };
        vec![
            cliff.point.label(&[]),
            format::cell(Unit::Percent, false, &cliff.fraction),
            format::number(Unit::Nats, true, cliff.loss),
            slope(cliff.before),
            slope(cliff.beyond),
        ]
    });
    Some(Block {
        title: "where quality falls off: two lines through the loss, nats per token".to_owned(),
        header: header.map(str::to_owned).to_vec(),
        rows: rows.collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sweep::tests::{line, sweep_of};
    use crate::sweep::Line;

    fn with(fraction: f64, seed: f64, criterion: &str, on: &str, loss: f64) -> Line {
        let mut line = line(fraction, seed, loss);
        line.point = line
            .point
            .text(axis::CRITERION, criterion)
            .text(axis::CALIBRATE_ON, on);
        line
    }

    fn some() -> Sweep {
        let mut lines = Vec::new();
        for seed in [0.0, 1.0] {
            let extra = 0.001 * seed;
            lines.push(with(0.25, seed, "reap", "mix", 0.05 + extra));
            lines.push(with(0.5, seed, "reap", "mix", 0.3 + extra));
            lines.push(with(0.25, seed, "random", "mix", 0.4 + extra));
            lines.push(with(0.25, seed, "reap", "code", 0.2 + extra));
        }
        sweep_of(lines)
    }

    #[test]
    fn methods_are_down_and_fractions_across() {
        let text = some().to_text(200);
        let block = text
            .split("\n\n")
            .find(|block| block.starts_with("change of perplexity, by fraction"))
            .unwrap();
        let lines: Vec<&str> = block.lines().collect();
        assert_eq!(lines.len(), 4, "{text}");
        assert!(lines[1].contains("0.25") && lines[1].contains("0.5"));
        assert!(
            lines[2].starts_with("reap ") && lines[2].contains(" *"),
            "{block}"
        );
        assert!(lines[3].starts_with("random "), "{block}");
        for title in [
            "top-1 agreement with the reference, by fraction",
            "worst domain and its change of perplexity, by fraction",
            "change of bytes, by fraction",
            "reap 0.25: change of perplexity, calibrated on (down)",
        ] {
            assert!(text.contains(title), "no `{title}` in\n{text}");
        }
        assert!(
            !text.contains("random 0.25: change"),
            "one calibration set is no matrix"
        );
        assert!(!text.contains("falls off"));
    }

    #[test]
    fn the_matrix_has_a_row_for_every_calibration_set() {
        let text = some().to_markdown();
        let matrix = text
            .split("**reap 0.25: change")
            .nth(1)
            .and_then(|rest| rest.split("\n\n").nth(1))
            .unwrap();
        let rows: Vec<&str> = matrix.lines().collect();
        assert!(rows[0].starts_with("|  | all | code | math |"), "{matrix}");
        assert!(
            rows[2].starts_with("| mix | +5.") && rows[3].starts_with("| code | +2"),
            "{matrix}"
        );
        assert_eq!(rows.len(), 4);
    }

    #[test]
    fn a_narrow_terminal_loses_no_number() {
        let sweep = some();
        let numbers = |text: &str| text.matches('[').count();
        for width in [40, 80] {
            assert_eq!(numbers(&sweep.to_text(width)), numbers(&sweep.to_text(300)));
        }
    }
}
