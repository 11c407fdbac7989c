//! Shapes of points. Series differ in shape first and in colour second.

use super::svg::Path;

/// Shapes of series, in order; further series start again, open instead of
/// filled.
const SHAPES: [Shape; 8] = [
    Shape::Circle,
    Shape::Square,
    Shape::Triangle,
    Shape::Diamond,
    Shape::Flipped,
    Shape::Plus,
    Shape::Cross,
    Shape::Bar,
];

/// The outline of a point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Circle,
    Square,
    Triangle,
    Diamond,
    /// A triangle that stands on its tip.
    Flipped,
    Plus,
    Cross,
    Bar,
}

impl Shape {
    /// The shape of a series.
    pub(super) fn of(series: usize) -> Self {
        SHAPES[series % SHAPES.len()]
    }

    /// Adds the shape around a point to `path`; `r` is the radius of a circle
    /// of about its weight.
    pub(super) fn add(self, path: &mut Path, [x, y]: [f64; 2], r: f64) {
        match self {
            Self::Circle => {
                path.circle([x, y], r);
            }
            Self::Square => {
                path.rect([x - 0.9 * r, y - 0.9 * r], [1.8 * r, 1.8 * r]);
            }
            Self::Triangle => polygon(path, [x, y], r, &[(0.0, -1.2), (1.15, 0.85), (-1.15, 0.85)]),
            Self::Flipped => polygon(
                path,
                [x, y],
                r,
                &[(0.0, 1.2), (1.15, -0.85), (-1.15, -0.85)],
            ),
            Self::Diamond => polygon(
                path,
                [x, y],
                r,
                &[(0.0, -1.3), (1.3, 0.0), (0.0, 1.3), (-1.3, 0.0)],
            ),
            Self::Bar => polygon(
                path,
                [x, y],
                r,
                &[(-1.3, -0.45), (1.3, -0.45), (1.3, 0.45), (-1.3, 0.45)],
            ),
            Self::Plus => polygon(path, [x, y], r, &PLUS),
            Self::Cross => polygon(
                path,
                [x, y],
                r,
                &PLUS.map(|(x, y)| {
                    let half = std::f64::consts::FRAC_1_SQRT_2;
                    (half * (x - y), half * (x + y))
                }),
            ),
        }
    }

    /// The shape around a point.
    pub(super) fn path(self, at: [f64; 2], r: f64) -> Path {
        let mut path = Path::default();
        self.add(&mut path, at, r);
        path
    }
}

/// Corners of a plus sign.
const PLUS: [(f64, f64); 12] = [
    (-0.4, -1.3),
    (0.4, -1.3),
    (0.4, -0.4),
    (1.3, -0.4),
    (1.3, 0.4),
    (0.4, 0.4),
    (0.4, 1.3),
    (-0.4, 1.3),
    (-0.4, 0.4),
    (-1.3, 0.4),
    (-1.3, -0.4),
    (-0.4, -0.4),
];

fn polygon(path: &mut Path, [x, y]: [f64; 2], r: f64, corners: &[(f64, f64)]) {
    for (index, (dx, dy)) in corners.iter().enumerate() {
        let at = [x + dx * r, y + dy * r];
        if index == 0 {
            path.start(at);
        } else {
            path.to(at);
        }
    }
    path.close();
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn shapes_differ() {
        let drawn: BTreeSet<String> = (0..SHAPES.len())
            .map(|series| format!("{:?}", Shape::of(series).path([0.0; 2], 4.0)))
            .collect();
        assert_eq!(drawn.len(), SHAPES.len());
        assert_eq!(Shape::of(8), Shape::of(0));
    }
}
