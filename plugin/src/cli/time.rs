//! `time`, which is not in the help: one round of `eval --speed`, in a process
//! of its own so that its memory is the model's alone.

use std::path::PathBuf;

use prune_eval::speed::Round;
use router_stats::calibration::PackOptions;
use router_stats::progress::Silent;

use super::args::ModelArgs;
use super::job::unmeasured;
use super::{output, Global};
use crate::engine::{self, EngineOptions};
use crate::memory::Resident;
use crate::pipeline::{self, Change};
use crate::Error;

/// Arguments of `time`.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    model: ModelArgs,

    /// Plan to carry out
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,

    /// Tokens of a prompt
    #[arg(long, value_name = "N")]
    prompt_tokens: usize,

    /// Tokens to generate
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    generated_tokens: u32,

    /// Timed requests
    #[arg(long, value_name = "N")]
    requests: usize,
}

/// Runs `time`: prints a [`Round`] as JSON.
pub(super) fn execute(args: &Args, global: &Global) -> anyhow::Result<()> {
    let cache = global.cache()?;
    let device = args.model.device()?;
    let prompts = {
        let model = args.model.source().open(&device, &cache, &Silent)?;
        let corpus = pipeline::bundled_held_out(&model, &cache, &Silent)?;
        // Domains end in shorter sequences.
        let pack = PackOptions {
            seq_len: args.prompt_tokens,
            tokens: args.prompt_tokens * 4 * (args.requests + 1),
            seed: 0,
        };
        let sequences = pipeline::sequences(&corpus, &model, &pack)?;
        let whole = (0..sequences.len()).map(|index| sequences.sequence(index).to_vec());
        let whole = whole.filter(|tokens| tokens.len() == args.prompt_tokens);
        whole.take(args.requests + 1).collect::<Vec<_>>()
    };
    if prompts.len() <= args.requests {
        return Err(too_long(args).into());
    }
    let job = unmeasured(
        args.model.source(),
        args.plan.clone().map_or(Change::Nothing, Change::Plan),
        device,
        cache,
        std::sync::Arc::new(Silent),
    );
    let options = EngineOptions::default();
    let round = Round {
        timings: engine::time(job, &options, &prompts, args.generated_tokens)?,
        peak_resident: Resident::now().map(|resident| resident.peak),
    };
    Ok(output::json(&round)?)
}

fn too_long(args: &Args) -> Error {
    Error::Option {
        option: "--speed-prompt",
        expected: "at most as many tokens as the bundled texts have".to_owned(),
        found: args.prompt_tokens.to_string(),
    }
}
