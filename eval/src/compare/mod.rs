//! Comparison statistics: intervals, p-values and their correction.
//!
//! [`Bootstrap`] puts intervals around means and differences of outcomes,
//! [`sign_test`] asks only which side is ahead how often, and [`holm`] corrects
//! for many comparisons. What an outcome is belongs to [`crate::evaluator`].

mod bootstrap;
mod holm;
mod sign;
mod spread;

use serde::{Deserialize, Serialize};

pub(crate) use bootstrap::percentile;
pub use bootstrap::{Bootstrap, Cluster, Resampled, CONFIDENCE, RESAMPLES};
pub use holm::holm;
pub use sign::sign_test;
pub(crate) use spread::Spread;

/// A value and the interval around it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Estimate {
    /// From the whole text.
    pub value: f64,
    /// Lower end of the interval; absent where a domain has a single
    /// cluster, whose sampling error nothing tells.
    pub low: Option<f64>,
    /// Upper end; present if `low` is.
    pub high: Option<f64>,
}

impl Estimate {
    /// Both ends of the interval, if it is defined.
    pub fn interval(&self) -> Option<(f64, f64)> {
        self.low.zip(self.high)
    }

    /// Whether the interval is defined and excludes zero. For a difference:
    /// whether the two are distinguishable.
    pub fn excludes_zero(&self) -> bool {
        self.interval()
            .is_some_and(|(low, high)| low > 0.0 || high < 0.0)
    }
}
