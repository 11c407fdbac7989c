//! How many tokens each expert gets, before and after.

use super::axis::{horizontal, legend, Key, Panel, SMALL};
use super::mark::Shape;
use super::scale::Scale;
use super::svg::{text_width, Anchor, Drawing, Path};
use super::unit::Unit;
use super::{drawable, same_length, Plot, Table};
use crate::Result;

/// Layers as rows, experts as marks at the share of tokens they get.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    /// Text that the loads were counted on: `calibration text, 32,768 tokens`.
    pub text: String,
    /// Layers that have experts, in order.
    pub layers: Vec<LoadLayer>,
}

/// One layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadLayer {
    /// Index in the model.
    pub layer: usize,
    /// Whether all its experts go, with the layer or without it.
    pub dropped: bool,
    /// Share of the layer's tokens that are routed to each expert: `[E]`. They
    /// add up to the experts per token.
    pub before: Vec<f64>,
    /// Whether each stays: `[E]`; empty if nothing was decided.
    pub kept: Vec<bool>,
    /// Shares in the pruned model by original index, if they were counted:
    /// `[E]`, 0 for those that went. `None` too for a layer that went.
    pub after: Option<Vec<f64>>,
}

impl LoadLayer {
    fn stays(&self, expert: usize) -> bool {
        self.kept.get(expert).copied().unwrap_or(true)
    }

    /// Largest share, and the share that all would have if they were equal.
    fn busiest(shares: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
        let count = shares.clone().count().max(1) as f64;
        (
            shares.clone().fold(0.0, f64::max),
            shares.sum::<f64>() / count,
        )
    }

    /// Shares of those that stay, in the pruned model.
    fn left(&self) -> Option<impl Iterator<Item = f64> + Clone + '_> {
        let after = self.after.as_ref()?;
        Some(
            (0..after.len())
                .filter(|&expert| self.stays(expert))
                .map(|expert| after[expert]),
        )
    }
}

impl Load {
    fn counted(&self) -> bool {
        self.layers.iter().any(|layer| layer.after.is_some())
    }

    fn decided(&self) -> bool {
        self.layers.iter().any(|layer| !layer.kept.is_empty())
    }

    /// Share of the routing decisions of the layers that stay which went to
    /// experts that go.
    fn lost(&self) -> f64 {
        let layers = self.layers.iter().filter(|layer| !layer.dropped);
        let (mut lost, mut all) = (0.0, 0.0);
        for layer in layers {
            for (expert, share) in layer.before.iter().enumerate() {
                all += share;
                lost += if layer.stays(expert) { 0.0 } else { *share };
            }
        }
        if all > 0.0 {
            lost / all
        } else {
            0.0
        }
    }
}

impl Plot for Load {
    fn name(&self) -> &str {
        "load"
    }

    fn title(&self) -> String {
        match (self.decided(), self.counted()) {
            (_, true) => "Routing load before and after".to_owned(),
            (true, false) => "Routing load of the original".to_owned(),
            (false, false) => "Routing load".to_owned(),
        }
    }

    fn description(&self) -> String {
        let mut text = format!(
            "Share of tokens that each expert gets, counted on {}.",
            self.text
        );
        if self.decided() {
            text.push_str(&format!(
                " Experts that go took {} of the routing of the layers that stay.",
                Unit::Percent.value(self.lost())
            ));
        }
        let worst = self
            .layers
            .iter()
            .filter_map(|layer| {
                let (most, even) = LoadLayer::busiest(layer.left()?);
                (even > 0.0).then(|| (layer.layer, most / even))
            })
            .max_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((layer, times)) = worst {
            text.push_str(&format!(
                " Afterwards the busiest expert gets {times:.1} times an even share (layer {layer})."
            ));
        }
        text
    }

    fn check(&self) -> Result<()> {
        same_length(self.name(), "layers", self.layers.len(), self.layers.len())?;
        for layer in &self.layers {
            let what = format!("experts of layer {}", layer.layer);
            let experts = layer.before.len();
            same_length(self.name(), &what, experts, experts)?;
            if !layer.kept.is_empty() {
                same_length(self.name(), &what, experts, layer.kept.len())?;
            }
            if let Some(after) = &layer.after {
                same_length(self.name(), &what, experts, after.len())?;
            }
            for &share in layer.before.iter().chain(layer.after.iter().flatten()) {
                drawable(
                    self.name(),
                    &format!("load in layer {}", layer.layer),
                    share,
                )?;
            }
        }
        Ok(())
    }

