//! Where the numbers come from, and the commands that lead to them.

use prune_eval::page::{Part, Section};
use prune_eval::{Report, Sweep};
use router_stats::stats::Stats;

use super::cost::subject;
use super::{Inputs, Source};
use crate::demo;
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
    if let Some(source) = &inputs.sweep {
        pairs.push(pair("sweep", sweep(source)));
        let settings = source.content.header.settings.iter();
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
        plan.method.allocator,
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

/// One per file, in the order in which they are made.
fn commands(inputs: &Inputs) -> Vec<String> {
    let model = match inputs.model() {
        Ok((name, _)) if name != demo::NAME => vec!["-m".to_owned(), name.to_owned()],
        _ => Vec::new(),
    };
    let mut commands = Vec::new();
    if let Some(source) = &inputs.stats {
        commands.push(calibrate(source, &model));
    }
    if let Some(source) = &inputs.plan {
        let stats = inputs.stats.as_ref();
        commands.push(decide(source, stats, &model));
    }
    if let Some(source) = &inputs.eval {
        commands.push(evaluate(source, inputs, &model));
    }
    commands.push(inputs.command.clone());
    commands
}

fn calibrate(source: &Source<Stats>, model: &[String]) -> String {
    let made = &source.content.provenance;
    let tokens: u64 = made.domains.iter().map(|domain| domain.tokens).sum();
    let mut words = vec!["calibrate".to_owned()];
    words.extend_from_slice(model);
    words.extend(flag("--calibration-tokens", tokens));
    words.extend(flag("--seq-len", made.seq_len));
    words.extend(flag("--batch-tokens", made.batch_tokens));
    words.extend(flag("--seed", made.seed));
    words.extend(flag("-o", source.path.display()));
    command(&words)
}

fn decide(source: &Source<Plan>, stats: Option<&Source<Stats>>, model: &[String]) -> String {
    let plan = &source.content;
    let (method, asked) = (&plan.method, &plan.method.asked);
    let stats_path = stats.map_or_else(|| "STATS".to_owned(), |s| s.path.display().to_string());
    let mut words = vec!["plan".to_owned(), stats_path];
    words.extend_from_slice(model);
    for flag in asked.flags() {
        words.extend(flag.split(' ').map(str::to_owned));
    }
    if asked.experts.is_some() {
        words.extend(flag("--criterion", &method.criterion));
        words.extend(flag("--allocation", &method.allocator));
    }
    if asked.layers.is_some() {
        words.extend(flag("--layer-criterion", &method.layer_criterion));
    }
    let constraints = &method.constraints;
    if constraints.super_experts.is_none() && plan.version > 1 {
        words.push("--prune-super-experts".to_owned());
    }
    for id in &constraints.protected {
        words.extend(flag("--protect", id));
    }
    if constraints.balanced_domains {
        words.push("--balance-domains".to_owned());
    } else {
        let given = stats.map_or_else(Vec::new, |stats| stats.content.weights());
        for (domain, given) in plan.stats.domains.iter().zip(given) {
            if domain.weight != given {
                let weight = format!("{}={}", domain.name, domain.weight);
                words.extend(flag("--domain-weight", weight));
            }
        }
    }
    words.extend(flag("--seed", method.seed));
    words.extend(flag("-o", source.path.display()));
    command(&words)
}

fn evaluate(source: &Source<Report>, inputs: &Inputs, model: &[String]) -> String {
    let report = &source.content;
    let made = &report.provenance;
    let tokens: u64 = report
        .domains()
        .map(|domain| domain.tokens + domain.sequences)
        .sum();
    let subject = subject(inputs, report).map(|(index, _)| index);
    let mut words = vec!["eval".to_owned()];
    words.extend_from_slice(model);
    if let (Some(plan), Some(_)) = (&inputs.plan, subject) {
        words.extend(flag("--plan", plan.path.display()));
    }
    words.extend(flag("--eval-tokens", tokens));
    words.extend(flag("--seq-len", made.seq_len));
    words.extend(flag("--resamples", made.bootstrap.resamples));
    words.extend(flag("--confidence", made.bootstrap.confidence));
    words.extend(flag("--seed", made.bootstrap.seed));
    words.extend(flag("-o", source.path.display()));
    let mut line = command(&words);
    let others: Vec<&str> = report
        .variants
        .iter()
        .enumerate()
        .filter(|(index, _)| Some(*index) != subject)
        .map(|(_, variant)| variant.name.as_str())
        .collect();
    if !others.is_empty() {
        line.push_str(&format!("   # and the flags of: {}", others.join("; ")));
    }
    line
}

fn flag(name: &str, value: impl ToString) -> [String; 2] {
    [name.to_owned(), value.to_string()]
}

/// Words as a line for a shell.
pub(crate) fn command(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    format!("mistralrs-prune {}", words.join(" "))
}

/// A word as a POSIX shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_back_what_was_meant() {
        for (word, expected) in [
            ("half.plan.json", "half.plan.json"),
            ("", "''"),
            ("my plan", "'my plan'"),
            ("it's", "'it'\\''s'"),
            ("$(rm x)", "'$(rm x)'"),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }
}
