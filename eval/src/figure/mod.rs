//! Figures: plain numbers to SVG.
//!
//! One figure a file. A [`Plot`] holds numbers and names only, so that a
//! figure knows neither plans nor statistics nor reports; [`Figure`] is what
//! came of it: the drawing for a page and the one for a phone, and the table
//! behind both. Shapes, hatching and labels say everything that colours say.
//! Putting figures on a page is [`crate::page`]'s part.

mod axis;
mod cliff;
mod domains;
mod heatmap;
mod influence;
mod load;
mod mark;
mod matrix;
mod pareto;
mod scale;
mod style;
pub(crate) mod svg;
mod table;
#[cfg(test)]
mod tests;
mod unit;

pub use cliff::{Break, Cliff, CliffPoint};
pub use domains::{Bar, Domains, Group};
pub use heatmap::{Fate, Heatmap, HeatmapLayer};
pub use influence::{Influence, InfluenceLayer};
pub use load::{Load, LoadLayer};
pub use matrix::Matrix;
pub use pareto::{Pareto, ParetoPoint};
pub use style::Theme;
pub use table::Table;
pub use unit::Unit;

use std::io::Write;
use std::path::Path;

use router_stats::atomic;

use crate::{Error, Result};
use svg::Drawing;

/// Width of a figure on a page, in pixels.
const WIDE: f64 = 760.0;
/// Width of a figure on a phone.
const NARROW: f64 = 340.0;
/// Largest magnitude that can be drawn.
const LARGEST: f64 = 1e100;

/// Something that can be drawn.
pub trait Plot {
    /// Short name for ids and files: `heatmap`.
    fn name(&self) -> &str;

    /// Heading: what is shown.
    fn title(&self) -> String;

    /// How to read it, and what it says, in a sentence or two.
    fn description(&self) -> String;

    /// Whether it can be drawn.
    ///
    /// # Errors
    /// [`Error::Figure`] if there is nothing to draw, or lists do not belong
    /// together.
    fn check(&self) -> Result<()>;

    /// Draws it at a width.
    fn draw(&self, width: f64) -> Drawing;

    /// The numbers.
    fn table(&self) -> Table;
}

/// A drawn figure.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// Short name: `heatmap`.
    pub name: String,
    /// Heading.
    pub title: String,
    /// How to read it, and what it says.
    pub description: String,
    /// The numbers.
    pub table: Table,
    wide: Drawing,
    narrow: Drawing,
}

impl Figure {
    /// Draws a plot.
    ///
    /// # Errors
    /// [`Error::Figure`] for numbers that are not finite, or none at all.
    pub fn new(plot: &dyn Plot) -> Result<Self> {
        plot.check()?;
        Ok(Self {
            name: plot.name().to_owned(),
            title: plot.title(),
            description: plot.description(),
            table: plot.table(),
            wide: plot.draw(WIDE),
            narrow: plot.draw(NARROW),
        })
    }

    /// A file of its own: light, with its style in it.
    pub fn to_svg(&self) -> String {
        let style = Theme::Light.sheet();
        self.wide.to_svg(
            &svg::escape(&self.name),
            "fig",
            &self.title,
            &self.description,
            Some(&style),
        ) + "\n"
    }

    /// Writes that file, so that `path` never holds half of it.
    ///
    /// # Errors
    /// [`Io`](router_stats::Error::Io)
    pub fn write(&self, path: &Path) -> Result<()> {
        let svg = self.to_svg();
        Ok(atomic::write(path, |file| file.write_all(svg.as_bytes()))?)
    }

    /// Both drawings for a page that holds the style of a [`Theme`]: the
    /// classes `wide` and `narrow` say which is which.
    pub(crate) fn to_html(&self) -> String {
        [("wide", &self.wide), ("narrow", &self.narrow)]
            .map(|(class, drawing)| {
                drawing.to_svg(
                    &svg::escape(&format!("{}-{class}", self.name)),
                    &format!("fig {class}"),
                    &self.title,
                    &self.description,
                    None,
                )
            })
            .join("\n")
    }
}

/// Fails for a number that cannot be drawn.
fn drawable(figure: &str, field: &str, value: f64) -> Result<()> {
    if value.is_finite() && value.abs() <= LARGEST {
        return Ok(());
    }
    Err(Error::Figure {
        figure: figure.to_owned(),
        what: field.to_owned(),
        expected: format!("a number up to {LARGEST:e}"),
        found: value.to_string(),
    })
}

/// Fails unless the bounds hold a value between them.
fn drawable_interval(
    figure: &str,
    field: &str,
    value: f64,
    interval: Option<[f64; 2]>,
) -> Result<()> {
    drawable(figure, field, value)?;
    let Some([low, high]) = interval else {
        return Ok(());
    };
    drawable(figure, field, low)?;
    drawable(figure, field, high)?;
    if low <= high {
        return Ok(());
    }
    Err(Error::Figure {
        figure: figure.to_owned(),
        what: format!("interval of {field}"),
        expected: "its lower end first".to_owned(),
        found: format!("[{low}, {high}]"),
    })
}

/// Fails if there is nothing to draw, or lists that belong together differ in
/// length.
fn same_length(figure: &str, what: &str, expected: usize, found: usize) -> Result<()> {
    if expected > 0 && expected == found {
        return Ok(());
    }
    let expected = match expected {
        0 => "some".to_owned(),
        n => n.to_string(),
    };
    Err(Error::Figure {
        figure: figure.to_owned(),
        what: what.to_owned(),
        expected,
        found: found.to_string(),
    })
}
