//! The `mistralrs-prune` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    mistralrs_prune::cli::main()
}
