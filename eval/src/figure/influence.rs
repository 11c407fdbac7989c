//! How much each layer turns the residual stream, and which layers go.

use super::axis::{base, gutter, legend, vertical, Key, Panel};
use super::mark::Shape;
use super::scale::Scale;
use super::svg::{Anchor, Drawing, Path};
use super::unit::Unit;
use super::{drawable, same_length, Plot, Table};
use crate::Result;

/// Parts of a block: name, class of the line.
const PARTS: [(&str, &str); 2] = [("attention", "thin"), ("experts or MLP", "dots")];

/// A curve over depth.
#[derive(Debug, Clone, PartialEq)]
pub struct Influence {
    /// All layers, in order.
    pub layers: Vec<InfluenceLayer>,
}

/// One layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InfluenceLayer {
    /// Index in the model.
    pub layer: usize,
    /// Whether it goes.
    pub dropped: bool,
    /// Whether its attention, and its experts or MLP, go while it stays.
    pub skipped: [bool; 2],
    /// Block influence: 1 − mean cosine of the residual stream before and
    /// after the layer.
    pub block: f64,
    /// The same of its attention and of its experts or MLP, if known.
    pub parts: Option<[f64; 2]>,
}

impl InfluenceLayer {
    /// What goes, in words; empty if nothing does.
    fn fate(&self) -> &'static str {
        match (self.dropped, self.skipped) {
            (true, _) => "dropped",
            (false, [true, _]) => "without attention",
            (false, [_, true]) => "without experts or MLP",
            (false, [false, false]) => "",
        }
    }
}

impl Influence {
    fn has_parts(&self) -> bool {
        self.layers.iter().all(|layer| layer.parts.is_some())
    }

    fn those(&self, which: impl Fn(&InfluenceLayer) -> bool) -> Vec<String> {
        let layers = self.layers.iter().filter(|layer| which(layer));
        layers.map(|layer| layer.layer.to_string()).collect()
    }
}

impl Plot for Influence {
    fn name(&self) -> &str {
        "influence"
    }

    fn title(&self) -> String {
        "Block influence".to_owned()
    }

    fn description(&self) -> String {
        let mut text = "1 − mean cosine between the residual stream before and after each layer: layers near 0 change little.".to_owned();
        let dropped = self.those(|layer| layer.dropped);
        match dropped.len() {
            0 => {}
            1 => text.push_str(&format!(" Layer {} goes.", dropped[0])),
            _ => text.push_str(&format!(" Layers {} go.", dropped.join(", "))),
        }
        for (part, (name, _)) in PARTS.into_iter().enumerate() {
            let without = self.those(|layer| layer.skipped[part]);
            let layers = match without.len() {
                0 => continue,
                1 => "layer",
                _ => "layers",
            };
            let without = without.join(", ");
            text.push_str(&format!(" The {name} of {layers} {without} go alone."));
        }
        text
    }

    fn check(&self) -> Result<()> {
        same_length(self.name(), "layers", self.layers.len(), self.layers.len())?;
        for layer in &self.layers {
            for value in [layer.block]
                .into_iter()
                .chain(layer.parts.into_iter().flatten())
            {
                drawable(
                    self.name(),
                    &format!("influence of layer {}", layer.layer),
                    value,
                )?;
            }
        }
        Ok(())
    }

