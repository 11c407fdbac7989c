//! Colours: what the classes of a drawing look like on a theme.
//!
//! Series differ in shape as well, and the sequential ramp is monotone in
//! lightness, so every drawing can be read without colour.

use std::fmt::Write;

/// Steps of the sequential ramp.
pub(super) const STEPS: usize = 24;
/// Series that have a colour of their own; further ones start again.
pub(super) const SERIES: usize = 8;

/// A theme.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theme {
    /// Dark on light: pages, files and paper.
    Light,
    /// Light on dark.
    Dark,
}

/// The step of the ramp for a share between 0 and 1.
pub(super) fn step(share: f64) -> usize {
    ((share.clamp(0.0, 1.0) * STEPS as f64) as usize).min(STEPS - 1)
}

impl Theme {
    /// Rules for every class that drawings use.
    pub fn sheet(self) -> String {
        let [paper, ink, muted, grid, accent] = match self {
            Self::Light => ["#ffffff", "#1b1f24", "#59636e", "#dfe3e8", "#1a5fb4"],
            Self::Dark => ["#15181c", "#e8eaed", "#a2abb5", "#343a42", "#7db4f5"],
        };
        let (low, high) = match self {
            Self::Light => (ink, "#ffffff"),
            Self::Dark => (ink, "#111418"),
        };
        let mut sheet = format!(
            "svg.fig text{{font:12px system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif;fill:{ink}}}\
             svg.fig .small{{font-size:11px;fill:{muted}}}svg.fig .strong{{font-weight:600}}\
             svg.fig .paper{{fill:{paper}}}svg.fig .grid{{stroke:{grid};stroke-width:1}}\
             svg.fig .rule{{stroke:{muted};stroke-width:1}}\
             svg.fig .dash{{stroke:{muted};stroke-width:1;stroke-dasharray:4 3;fill:none}}\
             svg.fig .hatch{{stroke:{muted};stroke-width:1;fill:none}}\
             svg.fig .curve{{stroke:{accent};stroke-width:2;fill:none;stroke-linejoin:round}}\
             svg.fig .thin{{stroke:{muted};stroke-width:1.2;fill:none}}\
             svg.fig .dots{{stroke:{muted};stroke-width:1.5;fill:none;stroke-dasharray:1.5 3;stroke-linecap:round}}\
             svg.fig .band{{fill:{accent};fill-opacity:.14}}\
             svg.fig .fill{{fill:{accent}}}svg.fig .open{{fill:{paper};stroke:{ink};stroke-width:1.4}}\
             svg.fig .stroke{{stroke:{ink};stroke-width:1.4;fill:none}}\
             svg.fig .solid{{fill:{ink}}}svg.fig .faint{{fill:{muted};fill-opacity:.18}}\
             svg.fig .faded{{stroke-opacity:.5}}svg.fig .see{{fill-opacity:.75}}\
             svg.fig .strong-line{{stroke-width:1.6}}svg.fig .on-low{{fill:{low}}}svg.fig .on-high{{fill:{high}}}\
             svg.fig .hover{{fill:none;stroke:{ink};stroke-width:2}}"
        );
        for index in 0..SERIES {
            let colour = self.series(index);
            let _ = write!(
                sheet,
                "svg.fig .s{index}{{fill:{colour}}}svg.fig .l{index}{{stroke:{colour};stroke-width:1.6;fill:none}}\
                 svg.fig .o{index}{{fill:{paper};stroke:{colour};stroke-width:1.6}}"
            );
        }
        for index in 0..STEPS {
            let _ = write!(sheet, "svg.fig .q{index}{{fill:{}}}", self.ramp(index));
        }
        sheet
    }

    /// Colour of a step of the ramp: more of a thing is further from the paper.
    fn ramp(self, index: usize) -> String {
        let t = index as f64 / (STEPS - 1) as f64;
        let bell = 1.0 - (2.0 * t - 1.0).powi(2);
        let (lightness, chroma) = match self {
            Self::Light => (0.94 - 0.64 * t, 0.045 + 0.055 * bell),
            Self::Dark => (0.36 + 0.56 * t, 0.05 + 0.06 * bell),
        };
        let hue = match self {
            Self::Light => 105.0 + 165.0 * t,
            Self::Dark => 280.0 - 175.0 * t,
        };
        hex(oklch(lightness, chroma, hue))
    }

