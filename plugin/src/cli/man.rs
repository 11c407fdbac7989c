//! `man`: pages of the manual, in roff.

use std::path::PathBuf;

use clap::Command;

use super::output;
use crate::{Error, Result};

/// Arguments of `man`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Verb whose page to print, such as `serve` or `plan diff` [default: the
    /// program's page]
    #[arg(value_name = "VERB", conflicts_with = "output")]
    verb: Vec<String>,

    /// Folder to write the pages of all verbs to, such as
    /// ~/.local/share/man/man1; made if it is absent
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Runs `man`.
pub(super) fn execute(args: &Args) -> anyhow::Result<()> {
    let mut command = super::command().disable_help_subcommand(true);
    command.build();
    if let Some(folder) = &args.output {
        std::fs::create_dir_all(folder).map_err(router_stats::Error::io(folder))?;
        clap_mangen::generate_to(command, folder).map_err(router_stats::Error::io(folder))?;
        output::line("Written", &folder.display().to_string());
        return Ok(());
    }
    let verb = args.verb.iter().try_fold(&command, named)?;
    let mut page = Vec::new();
    clap_mangen::Man::new(verb.clone()).render(&mut page)?;
    Ok(output::data(&String::from_utf8(page)?)?)
}

/// The verb called `name` under `command`.
fn named<'a>(command: &'a Command, name: &String) -> Result<&'a Command> {
    command.find_subcommand(name).ok_or_else(|| {
        let known = command.get_subcommands().filter(|verb| !verb.is_hide_set());
        let known: Vec<&str> = known.map(Command::get_name).collect();
        Error::Option {
            option: "VERB",
            expected: match known.is_empty() {
                true => format!("nothing after `{}`", command.get_name()),
                false => format!("one of {}", known.join(", ")),
            },
            found: format!("`{name}`"),
        }
    })
}
