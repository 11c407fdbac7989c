//! Looking for the plan that loses least, by running candidates.
//!
//! A search is one file that implements [`Search`] and one line in
//! [`SEARCHES`]. An [`Objective`] says how good a candidate is on calibration
//! text, in a masked forward pass; a [`Journal`] keeps every answer, so that a
//! search that was killed goes on where it was; [`Trials`] keeps the best, so
//! that a search can be stopped at any time and never ends with less than it
//! started with. Searches run forwards only and never see held-out text.
//!
//! Owns how candidates are made and measured. It does not own what a plan has
//! to respect ([`Space`]), which text is used ([`crate::pipeline`]), nor how a
//! model is run ([`prune_eval`]).

mod evolution;
mod journal;
mod objective;
mod policy_gradient;
mod progress;
#[cfg(test)]
mod tests;
mod text;
mod trials;

use std::time::Duration;

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

pub use journal::{Header, Journal};
pub use objective::Objective;
pub(crate) use progress::OfMany;
pub use text::SearchText;
pub use trials::{Found, Start, Trials};

pub use crate::plan::Fitness;
use crate::plan::Space;
use crate::registry::find;
use crate::Result;

/// Tokens over all domains that candidates are measured on unless told
/// otherwise.
pub const SEARCH_TOKENS: usize = 4096;

/// Time for running candidates unless told otherwise.
pub const SEARCH_TIME: Duration = Duration::from_secs(300);

/// Every search.
pub const SEARCHES: &[&dyn Search] = &[&evolution::Evolution, &policy_gradient::PolicyGradient];

/// Looks for something better than the splits of the allocators.
pub trait Search: Sync + std::fmt::Debug {
    /// Name on the command line and in plans: `evolution`.
    fn name(&self) -> &'static str;

    /// One line for lists.
    fn about(&self) -> &'static str;

    /// Where it comes from.
    fn source(&self) -> &'static str;

    /// Measures candidates until the time is over or it has nothing left to
    /// try. What it does depends on the space, the answers and `rng` alone.
    ///
    /// # Errors
    /// Those of [`Trials::measure`].
    fn run(&self, trials: &mut Trials<'_, '_>, rng: &mut ChaCha8Rng) -> Result<()>;
}

/// Finds a search by name.
///
/// # Errors
/// [`Error::Unknown`](crate::Error::Unknown) with the known names.
pub fn search(name: &str) -> Result<&'static dyn Search> {
    find("search", SEARCHES, Search::name, name)
}

/// The best of `space` that `search` finds in the time of `objective`: never
/// worse there than what is kept without a search, nor than the even split.
///
/// # Errors
/// Those of [`Objective::measure`], an interruption included; what was measured
/// is kept.
pub fn run(
    search: &dyn Search,
    space: &Space,
    objective: &mut Objective<'_>,
    seed: u64,
) -> Result<Found> {
    let mut trials = Trials::new(space, objective)?;
    search.run(&mut trials, &mut ChaCha8Rng::seed_from_u64(seed))?;
    Ok(trials.found())
}
