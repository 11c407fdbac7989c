//! `stats stability`: parts of a text → how much a plan depends on them.

use std::path::PathBuf;

use router_stats::stats::{Parts, Stats};

use crate::cli::args::{any_budget, surroundings, BudgetArgs, ModelArgs};
use crate::cli::table::Table;
use crate::cli::{output, Global};
use crate::format;
use crate::pipeline::{self, Reporter};
use crate::plan;
use crate::stability::{self, ExpertStability, LayerStability, Stability, CHUNKS};

/// Undecided experts that a row names, at most.
const NAMED: usize = 6;

/// Arguments of `stats stability`.
#[derive(clap::Args)]
#[command(group(any_budget("asked").required(true)))]
pub(super) struct Args {
    /// Statistics of parts of a text, such as those of `calibrate --shard`; the
    /// more parts, the better
    #[arg(required = true, num_args = 2.., value_name = "STATS")]
    inputs: Vec<PathBuf>,

    #[command(flatten)]
    model: ModelArgs,

    #[command(flatten)]
    budget: BudgetArgs,

    /// Seed of the draws and of criteria that draw at random
    #[arg(long, default_value_t = 0)]
    seed: u64,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs `stats stability`.
pub(super) fn execute(args: &Args, global: &Global) -> anyhow::Result<()> {
    let options = args.budget.decision(args.seed)?;
    let (cache, console) = surroundings(global)?;
    let model = args.model.open(&cache, &console)?;
    plan::check(&options, model.topology())?;
    let parts = args.inputs.iter().map(Stats::read);
    let parts = parts
        .map(|stats| stats.map(stability::without_unread))
        .collect::<router_stats::Result<Vec<_>>>()?;
    let parts = Parts::new(parts)?;
    let found = pipeline::resampled(&model, &parts, &options, &console)?;
    console.clear();
    if args.json {
        output::json(&found)?;
    } else {
        let domains = &parts.provenance().domains;
        output::data(&text(
            &found,
            domains.iter().map(|domain| domain.tokens).sum(),
        ))?;
    }
    if found.parts < CHUNKS {
        console.hint(&format!(
            "{} parts are few to draw from: calibrate in more with --shard, or --until-stable",
            found.parts
        ));
    }
    if !found.fixed.is_empty() {
        let fixed = found.fixed.join(", ");
        console.hint(&format!("not varied, for lack of text: {fixed}"));
    }
    Ok(())
}

/// What a person reads.
fn text(found: &Stability, tokens: u64) -> String {
    let mut facts = Table::facts();
    facts
        .row([
            "drawn from",
            &format!("{} tokens in {} parts", format::count(tokens), found.parts),
        ])
        .row([
            "Jaccard",
            &format!(
                "{:.3} on average, {:.3} in the worst twentieth of {} draws",
                found.jaccard, found.jaccard_low, found.draws
            ),
        ])
        .row([
            "undecided",
            &format!(
                "{} of {} experts",
                found.undecided,
                format::count(found.experts as u64)
            ),
        ]);
    let mut layers = Table::new(&[
        "layer",
        "kept",
        "Jaccard",
        "weakest kept",
        "strongest removed",
        "undecided",
    ])
    .words(5);
    for layer in &found.layers {
        let at_the_cut = |kept: bool| {
            let mut around = layer.around.iter().filter(|it| it.kept == kept);
            let edge = if kept {
                around.next_back()
            } else {
                around.next()
            };
            edge.map_or_else(|| "–".to_owned(), scored)
        };
        layers.row([
            layer.layer.to_string(),
            kept(layer),
            format!("{:.3}", layer.jaccard),
            at_the_cut(true),
            at_the_cut(false),
            undecided(layer),
        ]);
    }
    let legend = "  scores with the interval of 95% of draws; undecided: experts that stay in 5% to 95% of\n  \
                  the draws, with the share in which they do";
    format!("{facts}\n\n{layers}\n\n{legend}")
}

/// `8`, `dropped`, or with the share of draws that drop the layer.
fn kept(layer: &LayerStability) -> String {
    let kept = match layer.kept {
        0 => "dropped".to_owned(),
        count => count.to_string(),
    };
    match layer.dropped {
        0.0 | 1.0 => kept,
        share => format!("{kept} (dropped in {:.0}%)", share * 100.0),
    }
}

/// `3: 0.5130 (0.4907 to 0.5399)`.
fn scored(it: &ExpertStability) -> String {
    let [low, high] = it.interval.map(format::score);
    format!(
        "{}: {} ({low} to {high})",
        it.expert,
        format::score(it.score)
    )
}

/// `3 62%, 7 41%`, those nearest to even first.
fn undecided(layer: &LayerStability) -> String {
    let undecided = layer.around.iter().filter(|it| it.is_undecided());
    let mut undecided: Vec<&ExpertStability> = undecided.collect();
    undecided.sort_by(|a, b| (a.share - 0.5).abs().total_cmp(&(b.share - 0.5).abs()));
    let more = undecided.len().saturating_sub(NAMED);
    let named = undecided.iter().take(NAMED);
    let mut named: Vec<String> = named
        .map(|it| format!("{} {:.0}%", it.expert, it.share * 100.0))
        .collect();
    if more > 0 {
        named.push(format!("{more} more"));
    }
    named.join(", ")
}
