//! The command line: one verb per file, `Args` and `execute`.
//!
//! Owns flags, what is printed and exit codes; `output` alone prints. The
//! work is done by [`crate::pipeline`] and the libraries.

mod args;
mod calibrate;
mod completions;
mod config;
mod doctor;
mod eval;
mod given;
mod inspect;
mod interrupt;
mod job;
mod layer_args;
mod man;
mod output;
mod overhead;
mod plain;
mod plan;
mod progress;
mod prune;
mod pull;
mod push;
mod report;
mod serve;
mod stats;
mod table;
mod time;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{ArgAction, CommandFactory, FromArgMatches, Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::cache::Cache;
use given::Given;

/// Exit status if what was asked for is wrong.
const USAGE: u8 = 2;

/// Prunes Mixture-of-Experts models and serves them with mistral.rs
#[derive(Parser)]
#[command(name = "mistralrs-prune", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    #[command(flatten)]
    global: Global,
}

#[derive(Subcommand)]
enum Command {
    /// Prune a model if it has not been done yet, and serve it
    Serve(serve::Args),
    /// Run text through a model and write what its routers did
    Calibrate(calibrate::Args),
    /// Decide what goes, from statistics
    Plan(plan::Args),
    /// Write the checkpoint that a plan leaves
    Prune(prune::Args),
    /// Download a model from the hub
    Pull(pull::Args),
    /// Upload a checkpoint to the hub
    Push(push::Args),
    /// Measure what plans or checkpoints lose on held-out text
    Eval(eval::Args),
    /// Make a page of statistics, a plan and evaluations, to look at
    Report(report::Args),
    /// Show a checkpoint, a statistics file or a plan
    Inspect(inspect::Args),
    /// Work with statistics files
    Stats(stats::Args),
    /// Say what this machine has and lacks, and how to get it
    Doctor(doctor::Args),
    /// Print what a shell needs to complete the command line
    Completions(completions::Args),
    /// Print or write pages of the manual
    Man(man::Args),
    /// One round of `eval --speed`
    #[command(hide = true)]
    Time(time::Args),
    /// What a server takes without a model
    #[command(hide = true)]
    Overhead(overhead::Args),
    /// mistral.rs without this server's layers
    #[command(hide = true)]
    Plain(plain::Args),
}

/// Options of every verb.
#[derive(clap::Args)]
struct Global {
    /// Folder for intermediate files [default: $XDG_CACHE_HOME/mistralrs-prune]
    #[arg(long, global = true, env = crate::cache::ENVIRONMENT, value_name = "DIR", hide_env_values = true)]
    cache_dir: Option<PathBuf>,

    /// Print only data and errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,

    /// Log what the engine does; twice for more. RUST_LOG overrides it
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,

    /// The configuration file, if there is one.
    #[arg(skip)]
    config: Option<PathBuf>,
}

impl Global {
    fn cache(&self) -> crate::Result<Cache> {
        Cache::locate(
            self.cache_dir
                .as_deref()
                .filter(|dir| !dir.as_os_str().is_empty()),
        )
    }
}

/// The whole command line.
fn command() -> clap::Command {
    Cli::command().arg(config::flag())
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let argv: Vec<_> = std::env::args_os().collect();
    let parsed = match config::parse(command(), &argv) {
        Ok(parsed) => parsed,
        Err(config::Refused::Config(error)) => {
            let hint = error.hint();
            output::error(&error.into(), hint.as_deref());
            return ExitCode::from(USAGE);
        }
        Err(config::Refused::Usage(error, None)) => error.exit(),
        Err(config::Refused::Usage(error, Some(note))) => {
            // Nothing is left to do if stderr cannot be written.
            let _ = error.print();
            output::hint(&note);
            return ExitCode::from(USAGE);
        }
    };
    let mut cli = Cli::from_arg_matches(&parsed.matches).unwrap_or_else(|error| error.exit());
    cli.global.config = parsed.file;
    output::quiet(cli.global.quiet);
    log(&cli.global);
    let interrupted = cli.command.interrupted();
    let given = Given::of(&parsed.matches, &parsed.decided);
    match run(cli, given) {
        Ok(code) => code,
        Err(error) => fail(&error, interrupted),
    }
}

