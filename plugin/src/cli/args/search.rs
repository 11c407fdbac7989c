//! Flags of searches.

use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser};
use clap::Args;

use crate::plan::SearchOptions;
use crate::search::{SEARCHES, SEARCH_TOKENS};

/// Whether candidates are run, and by whom they are chosen.
#[derive(Args, Clone)]
#[command(next_help_heading = "Search")]
pub(in crate::cli) struct SearchArgs {
    /// Run candidates on calibration text to find something better than the
    /// allocation's split. The same command continues a search that was stopped
    #[arg(long, value_name = "NAME", value_parser = PossibleValuesParser::new(searches()), requires = "expert_budget")]
    search: Option<String>,

    #[command(flatten)]
    limits: SearchLimits,
}

/// How much a search may take.
#[derive(Args, Clone)]
pub(in crate::cli) struct SearchLimits {
    /// Time to run candidates: 90s, 5m, 2h
    #[arg(long, default_value = "5m", value_name = "TIME", value_parser = parse_time, requires = "search", help_heading = "Search")]
    search_time: Duration,

    /// Tokens of calibration text that every candidate is run on, over all
    /// domains
    #[arg(long, default_value_t = SEARCH_TOKENS, value_name = "N", requires = "search", help_heading = "Search")]
    search_tokens: usize,
}

impl SearchArgs {
    /// Whether a search was asked for.
    pub(in crate::cli) fn asks(&self) -> bool {
        self.search.is_some()
    }

    /// The options of a plan.
    pub(super) fn options(&self) -> Option<SearchOptions> {
        let name = self.search.as_deref()?;
        Some(self.limits.of(name))
    }
}

impl SearchLimits {
    /// A search within them.
    pub(in crate::cli) fn of(&self, name: &str) -> SearchOptions {
        SearchOptions {
            name: name.to_owned(),
            tokens: self.search_tokens,
            time: self.search_time,
        }
    }
}

/// Names of the searches.
pub(in crate::cli) fn searches() -> Vec<PossibleValue> {
    SEARCHES
        .iter()
        .map(|search| PossibleValue::new(search.name()).help(search.about()))
        .collect()
}

/// `90s`, `5m`, `2h`.
fn parse_time(text: &str) -> Result<Duration, String> {
    let expected = || format!("expected a time above 0, such as 90s, 5m or 2h, found {text}");
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let number: u64 = digits.parse().map_err(|_| expected())?;
    let unit = match text.get(digits.len()..) {
        Some("s") => 1,
        Some("m") => 60,
        Some("h") => 3600,
        _ => return Err(expected()),
    };
    let seconds = number.checked_mul(unit).filter(|&seconds| seconds > 0);
    seconds.map(Duration::from_secs).ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_time_is_the_librarys() {
        #[derive(clap::Parser)]
        struct Alone {
            #[command(flatten)]
            limits: SearchLimits,
            #[arg(long)]
            search: Option<String>,
        }
        let alone: Alone = clap::Parser::parse_from(["x", "--search", "evolution"]);
        let options = alone.limits.of(alone.search.as_deref().unwrap());
        assert_eq!(options.time, crate::search::SEARCH_TIME);
        assert_eq!(options.tokens, SEARCH_TOKENS);
    }

    #[test]
    fn times_have_a_unit() {
        for (text, seconds) in [("90s", 90), ("5m", 300), ("2h", 7200)] {
            assert_eq!(parse_time(text), Ok(Duration::from_secs(seconds)));
        }
        for text in [
            "",
            "5",
            "m",
            "0s",
            "-5m",
            "1.5h",
            "5 m",
            "5d",
            "99999999999999999h",
        ] {
            assert!(parse_time(text).is_err(), "{text}");
        }
    }
}
