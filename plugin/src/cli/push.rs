//! `push`: a checkpoint directory → a repository on the hub.

use std::path::PathBuf;

use router_stats::checkpoint::Checkpoint;
use serde_json::json;

use super::output;
use super::progress::Console;
use super::pull::{named, HubArgs};
use crate::hub::{Hub, Push};
use crate::pipeline::Reporter;

/// Arguments of `push`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Directory that `prune` wrote, with its model card
    #[arg(value_name = "DIR")]
    directory: PathBuf,

    /// Repository: org/name[@branch]; made if it is not there
    #[arg(value_name = "ID")]
    id: String,

    #[command(flatten)]
    hub: HubArgs,

    /// Make the repository private
    #[arg(long)]
    private: bool,

    /// First line of the commit's message
    #[arg(
        long,
        default_value = "Upload a pruned checkpoint",
        value_name = "TEXT"
    )]
    message: String,

    /// Print the commit as JSON
    #[arg(long)]
    json: bool,
}

/// Runs `push`.
pub(super) fn execute(args: &Args) -> anyhow::Result<()> {
    let console = Console::new();
    let (id, revision) = named(&args.id, &args.hub)?;
    // What cannot be opened is of no use to anyone.
    Checkpoint::open(&args.directory)?;
    let push = Push {
        id,
        revision,
        private: args.private,
        summary: &args.message,
    };
    let hub = Hub::from_env(args.hub.token_source.clone());
    let commit = hub.push(&args.directory, &push, &console)?;
    console.report("Pushed", &format!("{} to {id}", args.directory.display()));
    if args.json {
        let answer = json!({ "kind": "push", "id": id, "commit": commit });
        return Ok(output::json(&answer)?);
    }
    Ok(output::data(&commit)?)
}
