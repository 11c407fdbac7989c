//! How numbers are written on axes, beside marks and in tables.

/// What a number counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// A number as it is.
    Number,
    /// A fraction, written as a percentage.
    Percent,
    /// A relative change, written as a percentage with its sign.
    Change,
    /// Bytes, decimal.
    Bytes,
}

impl Unit {
    /// A tick of an axis whose ticks are `step` apart.
    pub(super) fn tick(self, value: f64, step: f64) -> String {
        match self {
            Self::Number => fixed(value, decimals(step)),
            Self::Percent => format!("{}%", fixed(100.0 * value, decimals(100.0 * step))),
            Self::Change => {
                let text = fixed(100.0 * value, decimals(100.0 * step));
                let sign = if value > 0.0 { "+" } else { "" };
                format!("{sign}{text}%")
            }
            Self::Bytes => {
                let (scale, name) = prefix(value.abs().max(step));
                format!("{} {name}", fixed(value / scale, decimals(step / scale)))
            }
        }
    }

    /// A value, four significant digits.
    pub fn value(self, value: f64) -> String {
        match self {
            Self::Number => significant(value),
            Self::Percent => format!("{}%", fixed(100.0 * value, 1)),
            Self::Change => {
                let text = fixed(100.0 * value, 1);
                let sign = if value > 0.0 { "+" } else { "" };
                format!("{sign}{text}%")
            }
            Self::Bytes => {
                let (scale, name) = prefix(value.abs());
                format!("{} {name}", significant(value / scale))
            }
        }
    }

    /// `9.94 [9.80, 10.1]`, or the value alone.
    pub fn estimate(self, value: f64, interval: Option<[f64; 2]>) -> String {
        let bare = |x| self.value(x).trim_end_matches('%').to_owned();
        match interval {
            Some([low, high]) => format!("{} [{}, {}]", self.value(value), bare(low), bare(high)),
            None => self.value(value),
        }
    }
}

/// Labels of ticks, each with its own digits or all with as many.
pub(super) fn labels(unit: Unit, ticks: &[f64], own_digits: bool) -> Vec<String> {
    let step = ticks
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .fold(f64::INFINITY, f64::min);
    ticks
        .iter()
        .map(|&tick| {
            let step = match (own_digits, step.is_finite()) {
                (true, _) => 10f64.powf(tick.abs().log10().floor()),
                (false, true) => step,
                (false, false) => tick.abs() / 10.0,
            };
            unit.tick(tick, step)
        })
        .collect()
}

/// Four significant digits, with an exponent only where they would not do.
fn significant(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size @ 1e-4..1e7 => fixed(
            value,
            (3 - size.log10().floor() as i32).clamp(0, 7) as usize,
        ),
        _ => format!("{value:.3e}"),
    }
}

/// Fixed decimals; no negative zero; an exponent for what is too long.
fn fixed(value: f64, decimals: usize) -> String {
    if value.abs() >= 1e9 {
        return format!("{value:.1e}").replacen('-', "−", usize::from(value < 0.0));
    }
    let text = format!("{value:.decimals$}");
    match text.strip_prefix('-') {
        Some(digits) if digits.chars().all(|c| c == '0' || c == '.') => digits.to_owned(),
        Some(digits) => format!("−{digits}"),
        None => text,
    }
}

/// Decimals that tell multiples of `step` apart.
fn decimals(step: f64) -> usize {
    let step = step.abs();
    if step > 0.0 && step.is_finite() {
        (-(step * 1.0001).log10().floor()).clamp(0.0, 8.0) as usize
    } else {
        0
    }
}

fn prefix(bytes: f64) -> (f64, &'static str) {
    match bytes {
        1e12.. => (1e12, "TB"),
        1e9.. => (1e9, "GB"),
        1e6.. => (1e6, "MB"),
        1e3.. => (1e3, "kB"),
        _ => (1.0, "B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_by_unit() {
        assert_eq!(Unit::Number.value(8.70612), "8.706");
        assert_eq!(Unit::Number.value(0.051), "0.05100");
        assert_eq!(Unit::Change.value(0.141), "+14.1%");
        assert_eq!(Unit::Change.value(-0.02), "−2.0%");
        assert_eq!(Unit::Change.value(-0.0001), "0.0%");
        assert_eq!(Unit::Bytes.value(17_400_000.0), "17.40 MB");
        assert_eq!(
            Unit::Change.estimate(0.141, Some([0.132, 0.151])),
            "+14.1% [+13.2, +15.1]"
        );
        assert_eq!(Unit::Number.value(1e90), "1.000e90");
    }

    #[test]
    fn ticks_have_the_digits_that_tell_them_apart() {
        assert_eq!(
            labels(Unit::Number, &[0.0, 0.05, 0.1], false),
            ["0.00", "0.05", "0.10"]
        );
        assert_eq!(
            labels(Unit::Change, &[-0.5, 0.0, 0.5], false),
            ["−50%", "0%", "+50%"]
        );
        assert_eq!(
            labels(Unit::Number, &[0.01, 0.1, 1.0, 10.0], true),
            ["0.01", "0.1", "1", "10"]
        );
        assert_eq!(
            labels(Unit::Bytes, &[0.0, 5e6, 1e7], false),
            ["0 MB", "5 MB", "10 MB"]
        );
        assert_eq!(labels(Unit::Number, &[3.0], false), ["3.0"]);
    }
}