    fn draw(&self, width: f64) -> Drawing {
        let mut drawing = Drawing::new(width);
        let mut entries = vec![(Key::Line("curve"), "block".to_owned())];
        if self.has_parts() {
            entries.extend(PARTS.map(|(name, class)| (Key::Line(class), name.to_owned())));
        }
        entries.push((
            Key::Shape(Shape::Circle, 3.6, "fill"),
            "layer stays".to_owned(),
        ));
        if self.layers.iter().any(|layer| !layer.fate().is_empty()) {
            entries.push((
                Key::Shape(Shape::Cross, 5.0, "s1"),
                "layer or sublayer dropped".to_owned(),
            ));
        }
        let top = legend(&mut drawing, 0.0, &entries) + 26.0;
        let bottom = top + 220.0;
        let blocks = self.layers.iter().map(|layer| layer.block);
        let parts = self
            .layers
            .iter()
            .flat_map(|layer| layer.parts.into_iter().flatten());
        let values: Vec<f64> = match self.has_parts() {
            true => blocks.chain(parts).collect(),
            false => blocks.collect(),
        };
        let mut y = Scale::fitting(values.iter().copied(), [bottom, top], 20.0);
        if !y.is_log() {
            y = Scale::linear(values.iter().copied().chain([0.0]), [bottom, top]);
        }
        let panel = Panel {
            left: gutter(y, Unit::Number),
            right: width - 14.0,
            top,
            bottom,
        };
        let heading = format!("influence{}", y.note());
        vertical(&mut drawing, panel, y, Unit::Number, &heading);
        let last = (self.layers.len() - 1).max(1) as f64;
        let inset = 12.0;
        let at = |index: usize| {
            let room = panel.right - panel.left - 2.0 * inset;
            panel.left + inset + room * index as f64 / last
        };
        let curve = |value: &dyn Fn(&InfluenceLayer) -> f64| {
            let mut path = Path::default();
            for (index, layer) in self.layers.iter().enumerate() {
                let point = [at(index), y.at(value(layer))];
                if index == 0 {
                    path.start(point)
                } else {
                    path.to(point)
                };
            }
            path
        };
        if self.has_parts() {
            for (part, (_, class)) in PARTS.into_iter().enumerate() {
                drawing.path(
                    &curve(&|layer| layer.parts.map_or(0.0, |parts| parts[part])),
                    class,
                );
            }
        }
        drawing.path(&curve(&|layer| layer.block), "curve");
        for (index, layer) in self.layers.iter().enumerate() {
            let point = [at(index), y.at(layer.block)];
            let fate = match layer.fate() {
                "" => String::new(),
                fate => format!(", {fate}"),
            };
            let hint = format!(
                "layer {}: {}{fate}",
                layer.layer,
                Unit::Number.value(layer.block)
            );
            drawing.hinted(&hint, |drawing| match layer.dropped {
                true => {
                    drawing.line([point[0], panel.top], [point[0], panel.bottom], "dash");
                    drawing.path(&Shape::Cross.path(point, 6.0), "s1");
                }
                false => drawing.path(&Shape::Circle.path(point, 3.6), "fill"),
            });
            for (part, skipped) in layer.skipped.into_iter().enumerate() {
                if skipped && !layer.dropped {
                    let value = layer.parts.map_or(layer.block, |parts| parts[part]);
                    let point = [point[0], y.at(value)];
                    drawing.path(&Shape::Cross.path(point, 5.0), "s1");
                }
            }
        }
        self.layer_axis(&mut drawing, panel, &at);
        drawing.height = panel.bottom + 42.0;
        drawing
    }

    fn table(&self) -> Table {
        let parts = if self.has_parts() {
            &["attention", "experts or MLP"][..]
        } else {
            &[]
        };
        let columns = [&["layer", "", "block"][..], parts].concat();
        let mut table = Table::new("Influence by layer.", columns);
        for layer in &self.layers {
            let mut cells = vec![
                layer.layer.to_string(),
                layer.fate().to_owned(),
                Unit::Number.value(layer.block),
            ];
            if self.has_parts() {
                cells.extend(
                    layer
                        .parts
                        .into_iter()
                        .flatten()
                        .map(|part| Unit::Number.value(part)),
                );
            }
            table.row(cells);
        }
        table
    }
}

impl Influence {
    /// Names as many layers as there is room for.
    fn layer_axis(&self, drawing: &mut Drawing, panel: Panel, at: &dyn Fn(usize) -> f64) {
        let room = (panel.right - panel.left) / self.layers.len() as f64;
        let stride = ((22.0 / room).ceil() as usize).max(1);
        for (index, layer) in self.layers.iter().enumerate().step_by(stride) {
            let y = panel.bottom + 16.0;
            drawing.text(
                [at(index), y],
                Anchor::Middle,
                "small",
                &layer.layer.to_string(),
            );
        }
        base(drawing, panel, "layer");
    }
}
