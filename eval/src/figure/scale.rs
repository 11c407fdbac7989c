//! Numbers to positions, and the ticks between them.

/// A scale from values to pixels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    kind: Kind,
}

/// What distances on a scale mean.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    /// Differences.
    Linear,
    /// Ratios.
    Log,
    /// Differences below this magnitude, ratios far above it: arsinh(x/t).
    Stretched(f64),
}

impl Scale {
    /// A linear scale of values, with a little room at both ends but where the
    /// end is zero.
    pub(super) fn linear(values: impl IntoIterator<Item = f64>, [from, to]: [f64; 2]) -> Self {
        let (mut low, mut high) = extent(values);
        if low == high {
            let room = if low == 0.0 { 1.0 } else { low.abs() * 0.1 };
            (low, high) = (low - room, high + room);
        }
        let room = |end: f64| if end == 0.0 { 0.0 } else { (high - low) * 0.04 };
        Self {
            low: low - room(low),
            high: high + room(high),
            from,
            to,
            kind: Kind::Linear,
        }
    }

    /// A logarithmic scale of positive values, with a little room at both ends.
    pub(super) fn log(values: impl IntoIterator<Item = f64>, [from, to]: [f64; 2]) -> Self {
        let (low, high) = extent(values);
        let room = (high / low).powf(0.05).max(1.05);
        Self {
            low: low / room,
            high: high * room,
            from,
            to,
            kind: Kind::Log,
        }
    }

    /// A logarithmic scale if the values are positive and span more than a
    /// factor of `factor`, otherwise a linear one.
    pub(super) fn fitting(
        values: impl IntoIterator<Item = f64> + Clone,
        range: [f64; 2],
        factor: f64,
    ) -> Self {
        let (low, high) = extent(values.clone());
        if low > 0.0 && high / low > factor {
            Self::log(values, range)
        } else {
            Self::linear(values, range)
        }
    }

    /// A linear scale, or where most values are tiny beside the largest one that
    /// is stretched near zero. Values may have either sign.
    pub(super) fn uneven(
        values: impl IntoIterator<Item = f64> + Clone,
        range: [f64; 2],
        factor: f64,
    ) -> Self {
        let linear = Self::linear(values.clone(), range);
        let sizes = values.into_iter().map(f64::abs);
        let mut sizes: Vec<f64> = sizes.filter(|size| *size > 0.0).collect();
        sizes.sort_by(f64::total_cmp);
        let (Some(&median), Some(&most)) = (sizes.get(sizes.len() / 2), sizes.last()) else {
            return linear;
        };
        if most <= factor * median || median < most * 1e-9 {
            return linear;
        }
        Self {
            kind: Kind::Stretched(median / 4.0),
            ..linear
        }
    }

    /// Where a value is; values outside are at the ends.
    pub(super) fn at(&self, value: f64) -> f64 {
        let share = match self.kind {
            Kind::Linear => (value - self.low) / (self.high - self.low),
            Kind::Log => (value.max(self.low) / self.low).ln() / (self.high / self.low).ln(),
            Kind::Stretched(unit) => {
                let [value, low, high] = [value, self.low, self.high].map(|x| (x / unit).asinh());
                (value - low) / (high - low)
            }
        };
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// Whether distances are ratios.
    pub(super) fn is_log(&self) -> bool {
        self.kind == Kind::Log
    }

    /// Whether ticks are equally far apart, so that all have as many digits.
    pub(super) fn is_even(&self) -> bool {
        self.kind == Kind::Linear
    }

    /// What a heading says of the scale, if anything.
    pub(super) fn note(&self) -> &'static str {
        match self.kind {
            Kind::Linear => "",
            Kind::Log => " (logarithmic)",
            Kind::Stretched(_) => " (stretched near 0)",
        }
    }

    /// Round values on the scale, ascending, about `count` of them.
    pub(super) fn ticks(&self, count: usize) -> Vec<f64> {
        match self.kind {
            Kind::Linear => {
                let step = step(self.low, self.high, count);
                let first = (self.low / step - 1e-9).ceil() as i64;
                let last = (self.high / step + 1e-9).floor() as i64;
                (first..=last).map(|n| n as f64 * step).collect()
            }
            Kind::Log => self.decades(count),
            Kind::Stretched(unit) => self.stretched_ticks(unit),
        }
    }

    /// Zero, and powers of ten from `unit` up, with 2 and 5 times them if they
    /// are few.
    fn stretched_ticks(&self, unit: f64) -> Vec<f64> {
        let most = self.high.max(-self.low);
        let powers = unit.log10().floor() as i32..=most.log10().ceil() as i32;
        let mantissas = match most / unit {
            ..1e3 => &[1.0, 2.0, 5.0][..],
            _ => &[1.0],
        };
        let sizes = powers.flat_map(|power| mantissas.iter().map(move |m| m * 10f64.powi(power)));
        let mut ticks: Vec<f64> = sizes
            .filter(|size| *size >= unit)
            .flat_map(|size| [-size, size])
            .chain([0.0])
            .filter(|tick| (self.low..=self.high).contains(tick))
            .collect();
        ticks.sort_by(f64::total_cmp);
        ticks
    }

