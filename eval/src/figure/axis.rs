//! Axes, grid lines and legends.

use super::mark::Shape;
use super::scale::Scale;
use super::style::SERIES;
use super::svg::{text_width, Anchor, Drawing, Path};
use super::unit::{labels, Unit};

/// Height of a line of text.
pub(super) const LINE: f64 = 18.0;
/// Size of axis and legend text.
pub(super) const SMALL: f64 = 11.0;

/// Where marks go, between the axes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Panel {
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
}

/// About how many ticks fit on a horizontal axis with labels as long as
/// `longest` characters.
pub(super) fn tick_count(width: f64, longest: usize) -> usize {
    ((width / (7.0 * longest as f64 + 10.0)) as usize).clamp(2, 8)
}

/// Draws a horizontal axis below the panel, with vertical grid lines.
pub(super) fn horizontal(
    drawing: &mut Drawing,
    panel: Panel,
    scale: Scale,
    unit: Unit,
    title: &str,
) {
    let ticks = scale.ticks(tick_count(panel.right - panel.left, 6));
    // Labels that would touch are left out, grid lines stay.
    let mut free = f64::NEG_INFINITY;
    for (tick, label) in ticks.iter().zip(labels(unit, &ticks, !scale.is_even())) {
        let x = scale.at(*tick);
        drawing.line([x, panel.top], [x, panel.bottom], "grid");
        let half = text_width(&label, SMALL) / 2.0;
        let middle = x.min(drawing.width - half);
        if middle - half > free {
            drawing.text(
                [middle, panel.bottom + 16.0],
                Anchor::Middle,
                "small",
                &label,
            );
            free = middle + half + 4.0;
        }
    }
    base(drawing, panel, title);
}

/// Draws the line below the panel and the title of what it measures.
pub(super) fn base(drawing: &mut Drawing, panel: Panel, title: &str) {
    drawing.line(
        [panel.left, panel.bottom],
        [panel.right, panel.bottom],
        "rule",
    );
    drawing.text(
        [(panel.left + panel.right) / 2.0, panel.bottom + 34.0],
        Anchor::Middle,
        "small",
        title,
    );
}

/// Draws a vertical axis left of the panel, with horizontal grid lines. Its
/// title is above the axis.
pub(super) fn vertical(drawing: &mut Drawing, panel: Panel, scale: Scale, unit: Unit, title: &str) {
    let ticks = scale.ticks(5);
    let mut free = f64::INFINITY;
    for (tick, label) in ticks.iter().zip(labels(unit, &ticks, !scale.is_even())) {
        let y = scale.at(*tick);
        drawing.line([panel.left, y], [panel.right, y], "grid");
        if y < free {
            drawing.text([panel.left - 6.0, y + 4.0], Anchor::End, "small", &label);
            free = y - 13.0;
        }
    }
    drawing.line([panel.left, panel.top], [panel.left, panel.bottom], "rule");
    drawing.text([2.0, panel.top - 12.0], Anchor::Start, "small", title);
}

/// The room that the labels of a vertical axis need.
pub(super) fn gutter(scale: Scale, unit: Unit) -> f64 {
    let ticks = scale.ticks(5);
    labels(unit, &ticks, !scale.is_even())
        .iter()
        .map(|label| text_width(label, SMALL))
        .fold(0.0, f64::max)
        + 14.0
}

/// What a legend explains.
pub(super) enum Key<'a> {
    /// A series, by its shape and colour.
    Series(usize),
    /// A class of paths through a shape.
    Shape(Shape, f64, &'a str),
    /// A line of a class.
    Line(&'a str),
    /// A hatched rectangle.
    Hatch,
    /// A short upright line.
    Tick,
}

/// Draws keys with their names in lines that fit `width`, from `top` down.
/// Returns where the legend ends.
pub(super) fn legend(drawing: &mut Drawing, top: f64, entries: &[(Key<'_>, String)]) -> f64 {
    let (mut x, mut y) = (2.0, top + 12.0);
    for (key, name) in entries {
        let width = 22.0 + text_width(name, SMALL) + 14.0;
        if x > 2.0 && x + width > drawing.width {
            (x, y) = (2.0, y + LINE);
        }
        let middle = [x + 8.0, y - 4.0];
        match *key {
            Key::Series(series) => drawing.path(
                &Shape::of(series).path(middle, 4.5),
                &class_of_series(series),
            ),
            Key::Shape(shape, r, class) => drawing.path(&shape.path(middle, r), class),
            Key::Line(class) => drawing.line([x, y - 4.0], [x + 16.0, y - 4.0], class),
            Key::Tick => drawing.rect([x + 7.1, y - 10.0], [1.8, 12.0], "solid"),
            Key::Hatch => {
                let mut path = Path::default();
                path.hatch([x + 1.0, y - 10.0], [14.0, 12.0], 4.0)
                    .rect([x + 1.0, y - 10.0], [14.0, 12.0]);
                drawing.path(&path, "hatch");
            }
        }
        drawing.text([x + 22.0, y], Anchor::Start, "small", name);
        x += width;
    }
    y + 8.0
}

/// Class of the filled marks of a series; after all shapes were used once,
/// marks are open.
pub(super) fn class_of_series(series: usize) -> String {
    if (series / SERIES).is_multiple_of(2) {
        format!("s{}", series % SERIES)
    } else {
        format!("o{}", series % SERIES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legends_wrap_at_the_width() {
        let entries = || -> Vec<_> {
            (0..6)
                .map(|series| (Key::Series(series), format!("criterion {series}")))
                .collect()
        };
        let wide = legend(&mut Drawing::new(900.0), 0.0, &entries());
        let narrow = legend(&mut Drawing::new(240.0), 0.0, &entries());
        assert_eq!((wide, narrow), (20.0, 20.0 + 2.0 * LINE));
    }

    #[test]
    fn labels_that_would_touch_are_left_out() {
        let mut drawing = Drawing::new(40.0);
        let panel = Panel {
            left: 0.0,
            right: 40.0,
            top: 0.0,
            bottom: 10.0,
        };
        let scale = Scale::linear([0.0, 1000.0], [0.0, 40.0]);
        horizontal(&mut drawing, panel, scale, Unit::Number, "tokens");
        let svg = drawing.to_svg("a", "", "", "", None);
        assert!(svg.matches("<text").count() - 1 < svg.matches("class=\"grid\"").count());
    }
}
