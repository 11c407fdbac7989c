//! Metrics that several kinds of task report.

use crate::evaluator::{Metric, Statistic, Unit};

/// Share of items with the right answer.
pub(super) const ACCURACY: Metric = share("acc", "accuracy", true);

/// Share of generations that fell into a loop.
pub(super) const LOOPED: Metric = share("looped", "answers that loop", false);

/// Bits per byte of the gold choice: the mean over items.
pub(super) const GOLD_BITS: Metric = bits("gold_bits_per_byte", "bits per byte of the gold choice");

/// Bits per byte of the known answer: the mean over items.
pub(super) const ANSWER_BITS: Metric = bits("answer_bits_per_byte", "bits per byte of the answer");

/// A share of items.
pub(super) const fn share(
    name: &'static str,
    title: &'static str,
    higher_is_better: bool,
) -> Metric {
    Metric {
        name,
        title,
        unit: Unit::Percent,
        higher_is_better,
        statistic: Statistic::Proportion,
    }
}

const fn bits(name: &'static str, title: &'static str) -> Metric {
    Metric {
        name,
        title,
        unit: Unit::Bits,
        higher_is_better: false,
        statistic: Statistic::Mean,
    }
}