    fn draw(&self, width: f64) -> Drawing {
        let mut drawing = Drawing::new(width);
        let row = match (self.counted(), self.layers.len()) {
            (true, 0..=24) => 30.0,
            (true, _) | (false, 0..=24) => 20.0,
            (false, _) => 14.0,
        };
        let mut entries = vec![(Key::Shape(Shape::Circle, 4.0, "open"), "before".to_owned())];
        if self.decided() {
            entries[0].1 = "before, stays".to_owned();
            entries.push((
                Key::Shape(Shape::Cross, 4.0, "l1"),
                "before, goes".to_owned(),
            ));
        }
        if self.counted() {
            entries.push((
                Key::Shape(Shape::Circle, 3.6, "fill"),
                "after (lower half of a row)".to_owned(),
            ));
        }
        entries.push((Key::Tick, "even share".to_owned()));
        let top = legend(&mut drawing, 0.0, &entries) + 14.0;
        let gutter = 26.0
            + self
                .layers
                .iter()
                .map(|layer| text_width(&layer.layer.to_string(), SMALL))
                .fold(8.0, f64::max);
        let panel = Panel {
            left: gutter,
            right: width - 12.0,
            top,
            bottom: top + row * self.layers.len() as f64,
        };
        let values = self
            .layers
            .iter()
            .flat_map(|layer| layer.before.iter().chain(layer.after.iter().flatten()))
            .copied();
        let scale = Scale::linear(values.chain([0.0]), [panel.left, panel.right]);
        horizontal(
            &mut drawing,
            panel,
            scale,
            Unit::Percent,
            "tokens routed to the expert",
        );
        drawing.upright(
            [
                9.0,
                panel.top + 30.0_f64.min(row * self.layers.len() as f64 / 2.0),
            ],
            "small",
            "← layer",
        );
        for (index, layer) in self.layers.iter().enumerate() {
            let y = panel.top + row * index as f64;
            if index > 0 {
                drawing.line([panel.left, y], [panel.right, y], "grid");
            }
            drawing.text(
                [gutter - 6.0, y + row / 2.0 + 4.0],
                Anchor::End,
                "small",
                &layer.layer.to_string(),
            );
            if layer.dropped {
                let mut path = Path::default();
                path.hatch(
                    [panel.left, y + 2.0],
                    [panel.right - panel.left, row - 4.0],
                    6.0,
                );
                drawing.path(&path, "hatch faded");
            }
            self.marks(&mut drawing, layer, scale, [y, row]);
        }
        drawing.height = panel.bottom + 42.0;
        drawing
    }

    fn table(&self) -> Table {
        let mut table = Table::new(
            format!("Share of tokens by layer and expert, on {}.", self.text),
            ["layer", "expert", "", "before", "after"],
        );
        for layer in &self.layers {
            for (expert, &before) in layer.before.iter().enumerate() {
                let after = layer.after.as_ref().map(|after| after[expert]);
                let fate = match (layer.dropped, layer.kept.is_empty(), layer.stays(expert)) {
                    (true, ..) => "all dropped",
                    (false, true, _) => "",
                    (false, false, true) => "kept",
                    (false, false, false) => "dropped",
                };
                let share = |share| Unit::Percent.value(share);
                table.row([
                    layer.layer.to_string(),
                    expert.to_string(),
                    fate.to_owned(),
                    share(before),
                    match after {
                        Some(after) if layer.stays(expert) => share(after),
                        _ => "–".to_owned(),
                    },
                ]);
            }
        }
        table
    }
}

impl Load {
    fn marks(&self, drawing: &mut Drawing, layer: &LoadLayer, scale: Scale, [y, row]: [f64; 2]) {
        let counted = self.counted();
        let upper = y + row * if counted { 0.28 } else { 0.5 };
        let lower = y + row * 0.74;
        let most = if drawing.width < 500.0 { 3.0 } else { 4.0 };
        let r = (row / 6.0).clamp(2.4, most);
        let mark =
            |drawing: &mut Drawing, expert: usize, share: f64, at: f64, look: (Shape, &str)| {
                let hint = format!(
                    "layer {}, expert {expert}: {}",
                    layer.layer,
                    Unit::Percent.value(share)
                );
                drawing.hinted(&hint, |drawing| {
                    drawing.path(&look.0.path([scale.at(share), at], r), look.1);
                });
            };
        let even = |drawing: &mut Drawing, share: f64, at: f64| {
            let half = r + 2.5;
            drawing.rect(
                [scale.at(share) - 0.9, at - half],
                [1.8, 2.0 * half],
                "solid",
            );
        };
        even(
            drawing,
            LoadLayer::busiest(layer.before.iter().copied()).1,
            upper,
        );
        for (expert, &share) in layer.before.iter().enumerate() {
            let look = match layer.stays(expert) {
                true => (Shape::Circle, "open see"),
                false => (Shape::Cross, "l1"),
            };
            mark(drawing, expert, share, upper, look);
        }
        let Some(after) = &layer.after else { return };
        if let Some(left) = layer.left() {
            even(drawing, LoadLayer::busiest(left).1, lower);
        }
        for (expert, &share) in after.iter().enumerate() {
            if layer.stays(expert) {
                mark(drawing, expert, share, lower, (Shape::Circle, "fill see"));
            }
        }
    }
}
