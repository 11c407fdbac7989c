//! How much goes: the arithmetic and the limits of a budget.

use std::fmt;
use std::str::FromStr;

use router_stats::family::Topology;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::layers::Unit;

/// Slack for products such as 0.7·10, which f64 puts just below 7.
const ROUNDING: f64 = 1e-9;

/// How many experts a layer loses or keeps. Displays as the flag that asks for
/// it.
///
/// Where a router chooses among groups of experts, what stays is rounded up to
/// equally many of each group: never does more go than was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExpertBudget {
    /// The fraction f of every layer's experts goes, rounded down: of E experts
    /// ⌊f·E⌋, so that at least (1 − f)·E stay.
    Fraction(f64),
    /// So many experts stay in every layer.
    Keep(usize),
}

impl ExpertBudget {
    const FRACTION: &'static str = "--prune-experts";
    const KEEP: &'static str = "--keep-experts";

    /// Fails for a fraction outside [0, 1).
    ///
    /// # Errors
    /// [`Error::Option`]
    pub fn check(self) -> Result<()> {
        match self {
            Self::Fraction(fraction) => check_fraction(Self::FRACTION, fraction),
            Self::Keep(_) => Ok(()),
        }
    }

    /// Experts that stay of `experts` in `groups`, a multiple of `groups`.
    /// [`Keep`](Self::Keep) may exceed them.
    pub fn kept(self, experts: usize, groups: usize) -> usize {
        let kept = match self {
            Self::Fraction(fraction) => experts - floor_of(fraction, experts),
            Self::Keep(kept) => kept,
        };
        kept.div_ceil(groups).saturating_mul(groups)
    }

    /// Experts that stay in each layer: `[L]`, 0 for dense layers.
    ///
    /// # Errors
    /// [`Error::Option`], [`Error::TooManyExperts`], or
    /// [`Error::NoExpertRemoved`] if experts were to go but what stays rounds
    /// up to all of them in every layer.
    pub(super) fn per_layer(self, topology: &Topology) -> Result<Vec<usize>> {
        self.check()?;
        let experts = topology.experts();
        let mut kept = vec![0; experts.len()];
        for (layer, kept) in kept.iter_mut().enumerate() {
            let Some(moe) = topology.moe(layer) else {
                continue;
            };
            *kept = self.kept(moe.experts, moe.router.group_count());
            if *kept > moe.experts {
                return Err(Error::TooManyExperts {
                    budget: self,
                    layer,
                    experts: moe.experts,
                });
            }
        }
        let largest = topology.moes().max_by_key(|moe| moe.experts);
        match (largest, kept == experts) {
            (Some(largest), true) if self.removes(largest.experts) => Err(Error::NoExpertRemoved {
                budget: self,
                experts: largest.experts,
                groups: largest.router.group_count(),
            }),
            _ => Ok(kept),
        }
    }

    /// Whether any of `experts` are asked to go.
    fn removes(self, experts: usize) -> bool {
        match self {
            Self::Fraction(fraction) => fraction > 0.0,
            Self::Keep(kept) => kept < experts,
        }
    }

    /// Fails if `left` experts are fewer than the router of `layer` chooses
    /// from.
    ///
    /// # Errors
    /// [`Error::TooFewExperts`]
    pub(super) fn leaves_floor(self, topology: &Topology, layer: usize, left: usize) -> Result<()> {
        match topology.moe(layer) {
            Some(moe) if left < moe.router.floor() => Err(Error::TooFewExperts {
                budget: self,
                left,
                experts: moe.experts,
                floor: moe.router.floor(),
                groups: moe.router.group_count(),
            }),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for ExpertBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fraction(fraction) => write!(f, "{} {fraction}", Self::FRACTION),
            Self::Keep(kept) => write!(f, "{} {kept}", Self::KEEP),
        }
    }
}

/// How many layers, or sublayers of a kind, go. Parses from `2` (a count) or
/// `0.1` (a fraction), and displays so.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LayerBudget {
    /// So many.
    Count(usize),
    /// The fraction f of them, rounded down: of L layers ⌊f·L⌋.
    Fraction(f64),
}

impl LayerBudget {
    /// Fails for a fraction outside [0, 1).
    ///
    /// # Errors
    /// [`Error::Option`]
    pub fn check(self, unit: Unit) -> Result<()> {
        match self {
            Self::Fraction(fraction) => check_fraction(unit.flag(), fraction),
            Self::Count(_) => Ok(()),
        }
    }

