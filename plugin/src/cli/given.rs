//! Which flags were given, so that one that would do nothing can be refused.

use std::collections::BTreeSet;

use clap::parser::ValueSource;
use clap::ArgMatches;

use crate::{Error, Result};

/// The flags of one verb that have a value of their own, not their default.
#[derive(Clone, Copy)]
pub(super) struct Given<'a> {
    matches: &'a ArgMatches,
    /// Ids of the flags that the configuration file decided.
    file: &'a BTreeSet<String>,
}

impl<'a> Given<'a> {
    /// Of the verb in `matches`; `file` holds the ids of the flags that the
    /// configuration file decided.
    pub(super) fn of(matches: &'a ArgMatches, file: &'a BTreeSet<String>) -> Self {
        let matches = matches.subcommand().map_or(matches, |(_, verb)| verb);
        Self { matches, file }
    }

    /// Of the verb under this one.
    pub(super) fn verb(self) -> Self {
        Self::of(self.matches, self.file)
    }

    /// Whether `flag`, such as `--seed`, was typed or is in the configuration
    /// file.
    pub(super) fn has(self, flag: &str) -> bool {
        self.file.contains(&id(flag)) || self.typed(flag)
    }

    /// Whether `flag` was typed.
    fn typed(self, flag: &str) -> bool {
        let id = id(flag);
        !self.file.contains(&id) && self.matches.value_source(&id) == Some(ValueSource::CommandLine)
    }

    /// Refuses `flags` unless they are of use, which takes `needed`. What the
    /// configuration file says need not be of use everywhere.
    ///
    /// # Errors
    /// [`Error::Option`] for the first of `flags` that was typed.
    pub(super) fn refuse_unless(
        self,
        useful: bool,
        flags: &[&'static str],
        needed: &str,
    ) -> Result<()> {
        match flags.iter().find(|flag| !useful && self.typed(flag)) {
            None => Ok(()),
            Some(&option) => Err(Error::Option {
                option,
                expected: format!("{needed} beside it"),
                found: "none of them".to_owned(),
            }),
        }
    }
}

/// How clap calls a flag.
fn id(flag: &str) -> String {
    flag.trim_start_matches('-').replace('-', "_")
}
