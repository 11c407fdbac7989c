//! Many variants of one model, measured on one text, in a file that grows.
//!
//! A [`Point`] names what was varied; a [`Line`] is a point and what was
//! measured there; [`SweepFile`] keeps lines across interruptions;
//! [`Sweep::summary`] takes seeds together, finds cliffs and makes tables.
//!
//! It knows no plans: what a coordinate means is the business of whoever makes
//! the variants.

mod cliff;
mod file;
mod point;
mod segmented;
mod summary;
mod table;
mod uncertain;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use cliff::Cliff;
pub use file::SweepFile;
pub use point::{axis, Coordinate, Point};
pub use summary::{Cell, Rank, Summary};

use crate::report::{Estimates, Model, Report};

/// Version of the file format.
pub const VERSION: u32 = 1;

/// The first line of a file: what all of its points have in common.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// [`VERSION`].
    pub sweep: u32,
    /// Whatever a result depends on beside its point, by name. A file is
    /// continued only with the same.
    pub settings: BTreeMap<String, String>,
    /// The model as it is.
    pub size: Size,
    /// The text and the reference on it; no variants.
    pub base: Report,
}

/// What a model weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Weights; shared ones once.
    pub parameters: u64,
    /// Weights that one token meets.
    pub active_parameters: u64,
    /// Bytes of all tensors.
    pub bytes: u64,
}

/// What was measured at one point.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Where.
    pub point: Point,
    /// Hash of what was run: points that have it in common, such as those of two
    /// seeds that lead to one plan, are run once.
    pub variant: String,
    /// What it weighs.
    pub size: Size,
    /// The domain whose perplexity rises most, if there are two or more.
    pub worst: Option<Worst>,
    /// Every metric, mixed and by domain, with the sums they follow from.
    pub model: Model,
}

/// The domain that loses most.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Worst {
    /// Its name.
    pub domain: String,
    /// Its metrics.
    pub estimates: Estimates,
}

impl Worst {
    /// Of a report's first variant.
    pub fn of(report: &Report) -> Option<Self> {
        let (domain, _) = report.worst_domain(0)?;
        let estimates = report.variants.first()?.domains.get(domain)?.clone();
        Some(Self {
            domain: domain.to_owned(),
            estimates,
        })
    }
}

/// A file's content.
#[derive(Debug, Clone, PartialEq)]
pub struct Sweep {
    /// What the points have in common.
    pub header: Header,
    /// What was measured, in the order in which it was.
    pub lines: Vec<Line>,
}

impl Sweep {
    /// The line of a point.
    pub fn at(&self, point: &Point) -> Option<&Line> {
        self.lines.iter().find(|line| line.point == *point)
    }

    /// A line of the same variant, at whichever point.
    pub fn of_variant(&self, variant: &str) -> Option<&Line> {
        self.lines.iter().find(|line| line.variant == variant)
    }
}

#[cfg(test)]
pub(crate) mod tests;
