//! Which flags were typed, so that one that would do nothing can be refused.

use clap::parser::ValueSource;
use clap::ArgMatches;

use crate::{Error, Result};

/// The flags of one verb that have a value of their own, not their default.
#[derive(Clone, Copy)]
pub(super) struct Given<'a>(&'a ArgMatches);

impl<'a> Given<'a> {
    /// Of the verb in `matches`.
    pub(super) fn of(matches: &'a ArgMatches) -> Self {
        Self(matches.subcommand().map_or(matches, |(_, verb)| verb))
    }

    /// Of the verb under this one.
    pub(super) fn verb(self) -> Self {
        Self::of(self.0)
    }

    /// Whether `flag`, such as `--seed`, was typed.
    pub(super) fn has(self, flag: &str) -> bool {
        let id = flag.trim_start_matches('-').replace('-', "_");
        self.0.value_source(&id) == Some(ValueSource::CommandLine)
    }

    /// Refuses `flags` unless they are of use, which takes `needed`.
    ///
    /// # Errors
    /// [`Error::Option`] for the first of `flags` that was typed.
    pub(super) fn refuse_unless(
        self,
        useful: bool,
        flags: &[&'static str],
        needed: &str,
    ) -> Result<()> {
        match flags.iter().find(|flag| !useful && self.has(flag)) {
            None => Ok(()),
            Some(&option) => Err(Error::Option {
                option,
                expected: format!("{needed} beside it"),
                found: "none of them".to_owned(),
            }),
        }
    }
}
