//! Quality against bytes, with the points that nothing beats.

use std::collections::BTreeMap;

use super::axis::{class_of_series, gutter, horizontal, legend, vertical, Key, Panel, SMALL};
use super::mark::Shape;
use super::scale::Scale;
use super::style::SERIES;
use super::svg::{text_width, Anchor, Drawing, Path};
use super::unit::Unit;
use super::{drawable, drawable_interval, same_length, Plot, Table};
use crate::report::shortened;
use crate::Result;

/// Most points that are named beside their marks.
const NAMED: usize = 14;

/// Points in the plane of bytes and a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct Pareto {
    /// Short name for ids and files.
    pub name: String,
    /// What is measured: `change of perplexity`.
    pub metric: String,
    /// What that counts.
    pub unit: Unit,
    /// Whether less is better.
    pub lower_is_better: bool,
    /// Coverage of the intervals.
    pub confidence: f64,
    /// The points.
    pub points: Vec<ParetoPoint>,
}

/// One model.
#[derive(Debug, Clone, PartialEq)]
pub struct ParetoPoint {
    /// Name.
    pub name: String,
    /// What it is an example of: a criterion, a way to quantise.
    pub series: String,
    /// Bytes of weights.
    pub bytes: u64,
    /// The metric.
    pub value: f64,
    /// Lower end of its interval.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
    /// Whether no other point has fewer bytes and is better.
    pub on_front: bool,
}

impl ParetoPoint {
    fn interval(&self) -> Option<[f64; 2]> {
        Some([self.low?, self.high?])
    }
}

impl Pareto {
    /// Sets [`ParetoPoint::on_front`] of every point.
    pub fn find_front(&mut self) {
        let better = |a: f64, b: f64| if self.lower_is_better { a < b } else { a > b };
        let beaten = |point: &ParetoPoint| {
            self.points.iter().any(|other| {
                let (smaller, same) = (other.bytes < point.bytes, other.bytes == point.bytes);
                let (finer, equal) = (better(other.value, point.value), other.value == point.value);
                (smaller && (finer || equal)) || (same && finer)
            })
        };
        let front: Vec<bool> = self.points.iter().map(|point| !beaten(point)).collect();
        for (point, on_front) in self.points.iter_mut().zip(front) {
            point.on_front = on_front;
        }
    }

    /// Names of the series, in order of appearance.
    fn series(&self) -> BTreeMap<&str, usize> {
        let mut series = BTreeMap::new();
        for point in &self.points {
            let next = series.len();
            series.entry(point.series.as_str()).or_insert(next);
        }
        series
    }

    /// The points of the front, smallest first.
    fn front(&self) -> Vec<&ParetoPoint> {
        let mut front: Vec<_> = self.points.iter().filter(|point| point.on_front).collect();
        front.sort_by(|a, b| a.bytes.cmp(&b.bytes).then(a.value.total_cmp(&b.value)));
        front
    }

    /// A step from point to point: what is reached within so many bytes.
    fn steps(front: &[&ParetoPoint], x: Scale, y: Scale) -> Path {
        let mut path = Path::default();
        let mut before: Option<f64> = None;
        for point in front {
            let at = [x.at(point.bytes as f64), y.at(point.value)];
            match before {
                None => path.start(at),
                Some(height) => path.to([at[0], height]).to(at),
            };
            before = Some(at[1]);
        }
        path
    }

    /// Names beside marks, where they touch neither another name nor a mark.
    fn names(&self, drawing: &mut Drawing, panel: Panel, spots: &[[f64; 2]]) {
        let mut taken: Vec<[f64; 4]> = spots
            .iter()
            .map(|[x, y]| [x - 5.0, y - 5.0, x + 5.0, y + 5.0])
            .collect();
        let order = (0..self.points.len()).filter(|&index| self.points[index].on_front);
        let order: Vec<usize> = match self.points.len() <= NAMED {
            true => order
                .chain((0..self.points.len()).filter(|&i| !self.points[i].on_front))
                .collect(),
            false => order.take(NAMED).collect(),
        };
        for index in order {
            let name = shortened(&self.points[index].name, 22);
            let width = text_width(&name, SMALL);
            let [x, y] = spots[index];
            let choices = [
                (x + 8.0, y - 5.0),
                (x - 8.0 - width, y - 5.0),
                (x + 8.0, y + 13.0),
                (x - 8.0 - width, y + 13.0),
            ];
            let free = choices.into_iter().find(|(left, base)| {
                let own = [*left, base - 10.0, left + width, base + 2.0];
                own[0] >= panel.left
                    && own[2] <= panel.right + 10.0
                    && own[1] >= panel.top - 6.0
                    && own[3] <= panel.bottom
                    && taken.iter().all(|other| {
                        own[2] < other[0]
                            || other[2] < own[0]
                            || own[3] < other[1]
                            || other[3] < own[1]
                    })
            });
            if let Some((left, base)) = free {
                taken.push([left, base - 10.0, left + width, base + 2.0]);
                drawing.text([left, base], Anchor::Start, "small", &name);
            }
        }
    }
}

