//! `stats`: work with statistics files.

mod stability;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use router_stats::stats::Stats;
use serde_json::json;

use super::{output, Global};
use crate::format;

/// Arguments of `stats`.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Join statistics of one model: the parts of `calibrate --shard`
    Merge {
        /// Statistics files
        #[arg(required = true, num_args = 2.., value_name = "STATS")]
        inputs: Vec<PathBuf>,

        /// Statistics file to write
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,

        /// Print what was written as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show how much of a plan depends on which part of the text it is made from
    Stability(Box<stability::Args>),
}

/// Runs `stats`.
pub(super) fn execute(args: &Args, global: &Global) -> anyhow::Result<()> {
    match &args.command {
        Command::Merge {
            inputs,
            output,
            json,
        } => merge(inputs, output, *json),
        Command::Stability(args) => stability::execute(args, global),
    }
}

/// Joins `inputs` into `output`.
fn merge(inputs: &[PathBuf], output: &Path, as_json: bool) -> anyhow::Result<()> {
    let mut inputs = inputs.iter();
    // clap requires two.
    let Some(first) = inputs.next() else {
        return Ok(());
    };
    let mut all = Stats::read(first)?;
    for path in inputs {
        all = all.merge(Stats::read(path)?)?;
    }
    crate::cache::make_parent(output)?;
    all.write(output)?;
    let tokens: u64 = all
        .provenance
        .domains
        .iter()
        .map(|domain| domain.tokens)
        .sum();
    output::line(
        "Merged",
        &format!(
            "{} tokens, {} domains: {}",
            format::count(tokens),
            all.provenance.domains.len(),
            output.display()
        ),
    );
    if as_json {
        output::json(&json!({
            "output": output,
            "hash": all.hash(),
            "tokens": tokens,
            "provenance": all.provenance,
        }))?;
    }
    Ok(())
}