    /// Ticks of a logarithmic scale.
    fn decades(&self, count: usize) -> Vec<f64> {
        let inside = |mantissas: &[f64]| -> Vec<f64> {
            let (first, last) = (self.low.log10().floor(), self.high.log10().ceil());
            (first as i32..=last as i32)
                .flat_map(|decade| mantissas.iter().map(move |m| m * 10f64.powi(decade)))
                .filter(|tick| (self.low..=self.high).contains(tick))
                .collect()
        };
        let mut choices = vec![
            inside(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]),
            inside(&[1.0, 2.0, 5.0]),
            inside(&[1.0, 3.0]),
        ];
        let decades = inside(&[1.0]);
        let stride = decades.len().div_ceil(count.max(2)).max(1);
        choices.push(decades.into_iter().step_by(stride).collect());
        let mut best = choices
            .into_iter()
            .find(|ticks| ticks.len() <= count.max(2))
            .unwrap_or_default();
        if best.len() < 2 {
            let step = step(self.low, self.high, count);
            let first = (self.low / step).ceil() as i64;
            let last = (self.high / step).floor() as i64;
            best = (first..=last).map(|n| n as f64 * step).collect();
        }
        best
    }
}

/// The smallest and the largest value; (0, 1) of none.
pub(super) fn extent(values: impl IntoIterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .into_iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
    if low <= high {
        (low, high)
    } else {
        (0.0, 1.0)
    }
}

/// The round distance, 1, 2 or 5 times a power of ten, that divides an
/// interval into about `count` parts.
fn step(low: f64, high: f64, count: usize) -> f64 {
    let raw = (high - low) / count.max(1) as f64;
    let power = 10f64.powf(raw.log10().floor());
    [1.0, 2.0, 5.0]
        .into_iter()
        .map(|mantissa| mantissa * power)
        .find(|step| *step >= raw * 0.7)
        .unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn linear_ticks_are_round() {
        let scale = Scale::linear([0.013, 0.141], [0.0, 100.0]);
        let ticks = scale.ticks(5);
        assert_eq!(ticks.len(), 7);
        assert!((ticks[0] - 0.02).abs() < 1e-12 && (ticks[6] - 0.14).abs() < 1e-12);
        assert!(scale.at(0.013) > 0.0 && scale.at(0.141) < 100.0);
        let from_zero = Scale::linear([0.0, 2.0], [0.0, 100.0]);
        assert_eq!((from_zero.at(0.0), from_zero.ticks(2)[0]), (0.0, 0.0));
        assert_eq!(scale.at(9.0), 100.0, "clamped");
    }

    #[test]
    fn log_ticks_thin_out_with_the_span() {
        let ticks = |low, high| Scale::log([low, high], [0.0, 1.0]).ticks(6);
        assert_eq!(ticks(1.0, 100.0), [1.0, 3.0, 10.0, 30.0, 100.0]);
        assert_eq!(ticks(1e-3, 1e3).len(), 4);
        assert_eq!(ticks(20.0, 70.0), [20.0, 30.0, 40.0, 50.0, 60.0, 70.0]);
        assert!(ticks(20.0, 21.0).len() >= 2);
    }

    #[test]
    fn what_most_values_are_is_told_apart_beside_an_outlier() {
        let values = [0.0, 0.01, 0.05, 0.06, 0.12, 2.6];
        let scale = Scale::uneven(values, [0.0, 100.0], 8.0);
        assert_eq!((scale.at(0.0), scale.note()), (0.0, " (stretched near 0)"));
        assert!(scale.at(0.12) - scale.at(0.05) > 10.0);
        let ticks = scale.ticks(5);
        assert_eq!((ticks[0], ticks.last()), (0.0, Some(&2.0)));
        assert!(ticks.len() < 14 && ticks.windows(2).all(|pair| pair[0] < pair[1]));
        let even = Scale::uneven([0.1, 0.2, 0.3], [0.0, 100.0], 8.0);
        assert!(even.is_even());
    }

    proptest! {
        #[test]
        fn positions_are_finite_and_ordered(
            values in prop::collection::vec(prop_oneof![-1e90..1e90, -1.0..1.0_f64, Just(0.0), 1e-90..1e-80], 1..8),
            count in 1..9_usize,
        ) {
            let mut sorted = values;
            sorted.sort_by(f64::total_cmp);
            let range = [10.0, 200.0];
            let scales = [
                Scale::fitting(sorted.clone(), range, 20.0),
                Scale::uneven(sorted.clone(), range, 8.0),
            ];
            for scale in scales {
                let at: Vec<f64> = sorted.iter().map(|v| scale.at(*v)).collect();
                prop_assert!(at.iter().all(|x| (10.0..=200.0).contains(x)), "{:?}", at);
                prop_assert!(at.windows(2).all(|pair| pair[0] <= pair[1]));
                let ticks = scale.ticks(count);
                prop_assert!(ticks.iter().all(|t| t.is_finite()));
                prop_assert!(ticks.len() <= 2 * count.max(2) + 24, "{} ticks", ticks.len());
            }
        }
    }
}
