//! The only module that prints.
//!
//! Data goes to stdout; what is happening goes to stderr. Colour is used only
//! on a terminal or with `CLICOLOR_FORCE`, never with `NO_COLOR`, and never says
//! what the words do not.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this is where printing is allowed"
)]

use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;

/// Width of the verb that starts a line about progress.
const VERB: usize = 12;

static QUIET: AtomicBool = AtomicBool::new(false);

/// Silences everything but data and errors.
pub(super) fn quiet(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
}

/// Whether stderr is a terminal that can be drawn on.
pub(super) fn draws() -> bool {
    !QUIET.load(Ordering::Relaxed)
        && std::io::stderr().is_terminal()
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Prints data, with a line end, to stdout.
///
/// # Errors
/// If stdout cannot be written; a reader that has gone away is no error.
pub(super) fn data(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{}", text.trim_end_matches('\n')).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Prints data as indented JSON to stdout.
///
/// # Errors
/// If it cannot be written.
pub(super) fn json<T: Serialize>(value: &T) -> std::io::Result<()> {
    data(&serde_json::to_string_pretty(value)?)
}

/// Prints `Verb        text` to stderr.
pub(super) fn line(verb: &str, text: &str) {
    if !QUIET.load(Ordering::Relaxed) {
        let gap = " ".repeat(VERB.saturating_sub(verb.chars().count()).max(1));
        eprintln!("{}{gap}{text}", paint(verb, "1;32"));
    }
}

/// Prints text to stderr as it is.
pub(super) fn plain(text: &str) {
    if !QUIET.load(Ordering::Relaxed) {
        eprintln!("{text}");
    }
}

/// Prints `hint: text` to stderr.
pub(super) fn hint(text: &str) {
    if !QUIET.load(Ordering::Relaxed) {
        eprintln!("{} {text}", paint("hint:", "1;36"));
    }
}

/// Prints an error with its causes, then advice.
pub(super) fn error(error: &anyhow::Error, advice: Option<&str>) {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        // A transparent error repeats its source.
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    eprintln!("{} {text}", paint("error:", "1;31"));
    if let Some(advice) = advice {
        eprintln!("{} {advice}", paint("hint:", "1;36"));
    }
}

/// Whether stderr takes colours (<https://no-color.org>,
/// <https://bixense.com/clicolors>).
pub(super) fn colours() -> bool {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let forced = set("CLICOLOR_FORCE").is_some_and(|value| value != "0");
    let refused = set("CLICOLOR").is_some_and(|value| value == "0");
    let dumb = set("TERM").is_some_and(|term| term == "dumb");
    set("NO_COLOR").is_none() && (forced || std::io::stderr().is_terminal() && !refused && !dumb)
}

fn paint(text: &str, code: &str) -> String {
    if colours() {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// Columns of the terminal that stdout is, or as many as a page has.
pub(super) fn width() -> usize {
    const PAGE: usize = 100;
    match terminal_size::terminal_size_of(std::io::stdout()) {
        Some((terminal_size::Width(columns), _)) => usize::from(columns),
        None => std::env::var("COLUMNS")
            .ok()
            .and_then(|columns| columns.parse().ok())
            .unwrap_or(PAGE),
    }
}