    /// Colour of a series; neighbours differ in lightness.
    fn series(self, index: usize) -> String {
        const HUES: [f64; SERIES] = [255.0, 45.0, 155.0, 330.0, 95.0, 205.0, 20.0, 295.0];
        const STEP: [f64; SERIES] = [0.0, 0.10, 0.04, -0.06, 0.14, 0.12, -0.08, 0.06];
        let index = index % SERIES;
        let lightness = match self {
            Self::Light => 0.50 + STEP[index],
            Self::Dark => 0.74 + STEP[index],
        };
        hex(oklch(lightness, 0.14, HUES[index]))
    }
}

/// OKLCH to linear sRGB, colours that sRGB lacks moved to its border
/// (Ottosson, "A perceptual color space for image processing", 2020).
fn oklch(lightness: f64, chroma: f64, hue: f64) -> [f64; 3] {
    let (a, b) = (
        chroma * hue.to_radians().cos(),
        chroma * hue.to_radians().sin(),
    );
    let l = (lightness + 0.396_337_777_4 * a + 0.215_803_757_3 * b).powi(3);
    let m = (lightness - 0.105_561_345_8 * a - 0.063_854_172_8 * b).powi(3);
    let s = (lightness - 0.089_484_177_5 * a - 1.291_485_548 * b).powi(3);
    [
        4.076_741_662_1 * l - 3.307_711_591_3 * m + 0.230_969_929_2 * s,
        -1.268_438_004_6 * l + 2.609_757_401_1 * m - 0.341_319_396_5 * s,
        -0.004_196_086_3 * l - 0.703_418_614_7 * m + 1.707_614_701 * s,
    ]
    .map(|channel| channel.clamp(0.0, 1.0))
}

/// Linear sRGB as `#rrggbb`.
fn hex(linear: [f64; 3]) -> String {
    let [r, g, b] = linear.map(|x| {
        let encoded = if x <= 0.003_130_8 {
            12.92 * x
        } else {
            1.055 * x.powf(1.0 / 2.4) - 0.055
        };
        (encoded * 255.0).round() as u8
    });
    format!("#{r:02x}{g:02x}{b:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn luminance(hex: &str) -> f64 {
        let channel = |at: usize| {
            let x = f64::from(u8::from_str_radix(&hex[at..at + 2], 16).unwrap()) / 255.0;
            if x <= 0.04045 {
                x / 12.92
            } else {
                ((x + 0.055) / 1.055).powf(2.4)
            }
        };
        0.2126 * channel(1) + 0.7152 * channel(3) + 0.0722 * channel(5)
    }

    #[test]
    fn the_ramp_is_monotone_in_grey() {
        for (theme, sign) in [(Theme::Light, -1.0), (Theme::Dark, 1.0)] {
            let grey: Vec<f64> = (0..STEPS)
                .map(|i| sign * luminance(&theme.ramp(i)))
                .collect();
            assert!(
                grey.windows(2).all(|pair| pair[0] < pair[1]),
                "{theme:?} {grey:?}"
            );
        }
        assert_eq!([0.0, 0.5, 1.0, 7.0].map(step), [0, 12, 23, 23]);
    }

    #[test]
    fn series_stand_out_from_the_paper() {
        for (theme, paper) in [(Theme::Light, "#ffffff"), (Theme::Dark, "#15181c")] {
            for index in 0..SERIES {
                let pair = [luminance(paper), luminance(&theme.series(index))];
                let contrast = (pair[0].max(pair[1]) + 0.05) / (pair[0].min(pair[1]) + 0.05);
                assert!(contrast >= 3.0, "{theme:?} {index}: {contrast}");
            }
        }
    }
}
