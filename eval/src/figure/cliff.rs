//! Loss against the fraction of the experts that goes, and where it breaks off.

use super::axis::{gutter, horizontal, legend, vertical, Key, Panel};
use super::mark::Shape;
use super::pareto::capital;
use super::scale::Scale;
use super::svg::{Anchor, Drawing, Path};
use super::unit::Unit;
use super::{drawable, drawable_interval, same_length, Plot, Table};
use crate::Result;

/// A curve over the fraction of the experts that goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Cliff {
    /// Short name for ids and files.
    pub name: String,
    /// Which series: `reap, calibrated on the mix`.
    pub series: String,
    /// What is measured: `loss, nats per token`.
    pub metric: String,
    /// What that counts.
    pub unit: Unit,
    /// Coverage of the intervals.
    pub confidence: f64,
    /// What was measured, by fraction.
    pub points: Vec<CliffPoint>,
    /// Where quality breaks off, if it does.
    pub breaks: Option<Break>,
    /// Corners of the fitted line: fraction, metric.
    pub fit: Vec<[f64; 2]>,
}

/// One fraction.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CliffPoint {
    /// Fraction of the experts that goes.
    pub fraction: f64,
    /// The metric.
    pub value: f64,
    /// Lower end of its interval.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
}

/// Where two straight lines meet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Break {
    /// Fraction of the experts.
    pub fraction: f64,
    /// Lower end of its interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

impl CliffPoint {
    fn interval(&self) -> Option<[f64; 2]> {
        Some([self.low?, self.high?])
    }
}

impl Cliff {
    fn sorted(&self) -> Vec<CliffPoint> {
        let mut points = self.points.clone();
        points.sort_by(|a, b| a.fraction.total_cmp(&b.fraction));
        points
    }
}

impl Plot for Cliff {
    fn name(&self) -> &str {
        &self.name
    }

    fn title(&self) -> String {
        format!("Where quality falls off: {}", self.series)
    }

    fn description(&self) -> String {
        let mut text = format!(
            "{} against the fraction of the experts that goes, and two straight lines that meet.",
            capital(&self.metric)
        );
        if let Some(found) = self.breaks {
            text.push_str(&format!(
                " They meet at {} of the experts ({:.0}% interval).",
                Unit::Percent.estimate(found.fraction, Some([found.low, found.high])),
                100.0 * self.confidence
            ));
        }
        text
    }

    fn check(&self) -> Result<()> {
        same_length(self.name(), "points", self.points.len(), self.points.len())?;
        drawable(self.name(), "confidence", self.confidence)?;
        for point in &self.points {
            drawable(self.name(), "fraction", point.fraction)?;
            let what = format!("{} at {}", self.metric, point.fraction);
            drawable_interval(self.name(), &what, point.value, point.interval())?;
        }
        if let Some(found) = self.breaks {
            drawable_interval(
                self.name(),
                "break",
                found.fraction,
                Some([found.low, found.high]),
            )?;
        }
        self.fit
            .iter()
            .flatten()
            .try_for_each(|&value| drawable(self.name(), "fitted line", value))
    }

    fn draw(&self, width: f64) -> Drawing {
        let points = self.sorted();
        let mut drawing = Drawing::new(width);
        let mut entries = vec![(
            Key::Shape(Shape::Circle, 3.8, "fill"),
            "measured".to_owned(),
        )];
        if !self.fit.is_empty() {
            entries.push((Key::Line("dash"), "fitted".to_owned()));
        }
        if self.breaks.is_some() {
            entries.push((
                Key::Shape(Shape::Square, 7.0, "faint"),
                "interval of the break".to_owned(),
            ));
        }
        let top = legend(&mut drawing, 0.0, &entries) + 26.0;
        let bottom = top + 260.0;
        let values = points
            .iter()
            .flat_map(|point| {
                [Some(point.value), point.low, point.high]
                    .into_iter()
                    .flatten()
            })
            .chain(self.fit.iter().map(|corner| corner[1]));
        let y = Scale::fitting(values.collect::<Vec<_>>(), [bottom, top], 30.0);
        let panel = Panel {
            left: gutter(y, self.unit),
            right: width - 14.0,
            top,
            bottom,
        };
        let experts = points.iter().map(|point| point.fraction);
        let x = Scale::linear(experts, [panel.left + 6.0, panel.right]);
        if let Some(found) = self.breaks {
            let (low, high) = (x.at(found.low), x.at(found.high));
            drawing.rect(
                [low, panel.top],
                [(high - low).max(1.0), panel.bottom - panel.top],
                "faint",
            );
        }
        let heading = format!("{}{}", self.metric, y.note());
        vertical(&mut drawing, panel, y, self.unit, &heading);
        horizontal(&mut drawing, panel, x, Unit::Percent, "experts that go");
        if let Some(found) = self.breaks {
            let at = x.at(found.fraction);
            drawing.line([at, panel.top], [at, panel.bottom], "rule");
            let (anchor, side) = match at > (panel.left + panel.right) / 2.0 {
                true => (Anchor::End, -5.0),
                false => (Anchor::Start, 5.0),
            };
            let text = format!("break at {}", Unit::Percent.value(found.fraction));
            drawing.text([at + side, panel.top + 12.0], anchor, "small", &text);
        }
        let mut fit = Path::default();
        for (index, corner) in self.fit.iter().enumerate() {
            let at = [x.at(corner[0]), y.at(corner[1])];
            if index == 0 {
                fit.start(at)
            } else {
                fit.to(at)
            };
        }
        drawing.path(&fit, "dash strong-line");
        for point in &points {
            let at = [x.at(point.fraction), y.at(point.value)];
            let hint = format!(
                "{} of the experts go: {}",
                Unit::Percent.value(point.fraction),
                self.unit.estimate(point.value, point.interval())
            );
            drawing.hinted(&hint, |drawing| {
                if let Some(ends) = point.interval() {
                    let [low, high] = ends.map(|end| y.at(end));
                    drawing.line([at[0], low], [at[0], high], "l0");
                }
                drawing.path(&Shape::Circle.path(at, 3.8), "fill");
            });
        }
        drawing.height = panel.bottom + 42.0;
        drawing
    }

    fn table(&self) -> Table {
        let mut table = Table::new(self.title(), ["experts that go", self.metric.as_str()]);
        for point in self.sorted() {
            table.row([
                Unit::Percent.value(point.fraction),
                self.unit.estimate(point.value, point.interval()),
            ]);
        }
        table
    }
}
