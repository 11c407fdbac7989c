//! `pull`: a model on the hub → its files here.

use serde_json::json;

use super::output;
use super::progress::Console;
use crate::format;
use crate::hub::{self, Hub, Token};
use crate::pipeline::Reporter;
use crate::Error;

/// Arguments of `pull`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Model on the hub: org/name[@revision]
    #[arg(value_name = "ID")]
    id: String,

    #[command(flatten)]
    hub: HubArgs,

    /// Print what is there as JSON
    #[arg(long)]
    json: bool,
}

/// Which revision, and who asks.
#[derive(clap::Args)]
pub(super) struct HubArgs {
    /// Branch, tag or commit [default: main]
    #[arg(long, visible_alias = "hf-revision", value_name = "REVISION")]
    pub(super) revision: Option<String>,

    /// Hub token: `cache`, `none`, `literal:TOKEN`, `env:VARIABLE` or `path:FILE`
    #[arg(long, default_value = "cache", value_name = "SOURCE")]
    pub(super) token_source: Token,
}

/// Runs `pull`.
pub(super) fn execute(args: &Args) -> anyhow::Result<()> {
    let console = Console::new();
    let (id, revision) = named(&args.id, &args.hub)?;
    let hub = Hub::from_env(args.hub.token_source.clone());
    let snapshot = hub.snapshot(id, revision, &console)?;
    let bytes = snapshot.bytes()?;
    console.report("Pulled", &format!("{id}, {}", format::bytes(bytes)));
    if args.json {
        return Ok(output::json(&json!({
            "kind": "snapshot",
            "id": id,
            "commit": snapshot.commit,
            "directory": snapshot.dir,
            "bytes": bytes,
        }))?);
    }
    Ok(output::data(&snapshot.dir.display().to_string())?)
}

/// The id and the revision, which is named at most once.
pub(super) fn named<'a>(
    id: &'a str,
    args: &'a HubArgs,
) -> crate::Result<(&'a str, Option<&'a str>)> {
    let (model, in_id) = hub::split_revision(id);
    if !hub::is_id(model) {
        return Err(Error::NoSuchModel {
            model: id.to_owned(),
        });
    }
    match (in_id, args.revision.as_deref()) {
        (Some(named), Some(flag)) => Err(Error::Option {
            option: "--revision",
            expected: format!("one revision, and {id} names {named}"),
            found: flag.to_owned(),
        }),
        (in_id, flag) => Ok((model, in_id.or(flag))),
    }
}
