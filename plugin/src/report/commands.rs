//! The commands that lead to the files of a report, put together from what the
//! files record.

use prune_eval::sweep::axis;
use prune_eval::{Report, Sweep};
use router_stats::stats::Stats;

use super::cost::subject;
use super::{Inputs, Source};
use crate::plan::Plan;
use crate::{demo, search};

/// One per file, in the order in which they are made.
pub(super) fn commands(inputs: &Inputs) -> Vec<String> {
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
    for source in &inputs.sweeps {
        commands.push(vary(source, &model));
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
    if let Some(fit) = &asked.fit {
        words.extend(flag("--max-seqs", fit.traffic.sequences));
        words.extend(flag("--max-seq-len", fit.traffic.tokens));
    }
    if asked.experts.is_some() {
        words.extend(flag("--criterion", &method.criterion));
        words.extend(flag("--allocation", &method.allocator));
        if let Some(search) = &method.search {
            words.extend(flag("--search", &search.name));
            words.extend(flag("--search-tokens", search.tokens));
        }
    }
    // Budgets of layers that --fit led to are not asked for.
    if asked.fit.is_none() && asked.drops().next().is_some() {
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

/// Every value that a coordinate takes.
fn vary(source: &Source<Sweep>, model: &[String]) -> String {
    let sweep = &source.content;
    let mut words = vec!["eval".to_owned(), "sweep".to_owned()];
    words.extend_from_slice(model);
    for (axis, name, absent) in [
        (axis::CRITERION, "--criterion", None),
        (axis::ALLOCATION, "--allocation", None),
        (axis::PRUNE_EXPERTS, "--prune-experts", Some("0")),
        (axis::DROP_LAYERS, "--drop-layers", Some("0")),
        (axis::LAYER_CRITERION, "--layer-criterion", None),
        (axis::QUANTIZE, "--quantize", Some("none")),
        (axis::CALIBRATE_ON, "--calibrate-on", None),
        (axis::SEED, "--seeds", None),
    ] {
        let mut values: Vec<String> = Vec::new();
        for line in &sweep.lines {
            let value = line.point.get(axis).map(ToString::to_string);
            let value = value.or(absent.map(str::to_owned));
            if let Some(value) = value.filter(|value| !values.contains(value)) {
                values.push(value);
            }
        }
        let counted: Vec<String> = (0..values.len()).map(|seed| seed.to_string()).collect();
        if axis == axis::SEED && values == counted {
            values = vec![values.len().to_string()];
        }
        if axis == axis::ALLOCATION {
            // Searches are splits beside those of the allocators.
            let is_search = |name: &String| search::search(name).is_ok();
            let (searches, allocators): (Vec<String>, Vec<String>) =
                values.into_iter().partition(is_search);
            values = allocators;
            if !searches.is_empty() {
                words.extend(flag("--search", searches.join(",")));
            }
        }
        // Where every point has the value that none is needed for, it is left out.
        let is_default = values.iter().all(|value| Some(value.as_str()) == absent);
        if !is_default {
            words.extend(flag(name, values.join(",")));
        }
    }
    let settings = &sweep.header.settings;
    for (setting, name) in [
        ("calibration tokens", "--calibration-tokens"),
        ("sequence length", "--seq-len"),
        ("resamples", "--resamples"),
        ("confidence", "--confidence"),
    ] {
        if let Some(value) = settings.get(setting) {
            words.extend(flag(name, value));
        }
    }
    let domains = sweep.header.base.domains();
    let tokens: u64 = domains.map(|domain| domain.tokens + domain.sequences).sum();
    words.extend(flag("--eval-tokens", tokens));
    words.extend(flag("-o", source.path.display()));
    command(&words)
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
