//! Saliency of every expert of every layer, with what stays and what goes.

use super::axis::{legend, Key, SMALL};
use super::mark::Shape;
use super::style::{step, STEPS};
use super::svg::{text_width, Anchor, Drawing, Grid, Path};
use super::unit::Unit;
use super::{drawable, same_length, Plot, Table};
use crate::Result;

/// Side of an expert that goes, against that of one that stays.
const SMALLER: f64 = 0.42;
/// Smallest column that shows the difference.
const LEAST: f64 = 5.0;

/// Layers × experts, a cell each. Saliencies of different layers are on
/// different scales, and are decided on apart, so colours are relative to the
/// most salient expert of the layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Heatmap {
    /// What saliency is: `reap`.
    pub criterion: String,
    /// Layers that have experts, in order.
    pub layers: Vec<HeatmapLayer>,
}

/// One layer.
#[derive(Debug, Clone, PartialEq)]
pub struct HeatmapLayer {
    /// Index in the model.
    pub layer: usize,
    /// Whether all its experts go, with the layer or without it.
    pub dropped: bool,
    /// Saliency of each expert: `[E]`.
    pub scores: Vec<f64>,
    /// What becomes of each: `[E]`; empty if nothing was decided.
    pub fates: Vec<Fate>,
}

/// What becomes of an expert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It stays.
    Kept,
    /// It stays whatever its saliency.
    Protected,
    /// It goes.
    Dropped,
}

impl HeatmapLayer {
    /// Saliency against the largest of the layer, 0 to 1.
    fn shares(&self) -> Vec<f64> {
        let least = self.scores.iter().copied().fold(0.0, f64::min);
        let most = self.scores.iter().copied().fold(least, f64::max);
        let range = most - least;
        self.scores
            .iter()
            .map(|score| {
                if range > 0.0 {
                    (score - least) / range
                } else {
                    1.0
                }
            })
            .collect()
    }

    fn fate(&self, expert: usize) -> Fate {
        self.fates.get(expert).copied().unwrap_or(Fate::Kept)
    }
}

impl Heatmap {
    fn decided(&self) -> bool {
        self.layers.iter().any(|layer| !layer.fates.is_empty())
    }

    fn has(&self, fate: Fate) -> bool {
        self.layers
            .iter()
            .any(|layer| !layer.dropped && layer.fates.contains(&fate))
    }

    fn experts(&self) -> usize {
        self.layers
            .iter()
            .map(|l| l.scores.len())
            .max()
            .unwrap_or(0)
    }

    /// Adds one cell per expert, gathered by colour.
    fn cells(&self, drawing: &mut Drawing, grid: Grid) {
        let [width, height] = grid.cell;
        let gap = if width.min(height) >= 8.0 { 1.0 } else { 0.4 };
        let mut steps: Vec<Path> = vec![Path::default(); STEPS];
        let (mut low, mut high, mut dropped) = (Path::default(), Path::default(), Path::default());
        for (row, layer) in self.layers.iter().enumerate() {
            let at = |expert: usize| {
                let (column, row) = match grid.transposed {
                    true => (row, expert),
                    false => (expert, row),
                };
                [
                    grid.left + column as f64 * width,
                    grid.top + row as f64 * height,
                ]
            };
            if layer.dropped {
                let size = match grid.transposed {
                    true => [width - gap, layer.scores.len() as f64 * height - gap],
                    false => [layer.scores.len() as f64 * width - gap, height - gap],
                };
                dropped.hatch(at(0), size, 5.0).rect(at(0), size);
                continue;
            }
            for (expert, share) in layer.shares().into_iter().enumerate() {
                let [x, y] = at(expert);
                let full = [width - gap, height - gap];
                let middle = [x + full[0] / 2.0, y + full[1] / 2.0];
                let index = step(share);
                match layer.fate(expert) {
                    Fate::Dropped => {
                        let side = SMALLER * full[0].min(full[1]);
                        steps[index].rect(middle.map(|m| m - side / 2.0), [side, side]);
                    }
                    fate => {
                        steps[index].rect([x, y], full);
                        if fate == Fate::Protected {
                            let mark = if index < STEPS / 2 {
                                &mut low
                            } else {
                                &mut high
                            };
                            let r = 0.2 * full[0].min(full[1]);
                            Shape::Circle.add(mark, middle, r);
                        }
                    }
                }
            }
        }
        for (index, path) in steps.iter().enumerate() {
            drawing.path(path, &format!("q{index}"));
        }
        drawing.path(&low, "on-low");
        drawing.path(&high, "on-high");
        drawing.path(&dropped, "hatch");
    }

    /// The ramp with its ends named, and the shapes.
    fn key(&self, drawing: &mut Drawing, top: f64) -> f64 {
        let (x, y) = (2.0, top);
        let width = 120.0 / STEPS as f64;
        drawing.text([x, y + 11.0], Anchor::Start, "small", "0");
        for index in 0..STEPS {
            drawing.rect(
                [x + 12.0 + index as f64 * width, y + 1.0],
                [width + 0.3, 12.0],
                &format!("q{index}"),
            );
        }
        drawing.text(
            [x + 138.0, y + 11.0],
            Anchor::Start,
            "small",
            "highest saliency of the layer",
        );
        let mut entries = Vec::new();
        if self.decided() {
            entries.push((Key::Shape(Shape::Square, 7.0, "q14"), "kept".to_owned()));
        }
        if self.has(Fate::Dropped) {
            entries.push((Key::Shape(Shape::Square, 3.0, "q14"), "dropped".to_owned()));
        }
        if self.has(Fate::Protected) {
            entries.push((
                Key::Shape(Shape::Circle, 2.5, "solid"),
                "dot: protected, kept whatever its saliency".to_owned(),
            ));
        }
        if self.layers.iter().any(|layer| layer.dropped) {
            entries.push((
                Key::Hatch,
                "all dropped, with the layer or alone".to_owned(),
            ));
        }
        if entries.is_empty() {
            y + 22.0
        } else {
            legend(drawing, y + 20.0, &entries)
        }
    }
}