    /// Those of `there` that go.
    ///
    /// # Errors
    /// [`Error::Option`], [`Error::TooFewLayers`] if none would be left, or
    /// [`Error::NoLayerRemoved`] if a fraction above 0 rounds down to nothing.
    pub(super) fn of(self, unit: Unit, there: usize) -> Result<usize> {
        self.check(unit)?;
        let count = match self {
            Self::Fraction(fraction) => floor_of(fraction, there),
            Self::Count(count) => count,
        };
        let budget = self;
        match self {
            _ if count > 0 && count >= there => Err(Error::TooFewLayers {
                unit,
                budget,
                there,
            }),
            Self::Fraction(fraction) if fraction > 0.0 && count == 0 => {
                Err(Error::NoLayerRemoved {
                    unit,
                    budget,
                    there,
                })
            }
            _ => Ok(count),
        }
    }
}

impl fmt::Display for LayerBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => write!(f, "{count}"),
            Self::Fraction(fraction) => write!(f, "{fraction}"),
        }
    }
}

impl FromStr for LayerBudget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let fraction = || text.parse().ok().filter(|it| (0.0..1.0).contains(it));
        let budget = match text.parse() {
            Ok(count) => Some(Self::Count(count)),
            Err(_) => fraction().map(Self::Fraction),
        };
        budget
            .ok_or_else(|| "expected a number, or a fraction of at least 0 and below 1".to_owned())
    }
}

/// ⌊fraction·count⌋, at most `count`.
fn floor_of(fraction: f64, count: usize) -> usize {
    // A cast from f64 saturates, and NaN becomes 0.
    ((fraction * count as f64 + ROUNDING).floor() as usize).min(count)
}

fn check_fraction(option: &'static str, fraction: f64) -> Result<()> {
    if (0.0..1.0).contains(&fraction) {
        return Ok(());
    }
    Err(Error::Option {
        option,
        expected: "a fraction of at least 0 and below 1".to_owned(),
        found: fraction.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fractions_round_towards_keeping() {
        for (fraction, experts, kept) in [
            (0.5, 128, 64),
            (0.5, 5, 3),
            (0.7, 10, 3),
            (0.25, 6, 5),
            (0.0, 8, 8),
            (0.95, 128, 7),
            (0.1, 4, 4),
        ] {
            assert_eq!(
                ExpertBudget::Fraction(fraction).kept(experts, 1),
                kept,
                "{fraction} of {experts}"
            );
        }
        assert_eq!(LayerBudget::Fraction(0.1).of(Unit::Layer, 48).unwrap(), 4);
    }

    #[test]
    fn groups_round_towards_keeping() {
        for (budget, kept) in [
            (ExpertBudget::Fraction(0.5), 128),
            (ExpertBudget::Fraction(0.51), 128),
            (ExpertBudget::Fraction(0.01), 256),
            (ExpertBudget::Keep(121), 128),
            (ExpertBudget::Keep(120), 120),
            (ExpertBudget::Keep(0), 0),
        ] {
            assert_eq!(budget.kept(256, 8), kept, "{budget}");
        }
    }

    #[test]
    fn fractions_outside_the_unit_interval_are_refused() {
        for fraction in [1.0, -0.1, 1.5, f64::NAN, f64::INFINITY] {
            let error = ExpertBudget::Fraction(fraction).check().unwrap_err();
            assert!(error.is_usage());
            assert!(LayerBudget::Fraction(fraction).check(Unit::Moe).is_err());
        }
        assert_eq!(
            ExpertBudget::Fraction(1.5).check().unwrap_err().to_string(),
            "--prune-experts: expected a fraction of at least 0 and below 1, found 1.5"
        );
    }

    #[test]
    fn layer_budgets_parse_and_display() {
        for (text, budget) in [
            ("2", LayerBudget::Count(2)),
            ("0", LayerBudget::Count(0)),
            ("0.25", LayerBudget::Fraction(0.25)),
        ] {
            assert_eq!(text.parse::<LayerBudget>().unwrap(), budget);
            assert_eq!(budget.to_string(), text);
        }
        for text in ["", "two", "-1", "1.5", "NaN"] {
            assert!(text.parse::<LayerBudget>().is_err(), "{text}");
        }
    }
}
