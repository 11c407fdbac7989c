//! SVG text: elements, numbers and escaping.
//!
//! Owns how a drawing is spelled. Colours are classes that a
//! [style sheet](super::style) gives a meaning, so that one drawing serves
//! light and dark pages and paper; there are no references (`url(#…)`), so that
//! several drawings share a page without knowing of one another.

use std::fmt::{Display, Write};

/// A drawing; lengths are CSS pixels at full size.
#[derive(Debug, Clone, PartialEq)]
pub struct Drawing {
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
    /// Where the cells of a heat map are.
    pub(super) grid: Option<Grid>,
    body: String,
}

/// Where the cells of a heat map are, for a page that shows their values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Grid {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) cell: [f64; 2],
    /// Whether a column of the drawing is a row of the table.
    pub(super) transposed: bool,
}

/// What makes an element more than its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Drawing {
    /// An empty drawing, whose height is set once it is known.
    pub(super) fn new(width: f64) -> Self {
        Self {
            width,
            height: 0.0,
            grid: None,
            body: String::new(),
        }
    }

    /// A rectangle.
    pub(super) fn rect(&mut self, [x, y]: [f64; 2], [width, height]: [f64; 2], class: &str) {
        self.push(format_args!(
            "<rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" class=\"{class}\"/>",
            number(x),
            number(y),
            number(width.max(0.0)),
            number(height.max(0.0))
        ));
    }

    /// A line.
    pub(super) fn line(&mut self, [x1, y1]: [f64; 2], [x2, y2]: [f64; 2], class: &str) {
        self.push(format_args!(
            "<line x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\" class=\"{class}\"/>",
            number(x1),
            number(y1),
            number(x2),
            number(y2)
        ));
    }

    /// A path; an empty one draws nothing.
    pub(super) fn path(&mut self, path: &Path, class: &str) {
        if !path.0.is_empty() {
            self.push(format_args!("<path d=\"{}\" class=\"{class}\"/>", path.0));
        }
    }

    /// Text, at its baseline.
    pub(super) fn text(&mut self, [x, y]: [f64; 2], anchor: Anchor, class: &str, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "",
            Anchor::Middle => " text-anchor=\"middle\"",
            Anchor::End => " text-anchor=\"end\"",
        };
        self.push(format_args!(
            "<text x=\"{}\" y=\"{}\"{anchor} class=\"{class}\">{}</text>",
            number(x),
            number(y),
            escape(text)
        ));
    }

    /// Text along a vertical axis, read upwards, centred on the point.
    pub(super) fn upright(&mut self, [x, y]: [f64; 2], class: &str, text: &str) {
        let (x, y) = (number(x), number(y));
        self.push(format_args!(
            "<text x=\"{x}\" y=\"{y}\" text-anchor=\"middle\" transform=\"rotate(-90 {x} {y})\" class=\"{class}\">{}</text>",
            escape(text)
        ));
    }

    /// What `draw` draws, with `hint` shown while the pointer is on it.
    pub(super) fn hinted(&mut self, hint: &str, draw: impl FnOnce(&mut Self)) {
        self.push(format_args!("<g><title>{}</title>", escape(hint)));
        draw(self);
        self.push(format_args!("</g>"));
    }

    /// The drawing as an element of a page.
    ///
    /// `id` starts the ids of title and description; `style` is a style sheet
    /// to put in, for a drawing that stands alone.
    pub(super) fn to_svg(
        &self,
        id: &str,
        class: &str,
        title: &str,
        description: &str,
        style: Option<&str>,
    ) -> String {
        let (width, height) = (number(self.width), number(self.height));
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
             class=\"{}\" role=\"img\" aria-labelledby=\"{id}-title {id}-desc\"",
            escape(class)
        );
        if let Some(grid) = self.grid {
            let [columns, rows] = grid.cell.map(number);
            let _ = write!(
                svg,
                " data-grid=\"{} {} {columns} {rows} {}\"",
                number(grid.left),
                number(grid.top),
                u8::from(grid.transposed)
            );
        }
        let _ = write!(
            svg,
            "><title id=\"{id}-title\">{}</title><desc id=\"{id}-desc\">{}</desc>",
            escape(title),
            escape(description)
        );
        if let Some(style) = style {
            let _ = write!(svg, "<style>{style}</style>");
            let _ = write!(
                svg,
                "<rect width=\"{width}\" height=\"{height}\" class=\"paper\"/>"
            );
        }
        svg.push_str(&self.body);
        svg.push_str("</svg>");
        svg
    }

    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = self.body.write_fmt(element);
        self.body.push('\n');
    }
}

/// The data of a path.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Path(String);

impl Path {
    /// Starts a line.
    pub(super) fn start(&mut self, [x, y]: [f64; 2]) -> &mut Self {
        self.add(format_args!("M{} {}", number(x), number(y)))
    }

