//! Least squares of two straight lines that meet at an unknown place.
//!
//! For a given break ψ the model y = a + b·x + c·max(x − ψ, 0) is linear; what
//! is left is a search over ψ, by a grid and then a finer one around its best
//! place. Unlike an iteration from a starting value it ends at the global
//! minimum (to within the grid) and always ends.
//!
//! Sources: Muggeo, Statistics in Medicine 22, 2003; Hudson, "Fitting Segmented
//! Curves Whose Join Points Have to be Estimated", JASA 61, 1966.

/// Places of a grid.
const GRID: usize = 64;

/// Two lines that meet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Broken {
    /// Where, on the axis of x.
    pub(super) at: f64,
    /// y there.
    pub(super) level: f64,
    /// Slope of the first line.
    pub(super) before: f64,
    /// Slope of the second.
    pub(super) beyond: f64,
}

/// Fits `y` at ascending `x`. Breaks are looked for between the second x and the
/// last but one, so that each line has two points. `None` for fewer than five
/// points, or if they do not determine the lines.
pub(super) fn fit(x: &[f64], y: &[f64]) -> Option<Broken> {
    if x.len() < 5 || x.len() != y.len() {
        return None;
    }
    let (first, last) = (x[1], x[x.len() - 2]);
    let step = (last - first) / GRID as f64;
    let coarse = best(x, y, first, last)?;
    let around = (coarse.at - step).max(first)..(coarse.at + step).min(last);
    best(x, y, around.start, around.end)
}

/// The best of a grid of breaks.
fn best(x: &[f64], y: &[f64], first: f64, last: f64) -> Option<Broken> {
    (0..=GRID)
        .filter_map(|place| {
            let at = first + (last - first) * place as f64 / GRID as f64;
            let (coefficients, rest) = least_squares(x, y, at)?;
            Some((coefficients, rest, at))
        })
        .min_by(|(_, a, _), (_, b, _)| a.total_cmp(b))
        .map(|([a, b, c], _, at)| Broken {
            at,
            level: a + b * at,
            before: b,
            beyond: b + c,
        })
}

/// Coefficients a, b, c for a break at `at`, and the squares that remain.
/// `None` if the normal equations are singular.
fn least_squares(x: &[f64], y: &[f64], at: f64) -> Option<([f64; 3], f64)> {
    let row = |x: f64| [1.0, x, (x - at).max(0.0)];
    // Normal equations, the right-hand side as last column.
    let mut system = [[0.0; 4]; 3];
    for (&x, &y) in x.iter().zip(y) {
        let row = row(x);
        for (line, &left) in system.iter_mut().zip(&row) {
            for (cell, right) in line.iter_mut().zip(row.iter().chain([&y])) {
                *cell += left * right;
            }
        }
    }
    let solved = solve(system)?;
    let rest = x
        .iter()
        .zip(y)
        .map(|(&x, y)| {
            let predicted: f64 = row(x).iter().zip(&solved).map(|(r, s)| r * s).sum();
            (y - predicted).powi(2)
        })
        .sum();
    Some((solved, rest))
}

/// Gaussian elimination with pivots.
fn solve(mut system: [[f64; 4]; 3]) -> Option<[f64; 3]> {
    /// Pivots below it are zero but for rounding; x lies between 0 and 1.
    const SINGULAR: f64 = 1e-12;
    for column in 0..3 {
        let pivot = (column..3).max_by(|&a, &b| {
            let size = |row: usize| system[row][column].abs();
            size(a).total_cmp(&size(b))
        })?;
        system.swap(column, pivot);
        if system[column][column].abs() < SINGULAR {
            return None;
        }
        let top = system[column];
        for (row, line) in system.iter_mut().enumerate() {
            if row != column {
                let factor = line[column] / top[column];
                for (cell, above) in line.iter_mut().zip(top) {
                    *cell -= factor * above;
                }
            }
        }
    }
    Some([0, 1, 2].map(|row| system[row][3] / system[row][row]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_lines_without_noise_are_found() {
        let x: Vec<f64> = (0..=15).map(|i| f64::from(i) / 16.0).collect();
        for at in [0.2, 0.37, 0.5, 0.8] {
            let y: Vec<f64> = x
                .iter()
                .map(|&x| 0.3 + 0.5 * x + 4.0 * (x - at).max(0.0))
                .collect();
            let found = fit(&x, &y).unwrap();
            assert!((found.at - at).abs() < 1e-3, "{found:?} at {at}");
            assert!((found.before - 0.5).abs() < 0.02 && (found.beyond - 4.5).abs() < 0.03);
            assert!((found.level - (0.3 + 0.5 * at)).abs() < 0.01);
        }
    }

    #[test]
    fn a_curve_breaks_where_two_lines_fit_it_best() {
        let x: Vec<f64> = (0..=15).map(|i| f64::from(i) / 16.0).collect();
        let y: Vec<f64> = x.iter().map(|x| x.powi(6)).collect();
        let found = fit(&x, &y).unwrap();
        assert!((0.5..0.9).contains(&found.at) && found.beyond > 4.0 * found.before.abs());
    }

    #[test]
    fn too_few_points_have_no_fit() {
        assert_eq!(fit(&[0.0, 0.1, 0.2, 0.3], &[0.0; 4]), None);
        assert_eq!(fit(&[0.5; 6], &[0.0; 6]), None);
    }
}
