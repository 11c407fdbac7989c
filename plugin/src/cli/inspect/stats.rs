//! Statistics as a table or JSON.

use std::path::Path;

use router_stats::stats::Stats;
use serde::Serialize;
use serde_json::json;

use super::short;
use crate::cli::output;
use crate::cli::table::Table;
use crate::format;

/// What the routers of one layer did.
#[derive(Serialize)]
struct LayerRow {
    layer: usize,
    experts: usize,
    tokens: f64,
    /// Experts that no token was routed to.
    never_routed: usize,
    /// Share of the routed tokens of the least and the most frequent expert.
    least: f64,
    most: f64,
    /// 1 − mean cosine around the block, its attention and its MLP.
    block_influence: [f64; 3],
}

/// Prints the statistics in a file.
pub(super) fn show(path: &Path, as_json: bool) -> anyhow::Result<()> {
    let stats = Stats::read(path)?;
    let made = &stats.provenance;
    let weights = stats.weights();
    let influence = stats.block_influence(&weights)?;
    let layers = influence
        .into_iter()
        .enumerate()
        .map(|(layer, block_influence)| {
            let seen = stats.layer(layer, &weights)?;
            let routed: f64 = seen.count.iter().sum();
            let share = |count: f64| if routed > 0.0 { count / routed } else { 0.0 };
            Ok(LayerRow {
                layer,
                experts: seen.experts,
                tokens: seen.tokens,
                never_routed: seen.count.iter().filter(|&&count| count == 0.0).count(),
                least: share(seen.count.iter().copied().reduce(f64::min).unwrap_or(0.0)),
                most: share(seen.count.iter().copied().reduce(f64::max).unwrap_or(0.0)),
                block_influence,
            })
        })
        .collect::<router_stats::Result<Vec<LayerRow>>>()?;
    if as_json {
        return Ok(output::json(&json!({
            "kind": "stats",
            "hash": stats.hash(),
            "provenance": made,
            "tables": stats.tables.keys().collect::<Vec<_>>(),
            "layers": layers,
        }))?);
    }
    let mut facts = Table::facts();
    facts
        .row([
            "statistics of",
            &format!(
                "{} ({}, {})",
                made.model,
                made.family,
                short(&made.fingerprint)
            ),
        ])
        .row(["made by", &made.created_by])
        .row(["hash", short(&stats.hash())])
        .row([
            "sequences of",
            &format!("{} tokens, seed {}", made.seq_len, made.seed),
        ])
        .row(["experts per token", &made.top_k.to_string()]);
    if made.shards != [[0, 1]] {
        let parts: Vec<String> = made
            .shards
            .iter()
            .map(|[part, of]| format!("{}/{of}", part + 1))
            .collect();
        facts.row(["parts", &parts.join(" ")]);
    }
    let mut domains = Table::new(&["domain", "weight", "tokens", "sequences", "documents"]);
    for domain in &made.domains {
        domains.row([
            domain.name.clone(),
            domain.weight.to_string(),
            format::count(domain.tokens),
            format::count(domain.sequences),
            format::count(domain.documents),
        ]);
    }
    let mut table = Table::new(&[
        "layer",
        "experts",
        "never",
        "least",
        "most",
        "block",
        "attention",
        "mlp",
    ]);
    for row in &layers {
        let [block, attention, mlp] = row.block_influence.map(|x| format!("{x:.4}"));
        let percent = |share: f64| format!("{:.2}%", share * 100.0);
        table.row([
            row.layer.to_string(),
            row.experts.to_string(),
            row.never_routed.to_string(),
            percent(row.least),
            percent(row.most),
            block,
            attention,
            mlp,
        ]);
    }
    let legend =
        "  never: experts that no token was routed to; least, most: share of routed tokens;\n  \
                  block, attention, mlp: influence, 1 − mean cosine of the stream before and after";
    Ok(output::data(&format!(
        "{facts}\n\n{domains}\n\n{table}\n\n{legend}"
    ))?)
}