    /// Continues it.
    pub(super) fn to(&mut self, [x, y]: [f64; 2]) -> &mut Self {
        self.add(format_args!("L{} {}", number(x), number(y)))
    }

    /// Closes it.
    pub(super) fn close(&mut self) -> &mut Self {
        self.add("Z")
    }

    /// A rectangle.
    pub(super) fn rect(&mut self, [x, y]: [f64; 2], [width, height]: [f64; 2]) -> &mut Self {
        let (width, height) = (width.max(0.0), height.max(0.0));
        self.add(format_args!(
            "M{} {}h{}v{}h{}z",
            number(x),
            number(y),
            number(width),
            number(height),
            number(-width)
        ))
    }

    /// A circle.
    pub(super) fn circle(&mut self, [x, y]: [f64; 2], radius: f64) -> &mut Self {
        let (r, d) = (number(radius), number(2.0 * radius));
        self.add(format_args!(
            "M{} {}a{r} {r} 0 1 0 {d} 0a{r} {r} 0 1 0 -{d} 0z",
            number(x - radius),
            number(y)
        ))
    }

    /// Lines at 45° that fill a rectangle, `step` apart along its sides.
    pub(super) fn hatch(
        &mut self,
        [x, y]: [f64; 2],
        [width, height]: [f64; 2],
        step: f64,
    ) -> &mut Self {
        let mut offset = step;
        while offset < width + height {
            // The line x + y = offset, inside the rectangle.
            let (left, right) = ((offset - height).max(0.0), offset.min(width));
            self.start([x + left, y + offset - left])
                .to([x + right, y + offset - right]);
            offset += step;
        }
        self
    }

    fn add(&mut self, data: impl Display) -> &mut Self {
        let _ = write!(self.0, "{data}");
        self
    }
}

/// A coordinate, to a hundredth of a pixel.
pub(super) fn number(x: f64) -> String {
    let rounded = (x * 100.0).round() / 100.0 + 0.0;
    format!("{rounded}")
}

/// Text for elements and attributes of SVG and HTML. What XML has no place
/// for, and marks that turn the direction of the text around them, become �.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' | '\u{FFFE}' | '\u{FFFF}' => {
                escaped.push('\u{FFFD}');
            }
            '\n' | '\t' => escaped.push(character),
            _ if character.is_control() => escaped.push('\u{FFFD}'),
            _ => escaped.push(character),
        }
    }
    escaped
}

/// How wide text of a size is at most, about; system fonts differ.
pub(super) fn text_width(text: &str, size: f64) -> f64 {
    let ems: f64 =
        text.chars()
            .map(|character| match character {
                '\u{2E80}'.. => 1.0,
                'i' | 'j' | 'l' | 't' | 'f' | 'r' | '.' | ',' | ':' | '|' | '\'' | ' ' | '['
                | ']' => 0.4,
                'm' | 'w' | 'M' | 'W' | '%' | '@' | '+' | '−' | '→' => 0.95,
                'A'..='Z' => 0.7,
                _ => 0.63,
            })
            .sum();
    ems * size
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_stays_text() {
        assert_eq!(
            escape("</text><script>\"'&\u{0}\u{202e}"),
            "&lt;/text&gt;&lt;script&gt;&quot;&#39;&amp;\u{FFFD}\u{FFFD}"
        );
        let mut drawing = Drawing::new(10.0);
        drawing.text([0.0, 0.0], Anchor::Start, "t", "<b>");
        drawing.hinted("\"><x", |drawing| drawing.rect([0.0; 2], [1.0; 2], "r"));
        let svg = drawing.to_svg("a", "b", "<i>", "]]>", None);
        assert!(!svg.contains("<b>") && !svg.contains("<i>") && !svg.contains("<x"));
    }

    #[test]
    fn numbers_are_short_and_have_no_negative_zero() {
        assert_eq!(
            [1.0, 0.125, -0.001, 1e3 / 3.0].map(number),
            ["1", "0.13", "0", "333.33"]
        );
    }

    #[test]
    fn hatching_stays_inside() {
        let mut path = Path::default();
        path.hatch([10.0, 20.0], [6.0, 4.0], 3.0);
        assert_eq!(path.0, "M10 23L13 20M12 24L16 20M15 24L16 23");
    }

    #[test]
    fn a_drawing_is_described_and_measured() {
        let mut drawing = Drawing::new(100.0);
        drawing.height = 50.5;
        let svg = drawing.to_svg("load", "figure", "Load", "Of experts", Some("a{b:c}"));
        for part in [
            "viewBox=\"0 0 100 50.5\"",
            "role=\"img\"",
            "aria-labelledby=\"load-title load-desc\"",
            "<title id=\"load-title\">Load</title>",
            "<desc id=\"load-desc\">Of experts</desc>",
            "<style>a{b:c}</style>",
        ] {
            assert!(svg.contains(part), "{part} in {svg}");
        }
    }
}
