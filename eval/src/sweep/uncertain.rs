//! A mean over calibration seeds, and what chance does to it.
//!
//! The value is the mean over seeds, on the scale on which domains are mixed
//! (nats, fractions).
//! Two things make it uncertain: the text it is measured on, and the calibration
//! sets that chance picked. They are crossed: every seed meets the same text. The
//! variance of the mean is
//!
//! ```text
//! v = v_text + s² / S
//! ```
//!
//! where v_text is the variance, over the choice of documents, of the mean of the
//! S seeds, and s² the variance between seeds. What seeds and text have in common
//! is in both parts, so that v errs on the large side, as resampling both does.
//! The interval is that of Student with Satterthwaite's degrees of freedom
//!
//! ```text
//! ν = v² / (v_text²/ν_text + (s²/S)²/(S − 1))
//! ```
//!
//! With a single seed only the text is in it.
//!
//! Sources: Satterthwaite, "An Approximate Distribution of Estimates of Variance
//! Components", Biometrics Bulletin 2, 1946; Owen, "The Pigeonhole Bootstrap",
//! Annals of Applied Statistics 1, 2007 (crossed random effects).

use crate::compare::{Estimate, Spread};
use crate::evaluator::Statistic;
use crate::student;

/// A mean over seeds and text with its variance: see the module documentation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Uncertain {
    point: f64,
    /// Variance and degrees of freedom, if the text has more than one document
    /// of every domain.
    spread: Option<(f64, f64)>,
}

impl Uncertain {
    /// `text` is the spread of the mean of `seeds`, which are contrasts.
    pub(super) fn new(text: Spread, seeds: &[f64]) -> Self {
        let count = seeds.len() as f64;
        let mean = seeds.iter().sum::<f64>() / count;
        let between = if seeds.len() < 2 {
            0.0
        } else {
            seeds.iter().map(|seed| (seed - mean).powi(2)).sum::<f64>() / (count - 1.0) / count
        };
        let spread = text.variance.map(|of_text| {
            let variance = of_text + between;
            let mut doubt = of_text * of_text / text.freedom;
            if between > 0.0 {
                doubt += between * between / (count - 1.0);
            }
            let freedom = if doubt > 0.0 {
                (variance * variance / doubt).max(1.0)
            } else {
                1.0
            };
            (variance, freedom)
        });
        Self {
            point: text.point,
            spread,
        }
    }

    /// The metric with its interval.
    pub(super) fn estimate(&self, statistic: Statistic, confidence: f64) -> Estimate {
        let reach = self
            .spread
            .map(|(variance, freedom)| student::quantile(confidence, freedom) * variance.sqrt());
        let end = |sign: f64| Some(statistic.transform(self.point + sign * reach?));
        Estimate {
            value: statistic.transform(self.point),
            low: end(-1.0),
            high: end(1.0),
        }
    }

    /// Two-sided p-value of zero; 1 for a difference of exactly zero.
    pub(super) fn p_value(&self) -> Option<f64> {
        let (variance, freedom) = self.spread?;
        if self.point == 0.0 {
            return Some(1.0);
        }
        Some(student::p_value(self.point / variance.sqrt(), freedom))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mean_over_seeds_has_both_variances() {
        let text = Spread {
            point: 0.2,
            variance: Some(1e-4),
            freedom: 20.0,
        };
        let alone = Uncertain::new(text, &[0.2]);
        assert_eq!(alone.spread, Some((1e-4, 20.0)));
        let same = Uncertain::new(text, &[0.2, 0.2, 0.2]);
        assert_eq!(same.spread, alone.spread);
        // s² = 0.01, S = 3: v = 1e-4 + 0.01/3, ν by hand.
        let (variance, freedom) = Uncertain::new(text, &[0.1, 0.2, 0.3]).spread.unwrap();
        let between = 0.01 / 3.0;
        assert!((variance - (1e-4 + between)).abs() < 1e-12);
        let expected = variance * variance / (1e-8 / 20.0 + between * between / 2.0);
        assert!((freedom - expected).abs() < 1e-9 && freedom < 2.2);
        let estimate = Uncertain::new(text, &[0.1, 0.2, 0.3]).estimate(Statistic::Mean, 0.95);
        let t = student::quantile(0.95, freedom);
        assert!((estimate.high.unwrap() - (0.2 + t * variance.sqrt())).abs() < 1e-9);
    }
}
