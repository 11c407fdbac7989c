//! `plain`, which is not in the help: a model behind mistral.rs's own router,
//! for `scripts/load_test.py`.

use std::sync::Arc;

use router_stats::progress::Silent;

use super::args::ModelArgs;
use super::job::unmeasured;
use super::{interrupt, output, Global};
use crate::engine::EngineOptions;
use crate::pipeline::Change;
use crate::server::{listen, Plain};

/// Arguments of `plain`.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    model: ModelArgs,

    /// Port to listen on
    #[arg(long)]
    port: u16,

    /// Requests answered at the same time
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    max_seqs: u32,
}

/// Runs `plain`.
pub(super) fn execute(args: &Args, global: &Global) -> anyhow::Result<()> {
    let listener = listen("127.0.0.1", args.port)?;
    let address = listener.local_addr()?;
    let job = unmeasured(
        args.model.source(),
        Change::Nothing,
        args.model.device()?,
        global.cache()?,
        Arc::new(Silent),
    );
    let options = EngineOptions {
        max_seqs: args.max_seqs as usize,
        ..EngineOptions::default()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let server = Plain::load(job, &options).await?;
        output::line("Plain", &format!("http://{address}"));
        server.run(listener, interrupt::wait()).await
    })?;
    Ok(())
}
