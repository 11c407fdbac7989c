//! `completions`: what a shell needs to complete the command line.

use clap_complete::Shell;

use super::output;

/// Arguments of `completions`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Shell that is to complete
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

/// Runs `completions`.
pub(super) fn execute(args: &Args) -> anyhow::Result<()> {
    let mut command = super::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    Ok(output::data(&String::from_utf8(script)?)?)
}
