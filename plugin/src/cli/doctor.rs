//! `doctor`: what this machine has and lacks, and how to get it.
//!
//! Owns the questions and how their answers are shown; each file under it owns
//! those about one thing. Nothing is downloaded or written, and the network is
//! left alone unless `--network` is given.

mod hub;
mod machine;
mod model;
mod storage;

use std::process::ExitCode;

use serde::Serialize;
use serde_json::json;

use super::args::ModelArgs;
use super::given::Given;
use super::{output, Global};

/// Arguments of `doctor`.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    model: ModelArgs,

    /// Ask the hub whether it can be reached, and whether it takes the token
    #[arg(long)]
    network: bool,

    /// Port that `serve` is to listen on
    #[arg(short, long, default_value_t = 1234)]
    port: u16,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How good an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// As it should be.
    Ok,
    /// Works, but less well than it could.
    Warning,
    /// Does not work.
    Error,
}

/// One answer.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Finding {
    about: &'static str,
    state: State,
    found: String,
    /// How to get what is lacking.
    hint: Option<String>,
}

impl Finding {
    fn ok(about: &'static str, found: impl Into<String>) -> Self {
        Self {
            about,
            state: State::Ok,
            found: found.into(),
            hint: None,
        }
    }

    fn warning(about: &'static str, found: impl Into<String>, hint: impl Into<String>) -> Self {
        Self {
            state: State::Warning,
            hint: Some(hint.into()),
            ..Self::ok(about, found)
        }
    }

    /// What an error says, with its own advice.
    fn error(about: &'static str, error: &crate::Error) -> Self {
        Self {
            state: State::Error,
            hint: error.hint(),
            ..Self::ok(about, error.to_string())
        }
    }
}

/// Runs `doctor`. Its exit code tells whether there was an error.
pub(super) fn execute(args: &Args, given: Given<'_>, global: &Global) -> anyhow::Result<ExitCode> {
    given.refuse_unless(args.model.model_id.is_some(), &["--cpu"], "-m")?;
    let mut findings = machine::findings(args, global);
    findings.extend(storage::findings(global));
    findings.extend(hub::findings(args));
    if args.model.model_id.is_some() {
        findings.extend(model::findings(&args.model, global));
    }
    let worst = findings.iter().map(|finding| finding.state).max();
    if args.json {
        output::json(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "ok": worst < Some(State::Error),
            "findings": findings,
        }))?;
    } else {
        output::data(&text(&findings))?;
    }
    Ok(match worst {
        Some(State::Error) => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    })
}

/// What a person reads: a line for every answer, advice under it.
fn text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.about.len()).max();
    let width = width.unwrap_or_default();
    let mut lines = Vec::new();
    for Finding {
        about,
        state,
        found,
        hint,
    } in findings
    {
        let state = match state {
            State::Ok => "ok",
            State::Warning => "warning",
            State::Error => "error",
        };
        lines.push(format!("  {state:<7}  {about:<width$}  {found}"));
        if let Some(hint) = hint {
            lines.push(format!("{:11}{:width$}  hint: {hint}", "", ""));
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_under_what_it_is_about() {
        let findings = [
            Finding::ok("port", "1234 is free"),
            Finding::warning("memory", "1 GB", "buy more"),
        ];
        assert_eq!(
            text(&findings),
            "  ok       port    1234 is free\n  warning  memory  1 GB\n                   hint: buy more"
        );
        assert!(State::Ok < State::Warning && State::Warning < State::Error);
    }
}
