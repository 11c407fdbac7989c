//! What is lost on each domain.

use super::axis::{horizontal, Panel, SMALL};
use super::pareto::capital;
use super::scale::Scale;
use super::style::SERIES;
use super::svg::{text_width, Anchor, Drawing, Path};
use super::unit::Unit;
use super::{drawable, drawable_interval, same_length, Plot, Table};
use crate::report::shortened;
use crate::Result;

const BAR: f64 = 13.0;
const ROW: f64 = 20.0;

/// Groups of bars, a group for each domain.
#[derive(Debug, Clone, PartialEq)]
pub struct Domains {
    /// What is measured: `change of perplexity`.
    pub metric: String,
    /// What that counts.
    pub unit: Unit,
    /// Coverage of the intervals.
    pub confidence: f64,
    /// The groups, in order.
    pub groups: Vec<Group>,
}

/// One domain.
#[derive(Debug, Clone, PartialEq)]
pub struct Group {
    /// Its name.
    pub domain: String,
    /// A bar for each model.
    pub bars: Vec<Bar>,
}

/// One model on one domain.
#[derive(Debug, Clone, PartialEq)]
pub struct Bar {
    /// Name of the model.
    pub name: String,
    /// The metric.
    pub value: f64,
    /// Lower end of its interval.
    pub low: Option<f64>,
    /// Upper end.
    pub high: Option<f64>,
}

impl Bar {
    fn interval(&self) -> Option<[f64; 2]> {
        Some([self.low?, self.high?])
    }
}

impl Domains {
    fn bars(&self) -> impl Iterator<Item = &Bar> + Clone {
        self.groups.iter().flat_map(|group| &group.bars)
    }

    fn is_grouped(&self) -> bool {
        self.groups.iter().any(|group| group.bars.len() > 1)
    }
}

impl Plot for Domains {
    fn name(&self) -> &str {
        "domains"
    }

    fn title(&self) -> String {
        format!("{} by domain", capital(&self.metric))
    }

    fn description(&self) -> String {
        format!(
            "{} on each kind of text, with {:.0}% intervals.",
            capital(&self.metric),
            100.0 * self.confidence
        )
    }

    fn check(&self) -> Result<()> {
        let bars = self.bars().count();
        same_length(self.name(), "bars", bars, bars)?;
        drawable(self.name(), "confidence", self.confidence)?;
        for group in &self.groups {
            for bar in &group.bars {
                let what = format!("`{}` on `{}`", bar.name, group.domain);
                drawable_interval(self.name(), &what, bar.value, bar.interval())?;
            }
        }
        Ok(())
    }

    fn draw(&self, width: f64) -> Drawing {
        let narrow = width < 500.0;
        let mut drawing = Drawing::new(width);
        let longest = if narrow { 13 } else { 26 };
        let labels = |group: &Group| -> Vec<String> {
            group
                .bars
                .iter()
                .map(|bar| {
                    shortened(
                        if self.is_grouped() {
                            &bar.name
                        } else {
                            &group.domain
                        },
                        longest,
                    )
                })
                .collect()
        };
        let gutter = self
            .groups
            .iter()
            .flat_map(labels)
            .map(|label| text_width(&label, SMALL))
            .fold(30.0, f64::max)
            + 12.0;
        let number = |bar: &Bar| {
            self.unit
                .estimate(bar.value, bar.interval().filter(|_| !narrow))
        };
        let numbers = self
            .bars()
            .map(|bar| text_width(&number(bar), SMALL))
            .fold(0.0, f64::max);
        let heading = if self.is_grouped() { 20.0 } else { 0.0 };
        let height: f64 = self
            .groups
            .iter()
            .map(|group| heading + ROW * group.bars.len() as f64 + 4.0)
            .sum();
        let panel = Panel {
            left: gutter,
            right: (width - numbers - 12.0).max(gutter + 60.0),
            top: 6.0,
            bottom: 6.0 + height,
        };
        let values = self
            .bars()
            .flat_map(|bar| [Some(bar.value), bar.low, bar.high].into_iter().flatten());
        let scale = Scale::linear(values.chain([0.0]), [panel.left, panel.right]);
        horizontal(&mut drawing, panel, scale, self.unit, &self.metric);
        let mut y = panel.top;
        for group in &self.groups {
            if self.is_grouped() {
                drawing.text(
                    [2.0, y + 15.0],
                    Anchor::Start,
                    "strong",
                    &shortened(&group.domain, 40),
                );
            }
            y += heading;
            for (index, (bar, label)) in group.bars.iter().zip(labels(group)).enumerate() {
                let middle = y + ROW / 2.0;
                drawing.text([gutter - 6.0, middle + 4.0], Anchor::End, "small", &label);
                let hint = format!(
                    "{}, {}: {}",
                    bar.name,
                    group.domain,
                    self.unit.estimate(bar.value, bar.interval())
                );
                drawing.hinted(&hint, |drawing| {
                    draw_bar(drawing, bar, scale, middle, index);
                });
                drawing.text(
                    [width - numbers - 4.0, middle + 4.0],
                    Anchor::Start,
                    "small",
                    &number(bar),
                );
                y += ROW;
            }
            y += 4.0;
        }
        let zero = scale.at(0.0);
        drawing.line([zero, panel.top], [zero, panel.bottom], "rule");
        drawing.height = panel.bottom + 42.0;
        drawing
    }

    fn table(&self) -> Table {
        let mut table = Table::new(self.title(), ["domain", "model", self.metric.as_str()]);
        for group in &self.groups {
            for bar in &group.bars {
                table.row([
                    group.domain.clone(),
                    bar.name.clone(),
                    self.unit.estimate(bar.value, bar.interval()),
                ]);
            }
        }
        table
    }
}

fn draw_bar(drawing: &mut Drawing, bar: &Bar, scale: Scale, middle: f64, index: usize) {
    let (zero, end) = (scale.at(0.0), scale.at(bar.value));
    drawing.rect(
        [zero.min(end), middle - BAR / 2.0],
        [(end - zero).abs(), BAR],
        &format!("s{} bar", index % SERIES),
    );
    let Some([low, high]) = bar.interval() else {
        return;
    };
    let (low, high) = (scale.at(low), scale.at(high));
    let mut whisker = Path::default();
    whisker.start([low, middle]).to([high, middle]);
    for at in [low, high] {
        whisker.start([at, middle - 3.5]).to([at, middle + 3.5]);
    }
    drawing.path(&whisker, "stroke");
}
