//! A plan as a table.

use super::{experts, short};
use crate::cli::table::Table;
use crate::format;
use crate::plan::{Plan, Size};

/// A plan as a person reads it.
pub(in crate::cli) fn plan_table(plan: &Plan) -> String {
    let method = &plan.method;
    let asked: Vec<String> = [
        method.asked.experts.map(|budget| budget.to_string()),
        method.asked.layers.map(|budget| budget.to_string()),
    ]
    .into_iter()
    .flatten()
    .collect();
    let domains: Vec<&str> = plan
        .stats
        .domains
        .iter()
        .map(|domain| domain.name.as_str())
        .collect();
    let mut facts = Table::facts();
    facts
        .row([
            "plan for",
            &format!(
                "{} ({}, {})",
                plan.model.name,
                plan.model.family,
                short(&plan.model.fingerprint)
            ),
        ])
        .row(["asked for", &asked.join(" ")])
        .row([
            "by",
            &format!(
                "{}, {}, {}, seed {}",
                method.criterion, method.allocator, method.layer_criterion, method.seed
            ),
        ])
        .row([
            "from",
            &format!(
                "{} tokens: {}",
                format::count(plan.stats.tokens),
                domains.join(", ")
            ),
        ]);

    let mut layers = Table::new(&[
        "layer",
        "influence",
        "kept",
        "removed",
        "weakest kept",
        "strongest removed",
    ]);
    for layer in &plan.layers {
        if layer.dropped {
            layers.row([
                layer.layer.to_string(),
                format!("{:.4}", layer.block_influence),
                "dropped".to_owned(),
            ]);
            continue;
        }
        let score = |experts: &[usize], pick: fn(f64, f64) -> f64| {
            let scores = experts
                .iter()
                .filter_map(|&expert| layer.scores.get(expert).copied());
            scores
                .reduce(pick)
                .map_or_else(|| "–".to_owned(), format::score)
        };
        layers.row([
            layer.layer.to_string(),
            format!("{:.4}", layer.block_influence),
            layer.kept.len().to_string(),
            layer.removed.len().to_string(),
            score(&layer.kept, f64::min),
            score(&layer.removed, f64::max),
        ]);
    }
    format!(
        "{facts}\n\n{}\n\n{layers}",
        sizes(&plan.before, &plan.after, &[])
    )
}

/// Sizes before and after, with more rows below.
pub(in crate::cli) fn sizes(before: &Size, after: &Size, more: &[[String; 4]]) -> String {
    let mut table = Table::new(&["", "before", "after", ""]).words(3);
    table
        .row([
            "parameters".to_owned(),
            format::parameters(before.parameters),
            format::parameters(after.parameters),
            percent(before.parameters, after.parameters),
        ])
        .row([
            "active".to_owned(),
            format::parameters(before.active_parameters),
            format::parameters(after.active_parameters),
            percent(before.active_parameters, after.active_parameters),
        ])
        .row([
            "weights".to_owned(),
            format::bytes(before.bytes),
            format::bytes(after.bytes),
            percent(before.bytes, after.bytes),
        ])
        .row([
            "experts per layer".to_owned(),
            experts(before),
            experts(after),
            String::new(),
        ])
        .row([
            "layers".to_owned(),
            before.layers.to_string(),
            after.layers.to_string(),
            String::new(),
        ]);
    for row in more {
        table.row(row.clone());
    }
    table.to_string()
}

/// `−47.5%`.
fn percent(before: u64, after: u64) -> String {
    let change = (after as f64 / before.max(1) as f64 - 1.0) * 100.0;
    if change == 0.0 {
        String::new()
    } else {
        format!("{change:+.1}%").replace('-', "−")
    }
}