impl Plot for Heatmap {
    fn name(&self) -> &str {
        "heatmap"
    }

    fn title(&self) -> String {
        if self.decided() {
            "Which experts stay".to_owned()
        } else {
            "Saliency of the experts".to_owned()
        }
    }

    fn description(&self) -> String {
        let layers = self.layers.len();
        let mut text = format!(
            "Saliency ({}) of each expert of {layers} layers, against the most salient expert of its layer.",
            self.criterion
        );
        if self.decided() {
            let staying = self.layers.iter().filter(|layer| !layer.dropped);
            let (kept, all) = staying.fold((0, 0), |(kept, all), layer| {
                let gone = (0..layer.scores.len())
                    .filter(|&expert| layer.fate(expert) == Fate::Dropped)
                    .count();
                (kept + layer.scores.len() - gone, all + layer.scores.len())
            });
            let dropped = self.layers.iter().filter(|layer| layer.dropped).count();
            text.push_str(&format!(
                " {kept} of {all} experts stay (full squares), the others go (small squares)"
            ));
            match dropped {
                0 => {}
                1 => text.push_str("; one more layer goes, or loses all its experts (hatched)"),
                _ => text.push_str(&format!(
                    "; {dropped} more layers go, or lose all their experts (hatched)"
                )),
            }
            text.push('.');
        }
        text
    }

    fn check(&self) -> Result<()> {
        same_length(self.name(), "layers", self.layers.len(), self.layers.len())?;
        for layer in &self.layers {
            let experts = layer.scores.len();
            let what = format!("experts of layer {}", layer.layer);
            same_length(self.name(), &what, experts, experts)?;
            if !layer.fates.is_empty() {
                same_length(self.name(), &what, experts, layer.fates.len())?;
            }
            for &score in &layer.scores {
                let what = format!("saliency in layer {}", layer.layer);
                drawable(self.name(), &what, score)?;
            }
        }
        Ok(())
    }

    fn draw(&self, width: f64) -> Drawing {
        let (layers, experts) = (self.layers.len(), self.experts());
        let label = |layer: &HeatmapLayer| layer.layer.to_string();
        let gutter = 26.0
            + self
                .layers
                .iter()
                .map(|layer| text_width(&label(layer), SMALL))
                .fold(text_width(&experts.to_string(), SMALL), f64::max);
        let room = width - gutter - 2.0;
        let transposed = room / (experts as f64) < LEAST && layers < experts;
        let (columns, rows) = match transposed {
            true => (layers, experts),
            false => (experts, layers),
        };
        let mut drawing = Drawing::new(width);
        let top = self.key(&mut drawing, 2.0) + 26.0;
        let cell_width = (room / columns as f64).min(40.0);
        let cell = [cell_width, cell_width.clamp(6.0, 20.0)];
        let grid = Grid {
            left: gutter,
            top,
            cell,
            transposed,
        };
        let (across, down) = match transposed {
            true => ("layer", "expert"),
            false => ("expert", "layer"),
        };
        drawing.text(
            [gutter, top - 16.0],
            Anchor::Start,
            "small",
            &format!("{across} →"),
        );
        drawing.upright(
            [9.0, top + 24.0_f64.min(rows as f64 * cell[1] / 2.0)],
            "small",
            &format!("← {down}"),
        );
        let name = |of_layers: bool, index: usize| match of_layers {
            true => self.layers.get(index).map(label).unwrap_or_default(),
            false => index.to_string(),
        };
        let stride = |size: f64, least: f64| ((least / size).ceil() as usize).max(1);
        let widest = text_width(&name(transposed, columns - 1), SMALL) + 6.0;
        for column in (0..columns).step_by(stride(cell[0], widest)) {
            drawing.text(
                [gutter + (column as f64 + 0.5) * cell[0], top - 4.0],
                Anchor::Middle,
                "small",
                &name(transposed, column),
            );
        }
        for row in (0..rows).step_by(stride(cell[1], 12.0)) {
            drawing.text(
                [gutter - 6.0, top + (row as f64 + 0.5) * cell[1] + 4.0],
                Anchor::End,
                "small",
                &name(!transposed, row),
            );
        }
        self.cells(&mut drawing, grid);
        drawing.grid = Some(grid);
        drawing.height = top + rows as f64 * cell[1] + 4.0;
        drawing
    }

    fn table(&self) -> Table {
        let mut caption = format!("Saliency ({}) by layer and expert.", self.criterion);
        if self.decided() {
            caption.push_str(" In brackets: dropped. With a star: protected.");
        }
        let columns = std::iter::once("layer".to_owned())
            .chain((0..self.experts()).map(|expert| expert.to_string()));
        let mut table = Table::new(caption, columns);
        for layer in &self.layers {
            let cells = layer.scores.iter().enumerate().map(|(expert, &score)| {
                let value = Unit::Number.value(score);
                match layer.fate(expert) {
                    _ if layer.dropped => format!("({value})"),
                    Fate::Dropped => format!("({value})"),
                    Fate::Protected => format!("{value}*"),
                    Fate::Kept => value,
                }
            });
            table.row(std::iter::once(layer.layer.to_string()).chain(cells));
        }
        table
    }
}