impl Command {
    /// Advice after an interruption where the library's, which is about
    /// calibrating, is wrong.
    fn interrupted(&self) -> Option<&'static str> {
        match self {
            Self::Serve(args) => args.interrupted(),
            Self::Calibrate(_) => None,
            Self::Eval(args) => Some(args.interrupted()),
            Self::Pull(_) => Some("what was downloaded stays; the same command continues"),
            Self::Push(_) => Some("nothing was committed; the same command continues"),
            Self::Plan(args) => Some(args.interrupted()),
            Self::Prune(args) => Some(args.interrupted()),
            Self::Report(_)
            | Self::Inspect(_)
            | Self::Stats(_)
            | Self::Doctor(_)
            | Self::Completions(_)
            | Self::Man(_)
            | Self::Time(_)
            | Self::Plain(_)
            | Self::Overhead(_) => Some("nothing half-written remains; run it again"),
        }
    }
}

fn run(cli: Cli, given: Given<'_>) -> anyhow::Result<ExitCode> {
    interrupt::install()?;
    let global = cli.global;
    match cli.command {
        Command::Serve(args) => serve::execute(args, given, &global),
        Command::Calibrate(args) => calibrate::execute(&args, given, &global),
        Command::Plan(args) => plan::execute(&args, given, &global),
        Command::Prune(args) => prune::execute(&args, given, &global),
        Command::Pull(args) => pull::execute(&args),
        Command::Push(args) => push::execute(&args),
        Command::Eval(args) => eval::execute(&args, given, &global),
        Command::Report(args) => report::execute(&args, given, &global),
        Command::Inspect(args) => inspect::execute(&args, &global),
        Command::Stats(args) => stats::execute(&args, &global),
        // It may find that something is wrong, which is no error of its own.
        Command::Doctor(args) => return doctor::execute(&args, given, &global),
        Command::Completions(args) => completions::execute(&args),
        Command::Man(args) => man::execute(&args),
        Command::Time(args) => time::execute(&args, &global),
        Command::Overhead(args) => overhead::execute(&args, &global),
        Command::Plain(args) => plain::execute(&args, &global),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// Logs go to stderr: warnings, errors alone with `-q`, more with `-v`, or as
/// `RUST_LOG` says.
fn log(global: &Global) {
    let level = match global.verbose {
        0 if global.quiet => "error",
        0 => "warn",
        1 => "info",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(output::colours())
        .init();
}

/// Prints an error with its advice, which after an interruption is
/// `interrupted` if there is one, and finds its exit code.
fn fail(error: &anyhow::Error, interrupted: Option<&str>) -> ExitCode {
    let mut advice = None;
    let mut code = 1;
    for cause in error.chain() {
        let (hint, usage) = if let Some(error) = cause.downcast_ref::<crate::Error>() {
            (error.hint(), error.is_usage())
        } else if let Some(error) = cause.downcast_ref::<prune_eval::Error>() {
            (error.hint(), false)
        } else if let Some(error) = cause.downcast_ref::<router_stats::Error>() {
            (error.hint(), false)
        } else {
            (None, false)
        };
        advice = advice.or(hint);
        if usage {
            code = USAGE;
        }
        if is_interruption(cause) {
            code = interrupt::EXIT;
            advice = interrupted.map(str::to_owned).or(advice);
        }
    }
    output::error(error, advice.as_deref());
    ExitCode::from(code)
}

fn is_interruption(error: &(dyn std::error::Error + 'static)) -> bool {
    use router_stats::Error::Interrupted;
    matches!(
        error.downcast_ref::<router_stats::Error>(),
        Some(Interrupted)
    ) || matches!(
        error.downcast_ref::<crate::Error>(),
        Some(
            crate::Error::Stats(Interrupted)
                | crate::Error::Eval(prune_eval::Error::RouterStats(Interrupted))
        )
    ) || matches!(
        error.downcast_ref::<prune_eval::Error>(),
        Some(prune_eval::Error::RouterStats(Interrupted))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flags_do_not_contradict_one_another() {
        command().debug_assert();
    }

    #[test]
    fn exit_codes_tell_usage_failure_and_interruption_apart() {
        let code = |error: crate::Error| format!("{:?}", fail(&error.into(), None));
        let expected = |code: u8| format!("{:?}", ExitCode::from(code));
        assert_eq!(code(router_stats::Error::Interrupted.into()), expected(130));
        assert_eq!(
            code(prune_eval::Error::from(router_stats::Error::Interrupted).into()),
            expected(130)
        );
        assert_eq!(
            code(crate::saliency::criterion("none").err().unwrap()),
            expected(2)
        );
        assert_eq!(code(crate::Error::NoCacheFolder), expected(1));
    }
}
