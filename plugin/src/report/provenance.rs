//! Where the numbers come from.

use prune_eval::page::{Part, Section};
use prune_eval::{Report, Sweep};
use router_stats::stats::Stats;

use super::commands::commands;
use super::{Inputs, Source};
use crate::format;
use crate::plan::Plan;

/// What every file says of its making, then the commands.
pub(super) fn section(inputs: &Inputs) -> Section {
    let mut pairs = Vec::new();
    if let Ok((name, fingerprint)) = inputs.model() {
        pairs.push(pair("model", format!("{name}, fingerprint {fingerprint}")));
    }
    if let Some(source) = &inputs.stats {
        pairs.push(pair("statistics", statistics(source)));
    }
    if let Some(source) = &inputs.plan {
        pairs.push(pair("plan", plan(source, inputs.stats())));
    }
    if let Some(source) = &inputs.eval {
        pairs.push(pair("evaluation", evaluation(source)));
    }
    for source in &inputs.sweeps {
        pairs.push(pair("sweep", sweep(source)));
    }
    if let Some(source) = inputs.sweeps.first() {
        let settings = source.content.header.settings.iter();
        let settings = settings.filter(|(_, value)| !value.is_empty());
        pairs.extend(settings.map(|(name, value)| pair(&format!("sweep: {name}"), value.clone())));
    }
    Section {
        title: "Provenance and commands".to_owned(),
        text: vec![
            "The commands are put together from what the files record. Files of text are recorded by their hash alone: where others than the bundled ones were used, name them with --calibration and --text."
                .to_owned(),
        ],
        parts: vec![Part::Pairs(pairs), Part::Lines(commands(inputs))],
    }
}

fn pair(name: &str, value: String) -> (String, String) {
    (name.to_owned(), value)
}

fn statistics(source: &Source<Stats>) -> String {
    let made = &source.content.provenance;
    let domains: Vec<String> = made
        .domains
        .iter()
        .map(|domain| format!("{} {}", domain.name, format::count(domain.tokens)))
        .collect();
    format!(
        "{}, by {}: tokens of {}; text {}; sequences of {} tokens, seed {}; hash {}",
        source.path.display(),
        made.created_by,
        domains.join(", "),
        made.corpus,
        made.seq_len,
        made.seed,
        source.content.hash()
    )
}

fn plan(source: &Source<Plan>, stats: Option<&Stats>) -> String {
    let plan = &source.content;
    let from = match stats {
        Some(stats) if stats.hash() == plan.stats.hash => "the statistics above".to_owned(),
        Some(_) => format!("other statistics than those above, {}", plan.stats.hash),
        None => format!("statistics {}", plan.stats.hash),
    };
    format!(
        "{}, by {}: {}, {}, {}, seed {}; from {from}",
        source.path.display(),
        plan.created_by,
        plan.method.criterion,
        plan.method.allocation(),
        plan.method.layer_criterion,
        plan.method.seed
    )
}

fn evaluation(source: &Source<Report>) -> String {
    let made = &source.content.provenance;
    format!(
        "{}, by {}: text {}; sequences of {} tokens; {} resamples, seed {}",
        source.path.display(),
        made.created_by,
        made.corpus,
        made.seq_len,
        format::count(made.bootstrap.resamples as u64),
        made.bootstrap.seed
    )
}

fn sweep(source: &Source<Sweep>) -> String {
    let made = &source.content.header.base.provenance;
    format!(
        "{}, by {}: {} points; text {}",
        source.path.display(),
        made.created_by,
        format::count(source.content.lines.len() as u64),
        made.corpus
    )
}
