//! Quantiles and tails of Student's t distribution.

use std::f64::consts::FRAC_PI_2;

/// Steps of the quadrature.
const STEPS: usize = 256;
/// Standard deviations of t that the quadrature covers.
const REACH: f64 = 12.0;

/// The t with P(|T| ≤ t) = `confidence` for `freedom` ≥ 1 degrees of freedom.
///
/// With t = √ν·tan θ the density becomes cos^(ν−1) θ, up to a constant that
/// the same integral gives, so that its share up to θ is the probability.
pub(crate) fn quantile(confidence: f64, freedom: f64) -> f64 {
    let end = FRAC_PI_2.min(REACH / freedom.sqrt());
    let step = end / STEPS as f64;
    let density = |theta: f64| theta.cos().max(0.0).powf(freedom - 1.0);
    // Simpson's rule over one step or less.
    let area = |from: f64, width: f64| {
        width / 6.0 * (density(from) + 4.0 * density(from + width / 2.0) + density(from + width))
    };
    let mut shares = Vec::with_capacity(STEPS + 1);
    let mut total = 0.0;
    for i in 0..STEPS {
        shares.push(total);
        total += area(i as f64 * step, step);
    }
    shares.push(total);
    let wanted = confidence * total;
    let before = shares
        .partition_point(|&share| share < wanted)
        .clamp(1, STEPS)
        - 1;
    let start = before as f64 * step;
    let mut width = step * (wanted - shares[before]) / (shares[before + 1] - shares[before]);
    // One step of Newton's method makes linear interpolation exact enough.
    width += (wanted - shares[before] - area(start, width)) / density(start + width);
    freedom.sqrt() * (start + width).tan()
}

/// P(|T| ≥ |t|) for `freedom` ≥ 1 degrees of freedom: the two-sided p-value of
/// `t`.
pub(crate) fn p_value(t: f64, freedom: f64) -> f64 {
    let end = FRAC_PI_2.min(REACH / freedom.sqrt());
    let density = |theta: f64| theta.cos().max(0.0).powf(freedom - 1.0);
    let area = |from: f64, to: f64| {
        let step = (to - from) / STEPS as f64;
        let one = |i: usize| {
            let left = from + i as f64 * step;
            step / 6.0 * (density(left) + 4.0 * density(left + step / 2.0) + density(left + step))
        };
        (0..STEPS).map(one).sum::<f64>()
    };
    let at = (t.abs() / freedom.sqrt()).atan().min(end);
    (area(at, end) / area(0.0, end)).clamp(0.0, 1.0)
}

/// [`quantile`] of the normal distribution, the limit of many degrees of freedom.
pub(crate) fn normal_quantile(confidence: f64) -> f64 {
    const MANY: f64 = 1e8;
    quantile(confidence, MANY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_match_printed_tables() {
        for (confidence, freedom, t) in [
            (0.95, 1.0, 12.706_205),
            (0.95, 2.0, 4.302_653),
            (0.95, 4.0, 2.776_445),
            (0.95, 10.0, 2.228_139),
            (0.95, 120.0, 1.979_930),
            (0.99, 5.0, 4.032_143),
            (0.80, 3.0, 1.637_744),
        ] {
            let found = quantile(confidence, freedom);
            assert!(
                (found / t - 1.0).abs() < 1e-5,
                "t({confidence}, {freedom}) = {found}, not {t}"
            );
        }
        assert!((normal_quantile(0.95) - 1.959_964).abs() < 1e-5);
        assert!((normal_quantile(0.99) - 2.575_829).abs() < 1e-5);
    }

    #[test]
    fn tails_are_what_quantiles_leave() {
        for freedom in [1.0, 2.3, 10.0, 200.0] {
            for confidence in [0.5, 0.95, 0.999] {
                let t = quantile(confidence, freedom);
                for t in [t, -t] {
                    let p = p_value(t, freedom);
                    assert!(
                        (p - (1.0 - confidence)).abs() < 1e-6,
                        "{p} at {t}, {freedom}"
                    );
                }
            }
            assert!((p_value(0.0, freedom) - 1.0).abs() < 1e-12);
            assert!(p_value(1e9, freedom) < 1e-6);
        }
    }

    #[test]
    fn quantiles_fall_towards_the_normal_one() {
        let quantiles: Vec<f64> = [1.0, 1.5, 3.0, 30.0, 3e3]
            .map(|freedom| quantile(0.9, freedom))
            .to_vec();
        assert!(quantiles.windows(2).all(|pair| pair[0] > pair[1]));
        assert!(quantiles[4] > normal_quantile(0.9));
    }
}
