//! A plan as a table.

use router_stats::family::Skip;

use super::{experts, short};
use crate::cli::table::Table;
use crate::format;
use crate::plan::{DomainShare, ExpertId, Plan, Size};

/// A plan as a person reads it.
pub(in crate::cli) fn plan_table(plan: &Plan) -> String {
    let method = &plan.method;
    let domains: Vec<String> = plan.stats.domains.iter().map(weighed).collect();
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
        .row(["asked for", &asked(plan)])
        .row([
            "by",
            &format!(
                "{}, {}, {}, seed {}",
                method.criterion,
                method.allocation(),
                method.layer_criterion,
                method.seed
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
    memory_rows(&mut facts, plan);
    if let Some(search) = &method.search {
        facts.row([
            "searched",
            &format!(
                "overlap {:.4} ({}) to {:.4} on {} calibration tokens, {} candidates",
                search.before.overlap,
                method.allocator,
                search.after.overlap,
                format::count(search.tokens),
                format::count(search.candidates)
            ),
        ]);
    }
    let gone = sublayers(plan);
    if !gone.is_empty() {
        facts.row(["sublayers", &gone.join("; ")]);
    }
    constraint_rows(&mut facts, plan);

    let mut layers = Table::new(&[
        "layer",
        "influence",
        "kept",
        "removed",
        "weakest kept",
        "strongest removed",
    ]);
    for layer in &plan.layers {
        if let (Some(fate), false) = (layer.fate(), layer.keeps_mlp()) {
            layers.row([
                layer.layer.to_string(),
                format!("{:.4}", layer.block_influence),
                fate.to_owned(),
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
            match layer.fate() {
                Some(fate) => format!("{} ({fate})", layer.kept.len()),
                None => layer.kept.len().to_string(),
            },
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

/// Adds how weights are stored, and the memory that it was made to fit.
fn memory_rows(facts: &mut Table, plan: &Plan) {
    if let Some(weights) = plan.weights {
        facts.row(["weights as", weights.name()]);
    }
    if let Some(fit) = plan.method.asked.fit {
        facts.row([
            "memory",
            &format!(
                "{} of {}, with {} requests of {} tokens at a time",
                format::bytes(fit.predicted),
                format::bytes(fit.bytes),
                fit.traffic.sequences,
                format::count(fit.traffic.tokens as u64)
            ),
        ]);
    }
}

/// What goes of layers that stay: `without attention 3 5`, `without experts 7`.
fn sublayers(plan: &Plan) -> Vec<String> {
    let of = |what: &str, goes: fn(Skip) -> bool| {
        let layers = plan.layers.iter().filter(|layer| goes(layer.skipped));
        let layers: Vec<String> = layers.map(|layer| layer.layer.to_string()).collect();
        (!layers.is_empty()).then(|| format!("without {what} {}", layers.join(" ")))
    };
    let attention = of("attention", |skip| skip.attention);
    let mlp = of("experts or MLP", |skip| skip.mlp);
    attention.into_iter().chain(mlp).collect()
}

/// Adds what stays whatever its score, and what that leaves of each domain.
fn constraint_rows(facts: &mut Table, plan: &Plan) {
    let constraints = &plan.method.constraints;
    match &constraints.super_experts {
        Some(found) if found.is_empty() => facts.row(["super experts", "none"]),
        Some(found) => facts.row(["super experts", &format!("{}, protected", ids(found))]),
        None => facts.row(["super experts", "not protected"]),
    };
    if !constraints.protected.is_empty() {
        facts.row(["protected", &ids(&constraints.protected)]);
    }
    let covered: Vec<(f64, &str)> = plan
        .stats
        .domains
        .iter()
        .filter_map(|domain| Some((domain.coverage?, domain.name.as_str())))
        .collect();
    if covered.iter().any(|&(share, _)| share < 1.0) {
        let shares: Vec<String> = covered
            .iter()
            .map(|(share, name)| format!("{name} {:.1}%", share * 100.0))
            .collect();
        let how = if constraints.balanced_domains {
            " (domains balanced)"
        } else {
            ""
        };
        facts.row(["output kept", &format!("{}{how}", shares.join(", "))]);
    }
}

/// The flags that asked for the plan's size.
pub(in crate::cli) fn asked(plan: &Plan) -> String {
    plan.method.asked.flags().join(" ")
}

/// `0:5 7:11`, or `none`.
pub(in crate::cli) fn ids(ids: &[ExpertId]) -> String {
    if ids.is_empty() {
        return "none".to_owned();
    }
    let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
    ids.join(" ")
}

/// `python`, or `python × 3` if it weighs more than its tokens.
pub(in crate::cli) fn weighed(domain: &DomainShare) -> String {
    if domain.weight == 1.0 {
        domain.name.clone()
    } else {
        format!("{} × {}", domain.name, domain.weight)
    }
}

/// Sizes before and after, with more rows below.
pub(in crate::cli) fn sizes(before: &Size, after: &Size, more: &[[String; 4]]) -> String {
    compared(["before", "after"], before, after, more)
}

/// Two sizes under these headings, with more rows below.
pub(in crate::cli) fn compared(
    [first, second]: [&str; 2],
    before: &Size,
    after: &Size,
    more: &[[String; 4]],
) -> String {
    let mut table = Table::new(&["", first, second, ""]).words(3);
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
pub(in crate::cli) fn percent(before: u64, after: u64) -> String {
    match after as f64 / before.max(1) as f64 - 1.0 {
        0.0 => String::new(),
        change => format::change(change),
    }
}
