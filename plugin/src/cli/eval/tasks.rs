//! Tasks: which items, and who answers about them.

use std::sync::Arc;

use clap::ValueEnum;
use prune_eval::backend::{Backend, Http, HttpOptions, Native};
use prune_eval::task::{run_tasks, TaskOutcomes, TaskSet};

use super::jobs::Jobs;
use super::variants::Variants;
use crate::cli::progress::Console;
use crate::engine::{EngineBackend, EngineOptions};
use crate::hub::Token;
use crate::pipeline::Model;
use crate::{Error, Result};

/// Tasks and backends.
#[derive(clap::Args)]
#[command(next_help_heading = "Tasks")]
pub(super) struct TaskArgs {
    /// Items with known answers: `[NAME=]FILE.jsonl`, or `arithmetic`,
    /// `brackets` or `copy`; repeat it for more
    #[arg(long, value_name = "[NAME=]FILE|SET")]
    task: Vec<String>,

    /// Items of each task: the first ones of a file [default: all of a file,
    /// 200 of a set]
    #[arg(long, value_name = "N", requires = "task")]
    task_limit: Option<usize>,

    /// What runs tasks
    #[arg(long, value_enum, default_value_t = Runner::Native, requires = "task")]
    backend: Runner,

    /// Do not measure held-out text, only tasks and speed
    #[arg(long, requires = "measured", conflicts_with_all = ["text", "eval_tokens"])]
    pub(super) no_text: bool,

    /// OpenAI-compatible server to put the tasks to as well, by the name that
    /// its model has there; repeat it for more
    #[arg(long, value_name = "NAME=URL", value_parser = parse_server, requires = "no_text", requires = "task")]
    server: Vec<Address>,

    /// API key of the servers: `env:VARIABLE` or `path:FILE`
    #[arg(long, value_name = "SOURCE", value_parser = parse_key, requires = "server")]
    server_key: Option<Token>,
}

/// What runs tasks for models that are on this machine.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Runner {
    /// Our forward pass, plans applied as masks
    Native,
    /// mistral.rs in this process, checkpoints of plans written to the cache
    Engine,
}

/// A server and what its model is called there.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Address {
    pub(super) name: String,
    pub(super) url: String,
}

impl TaskArgs {
    /// Whether there are any.
    pub(super) fn asks(&self) -> bool {
        !self.task.is_empty()
    }

    /// Reads the items.
    ///
    /// # Errors
    /// Those of reading a set.
    pub(super) fn sets(&self, seed: u64) -> Result<Vec<TaskSet>> {
        let open = |task: &String| Ok(TaskSet::open(task, self.task_limit, seed)?);
        self.task.iter().map(open).collect()
    }

    /// Whether mistral.rs runs them.
    pub(super) fn in_engine(&self) -> bool {
        self.asks() && self.backend == Runner::Engine
    }

    /// The servers that are asked as well.
    pub(super) fn servers(&self) -> &[Address] {
        &self.server
    }

    /// What every model and then every server scored on every set.
    ///
    /// # Errors
    /// Those of running a model, or of a server that does not answer.
    pub(super) fn run(
        &self,
        sets: &[TaskSet],
        reference: &Model,
        variants: &Variants<'_>,
        batch_tokens: usize,
        jobs: &Jobs<'_>,
    ) -> Result<Vec<Vec<TaskOutcomes>>> {
        let mut tokenizer = reference.checkpoint().tokenizer()?;
        tokenizer.with_padding(None);
        let ends = reference.end_of_text(&tokenizer);
        let console: &Arc<Console> = jobs.console;
        let mut outcomes = Vec::new();
        for (variant, &origin) in variants.list().iter().zip(variants.origins()) {
            let mut backend: Box<dyn Backend + '_> = match self.backend {
                Runner::Native => {
                    let tokenizer = tokenizer.clone();
                    Box::new(Native::new(variant, tokenizer, &ends, batch_tokens))
                }
                Runner::Engine => {
                    let (_plan, job) = jobs.of(origin)?;
                    let options = EngineOptions::default();
                    Box::new(EngineBackend::load(job, &options, &ends)?)
                }
            };
            outcomes.push(run_tasks(&mut *backend, sets, &**console)?);
        }
        for server in &self.server {
            let mut options = HttpOptions::new(&server.url, &server.name);
            options.api_key = match &self.server_key {
                Some(Token::Literal(key)) => Some(key.clone()),
                _ => None,
            };
            let mut backend = Http::new(options, tokenizer.clone(), &ends);
            outcomes.push(run_tasks(&mut backend, sets, &**console)?);
        }
        Ok(outcomes)
    }
}

/// `NAME=URL`.
fn parse_server(text: &str) -> Result<Address, String> {
    match text.split_once('=') {
        Some((name, url)) if !name.is_empty() && url.starts_with("http") => Ok(Address {
            name: name.to_owned(),
            url: url.to_owned(),
        }),
        _ => Err("expected NAME=URL, such as demo=http://127.0.0.1:1234".to_owned()),
    }
}

/// A key that is not typed on the command line, where others could see it.
fn parse_key(text: &str) -> Result<Token> {
    let named = text.split_once(':').map_or(text, |(kind, _)| kind);
    let wrong = |found: String| Error::Option {
        option: "--server-key",
        expected: "env:VARIABLE or path:FILE".to_owned(),
        found,
    };
    match named {
        "env" | "path" => text.parse().map_err(|error| match error {
            Error::Option {
                expected, found, ..
            } => Error::Option {
                option: "--server-key",
                expected,
                found,
            },
            other => other,
        }),
        // What follows the colon may be a key.
        "literal" => Err(wrong("a key".to_owned())),
        "cache" | "none" => Err(wrong(named.to_owned())),
        _ => Err(wrong("another source".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_have_a_name_and_an_address() {
        assert_eq!(
            parse_server("org/half=http://host:1/v1?a=b"),
            Ok(Address {
                name: "org/half".to_owned(),
                url: "http://host:1/v1?a=b".to_owned()
            })
        );
        for bad in ["http://host:1", "=http://host", "name=", "name=host:1"] {
            assert!(parse_server(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn keys_come_from_elsewhere_and_are_not_shown() {
        assert!(parse_key("env:PATH").is_ok());
        for bad in [
            "literal:secret",
            "secret",
            "env:NO_SUCH_VARIABLE",
            "none",
            "cache",
        ] {
            let error = parse_key(bad).unwrap_err().to_string();
            assert!(error.starts_with("--server-key"), "{error}");
            assert!(!error.contains(":secret"), "{error}");
        }
    }
}