impl Plot for Pareto {
    fn name(&self) -> &str {
        &self.name
    }

    fn title(&self) -> String {
        "Quality against bytes".to_owned()
    }

    fn description(&self) -> String {
        let better = if self.lower_is_better {
            "lower"
        } else {
            "higher"
        };
        let front: Vec<String> = self
            .front()
            .iter()
            .map(|point| point.name.clone())
            .collect();
        let most = 6;
        let names = match front.len() {
            n if n > most => format!("{} and {} more", front[..most].join(", "), n - most),
            _ => front.join(", "),
        };
        format!(
            "{} against bytes of weights; {better} and further left is better. Whiskers are {:.0}% intervals. \
             The line joins what no smaller model is as good as: {names}.",
            capital(&self.metric),
            100.0 * self.confidence
        )
    }

    fn check(&self) -> Result<()> {
        same_length(&self.name, "points", self.points.len(), self.points.len())?;
        drawable(&self.name, "confidence", self.confidence)?;
        for point in &self.points {
            drawable_interval(
                &self.name,
                &format!("`{}`", point.name),
                point.value,
                point.interval(),
            )?;
        }
        Ok(())
    }

    fn draw(&self, width: f64) -> Drawing {
        let series = self.series();
        let mut drawing = Drawing::new(width);
        let mut names: Vec<(&str, usize)> =
            series.iter().map(|(name, index)| (*name, *index)).collect();
        names.sort_by_key(|(_, index)| *index);
        let mut entries: Vec<_> = names
            .into_iter()
            .map(|(name, index)| (Key::Series(index), shortened(name, 32)))
            .collect();
        entries.push((Key::Line("dash"), "front".to_owned()));
        let top = legend(&mut drawing, 0.0, &entries) + 28.0;
        let bottom = top + if width < 500.0 { 260.0 } else { 340.0 };
        let values = self.points.iter().flat_map(|point| {
            [Some(point.value), point.low, point.high]
                .into_iter()
                .flatten()
        });
        let y = Scale::uneven(values, [bottom, top], 8.0);
        let panel = Panel {
            left: gutter(y, self.unit),
            right: width - 14.0,
            top,
            bottom,
        };
        let bytes = self.points.iter().map(|point| point.bytes as f64);
        let x = Scale::fitting(bytes, [panel.left + 8.0, panel.right], 30.0);
        let heading = format!("{}{}", self.metric, y.note());
        vertical(&mut drawing, panel, y, self.unit, &heading);
        horizontal(&mut drawing, panel, x, Unit::Bytes, "bytes of weights");
        drawing.path(&Self::steps(&self.front(), x, y), "dash strong-line");
        let mut spots = Vec::new();
        for point in &self.points {
            let series = series[point.series.as_str()];
            let at = [x.at(point.bytes as f64), y.at(point.value)];
            spots.push(at);
            let hint = format!(
                "{}: {}, {}",
                point.name,
                self.unit.estimate(point.value, point.interval()),
                Unit::Bytes.value(point.bytes as f64)
            );
            drawing.hinted(&hint, |drawing| {
                if let Some([low, high]) = point.interval() {
                    let class = format!("l{}", series % SERIES);
                    let (low, high) = (y.at(low), y.at(high));
                    let mut whisker = Path::default();
                    whisker.start([at[0], low]).to([at[0], high]);
                    for end in [low, high] {
                        whisker.start([at[0] - 3.0, end]).to([at[0] + 3.0, end]);
                    }
                    drawing.path(&whisker, &class);
                }
                drawing.path(&Shape::of(series).path(at, 4.5), &class_of_series(series));
            });
        }
        self.names(&mut drawing, panel, &spots);
        drawing.height = panel.bottom + 42.0;
        drawing
    }

    fn table(&self) -> Table {
        let mut table = Table::new(
            format!("{} and bytes.", capital(&self.metric)),
            ["model", "series", "bytes", self.metric.as_str(), "front"],
        );
        for point in &self.points {
            table.row([
                point.name.clone(),
                point.series.clone(),
                Unit::Bytes.value(point.bytes as f64),
                self.unit.estimate(point.value, point.interval()),
                if point.on_front { "yes" } else { "" }.to_owned(),
            ]);
        }
        table
    }
}

/// With a capital letter first.
pub(super) fn capital(text: &str) -> String {
    let mut characters = text.chars();
    characters
        .next()
        .map(|first| first.to_uppercase().chain(characters).collect())
        .unwrap_or_default()
}
