//! How much of a decision is the calibration text's doing: the same decision
//! from other draws of the text.
//!
//! Statistics are sums, so those of a bootstrap draw of parts of the text are
//! weighted sums of the parts' statistics; each draw is planned like the whole,
//! with every constraint and allocator, and what stays is compared. Owns the
//! draws, the comparison, and how a calibration is divided to be compared as it
//! grows. What stays is decided by [`crate::plan`]; running the model is
//! [`crate::pipeline`]'s.

mod draw;
mod measure;
mod rounds;
#[cfg(test)]
mod tests;
mod units;

use router_stats::observer::{expert, routing};
use router_stats::stats::{Parts, Stats};

pub use measure::{jaccard, ExpertStability, LayerStability, Stability};
pub use rounds::{Rounds, CHUNKS};
pub use units::add_round;

use crate::layers::layer_criterion;
use crate::plan::{LayerPlan, PlanOptions};
use crate::{Error, Result};

/// Bootstrap draws. The standard error that they leave in the mean Jaccard
/// index is a fourteenth of its spread over draws.
pub const DRAWS: usize = 200;

/// Tables that no plan is decided from: the largest, at E·H and E² entries a
/// layer.
pub const UNREAD: [&str; 2] = [expert::OUTPUT, routing::PAIRS];

/// Fails for budgets that statistics alone do not decide.
///
/// # Errors
/// [`Error::Option`]
pub fn check(options: &PlanOptions) -> Result<()> {
    if options.drops().next().is_some() && layer_criterion(&options.layer_criterion)?.measures() {
        return Err(Error::Option {
            option: "--layer-criterion",
            expected: "one that statistics decide".to_owned(),
            found: options.layer_criterion.clone(),
        });
    }
    let undecided = |option, found| {
        Err(Error::Option {
            option,
            expected: "a budget that statistics decide, such as --prune-experts 0.5".to_owned(),
            found,
        })
    };
    match (options.max_loss, &options.search) {
        (None, None) => Ok(()),
        (Some(most), _) => undecided("--max-loss", most.to_string()),
        (None, Some(search)) => undecided("--search", search.name.clone()),
    }
}

/// Leaves out what no plan is decided from, before many parts are held at once.
pub fn without_unread(mut stats: Stats) -> Stats {
    for table in UNREAD {
        stats.tables.remove(table);
    }
    stats
}

/// Compares what `decide` makes of [`DRAWS`] bootstrap draws of `parts` with
/// what it makes of all of them. Equal seeds give equal draws.
///
/// # Errors
/// [`Error::OnePart`] if no domain has text in two parts; what `decide` returns.
pub fn stability(
    parts: &Parts,
    seed: u64,
    decide: &mut dyn FnMut(&Stats) -> Result<Vec<LayerPlan>>,
) -> Result<Stability> {
    let mut draws = draw::Draws::new(parts, seed);
    if draws.varied() == 0 {
        return Err(Error::OnePart);
    }
    let all = decide(&parts.together())?;
    let mut decided = Vec::with_capacity(DRAWS);
    for _ in 0..DRAWS {
        decided.push(decide(&parts.weighed(&draws.next()))?);
    }
    Ok(Stability {
        parts: parts.parts().len(),
        fixed: draws.fixed(parts.provenance()),
        ..measure::measure(&all, &decided)
    })
}
