//! A small table as a heat map with its values in it: what calibrating on one
//! domain costs on another.

use super::axis::SMALL;
use super::scale::extent;
use super::style::{step, STEPS};
use super::svg::{text_width, Anchor, Drawing, Path};
use super::unit::Unit;
use super::{drawable_interval, same_length, Plot, Table};
use crate::compare::Estimate;
use crate::report::shortened;
use crate::Result;

/// Rows × columns of estimates.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Short name for ids and files.
    pub name: String,
    /// Heading.
    pub title: String,
    /// How to read it.
    pub description: String,
    /// What rows are: `calibrated on`.
    pub down: String,
    /// What columns are: `evaluated on`.
    pub across: String,
    /// Names of rows: `[R]`.
    pub rows: Vec<String>,
    /// Names of columns: `[C]`.
    pub columns: Vec<String>,
    /// Values: `[R][C]`.
    pub values: Vec<Vec<Estimate>>,
    /// What they count.
    pub unit: Unit,
}

impl Matrix {
    /// The row with the lowest value of a column.
    fn best(&self, column: usize) -> Option<usize> {
        (0..self.rows.len()).min_by(|&a, &b| {
            self.values[a][column]
                .value
                .total_cmp(&self.values[b][column].value)
        })
    }
}

impl Plot for Matrix {
    fn name(&self) -> &str {
        &self.name
    }

    fn title(&self) -> String {
        self.title.clone()
    }

    fn description(&self) -> String {
        format!(
            "{} Darkness goes with the value; the lowest of a column is underlined.",
            self.description
        )
    }

    fn check(&self) -> Result<()> {
        same_length(
            &self.name,
            "columns",
            self.columns.len(),
            self.columns.len(),
        )?;
        same_length(
            &self.name,
            "rows of values",
            self.rows.len(),
            self.values.len(),
        )?;
        for (name, row) in self.rows.iter().zip(&self.values) {
            same_length(
                &self.name,
                &format!("values of `{name}`"),
                self.columns.len(),
                row.len(),
            )?;
            for (column, cell) in self.columns.iter().zip(row) {
                let interval = cell.interval().map(<[f64; 2]>::from);
                drawable_interval(
                    &self.name,
                    &format!("`{name}` on `{column}`"),
                    cell.value,
                    interval,
                )?;
            }
        }
        Ok(())
    }

    fn draw(&self, width: f64) -> Drawing {
        let longest = if width < 500.0 { 10 } else { 24 };
        let names: Vec<String> = self
            .rows
            .iter()
            .map(|name| shortened(name, longest))
            .collect();
        let gutter = names
            .iter()
            .map(|name| text_width(name, SMALL))
            .fold(40.0, f64::max)
            + 26.0;
        let cell = ((width - gutter - 2.0) / self.columns.len() as f64).min(104.0);
        let height = 30.0;
        let top = 40.0;
        let mut drawing = Drawing::new(width);
        drawing.text(
            [gutter, 12.0],
            Anchor::Start,
            "small",
            &format!("{} →", self.across),
        );
        let middle = top + height * self.rows.len() as f64 / 2.0;
        drawing.upright([10.0, middle], "small", &format!("← {}", self.down));
        let fit = ((cell / 6.5) as usize).max(3);
        for (index, name) in self.columns.iter().enumerate() {
            let x = gutter + (index as f64 + 0.5) * cell;
            drawing.text(
                [x, top - 8.0],
                Anchor::Middle,
                "small",
                &shortened(name, fit),
            );
        }
        let (low, high) = extent(self.values.iter().flatten().map(|cell| cell.value));
        let best: Vec<_> = (0..self.columns.len())
            .map(|column| self.best(column))
            .collect();
        for (row, values) in self.values.iter().enumerate() {
            let y = top + row as f64 * height;
            drawing.text([gutter - 8.0, y + 19.0], Anchor::End, "small", &names[row]);
            for (column, estimate) in values.iter().enumerate() {
                let x = gutter + column as f64 * cell;
                let share = if high > low {
                    (estimate.value - low) / (high - low)
                } else {
                    0.0
                };
                let index = step(share);
                let class = if index < STEPS / 2 {
                    "on-low"
                } else {
                    "on-high"
                };
                let interval = estimate.interval().map(<[f64; 2]>::from);
                let hint = format!(
                    "{} {}, {} {}: {}",
                    self.down,
                    self.rows[row],
                    self.across,
                    self.columns[column],
                    self.unit.estimate(estimate.value, interval)
                );
                drawing.hinted(&hint, |drawing| {
                    drawing.rect([x, y], [cell - 2.0, height - 2.0], &format!("q{index}"));
                    let value = self.unit.value(estimate.value);
                    let at = [x + cell / 2.0 - 1.0, y + 18.0];
                    drawing.text(at, Anchor::Middle, &format!("small {class}"), &value);
                    if best[column] == Some(row) {
                        let half = text_width(&value, SMALL) / 2.0;
                        let mut line = Path::default();
                        line.rect([at[0] - half, y + 21.5], [2.0 * half, 1.6]);
                        drawing.path(&line, class);
                    }
                });
            }
        }
        drawing.height = top + height * self.rows.len() as f64 + 4.0;
        drawing
    }

    fn table(&self) -> Table {
        let columns = std::iter::once(format!("{} ↓, {} →", self.down, self.across))
            .chain(self.columns.iter().cloned());
        let mut table = Table::new(self.title.clone(), columns);
        for (name, row) in self.rows.iter().zip(&self.values) {
            let cells = row.iter().map(|cell| {
                self.unit
                    .estimate(cell.value, cell.interval().map(<[f64; 2]>::from))
            });
            table.row(std::iter::once(name.clone()).chain(cells));
        }
        table
    }
}
