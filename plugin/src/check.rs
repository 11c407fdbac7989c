//! Checks of numbers that come out of statistics.

use crate::{Error, Result};

/// Fails for the first of `scores` that is not finite; `what` names it by its
/// index.
///
/// # Errors
/// [`Error::NonFiniteScore`]
pub(crate) fn expect_finite(scores: &[f64], what: impl Fn(usize) -> String) -> Result<()> {
    match scores.iter().position(|score| !score.is_finite()) {
        None => Ok(()),
        Some(index) => Err(Error::NonFiniteScore {
            what: what(index),
            value: scores[index],
        }),
    }
}

/// Fails if the statistics describe another structure than the model has.
///
/// # Errors
/// [`Structure`](router_stats::Error::Structure)
pub(crate) fn expect_len(what: &str, found: usize, expected: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(router_stats::Error::Structure {
        what: format!("{what} in the statistics"),
        expected: expected.to_string(),
        found: found.to_string(),
    }
    .into())
}
