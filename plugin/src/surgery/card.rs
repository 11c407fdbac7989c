//! What a pruned checkpoint's model card says about its pruning.
//!
//! Everything comes from the plan, except the measured loss. Paths of the
//! machine that pruned are not written. Does not own the rest of the card
//! (see [`super::companion`]).

mod loss;

use std::collections::BTreeSet;
use std::fmt::Write;

use prune_eval::Report;
use router_stats::family::Skip;

use self::loss::Loss;
use super::{Layout, UqffWeights, PLAN_FILE};
use crate::format::count;
use crate::plan::{LayerPlan, Plan, Size};

/// What a model card says beyond the plan.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CardFacts {
    /// How others get the original model: a hub id. The name of the model's
    /// directory if `None`.
    pub source: Option<String>,
    /// What pruning cost on held-out text, if it was measured: the first
    /// variant of this report.
    pub report: Option<Report>,
    /// Multi-token-prediction blocks of the original, which are not carried
    /// over.
    pub prediction_layers: usize,
}

/// The section, in Markdown, that a model card gains.
pub(super) fn section(plan: &Plan, layout: Layout, facts: &CardFacts) -> String {
    let source = facts.source.as_deref().unwrap_or(&plan.model.name);
    let loss = facts.report.as_ref().and_then(Loss::of);
    [
        format!(
            "## Pruned with mistralrs-prune\n\n{}",
            summary(plan, source, layout, facts.prediction_layers)
        ),
        sizes(&plan.before, &plan.after),
        method(plan, layout),
        loss.as_ref().map_or_else(unmeasured, measured),
        reproduce(source, layout),
        removed(plan),
    ]
    .join("\n\n")
        + "\n"
}

fn summary(plan: &Plan, source: &str, layout: Layout, prediction_layers: usize) -> String {
    let dropped: Vec<_> = plan
        .layers
        .iter()
        .filter(|layer| layer.dropped)
        .map(|layer| layer.layer)
        .collect();
    let left = || plan.layers.iter().filter(|layer| layer.keeps_mlp());
    let experts: usize = left().map(|layer| layer.removed.len()).sum();
    let mut parts = Vec::new();
    if experts > 0 {
        let all: usize = left().map(|layer| layer.scores.len()).sum();
        let layers = if plan.layers.iter().all(LayerPlan::keeps_mlp) {
            ""
        } else {
            " of the other layers"
        };
        parts.push(format!(
            "{} of the {} experts{layers}",
            count(experts as u64),
            count(all as u64)
        ));
    }
    if !dropped.is_empty() {
        let noun = if dropped.len() == 1 {
            "layer"
        } else {
            "layers"
        };
        parts.insert(
            0,
            format!("{noun} {} of {}", list(&dropped), plan.layers.len()),
        );
    }
    let skipped = |what: &str, goes: fn(Skip) -> bool| {
        let layers = plan.layers.iter().filter(|layer| goes(layer.skipped));
        let layers: Vec<_> = layers.map(|layer| layer.layer).collect();
        let noun = if layers.len() == 1 { "layer" } else { "layers" };
        (!layers.is_empty()).then(|| format!("{what} of {noun} {}", list(&layers)))
    };
    parts.extend(skipped("the attention", |skip| skip.attention));
    parts.extend(skipped("all experts or the MLP", |skip| skip.mlp));
    let what = if parts.is_empty() {
        "with nothing removed".to_owned()
    } else {
        format!("without {}", joined(&parts))
    };
    let left = match layout {
        Layout::Uqff(uqff) if uqff.weights != UqffWeights::Float => format!(
            "What is left was quantised to {}; sizes and loss below are those before that",
            uqff.weights.name()
        ),
        Layout::Uqff(uqff) => format!(
            "What is left is stored in {}, whatever the sizes below say",
            uqff.computes_in()
        ),
        Layout::Gguf(weights) if weights != UqffWeights::Float => format!(
            "What is left was quantised to {}; sizes and loss below are those before that",
            weights.name()
        ),
        Layout::Hf | Layout::Engine | Layout::Gguf(_) => {
            "What is left has the weights it had".to_owned()
        }
    };
    let mut text = format!(
        "This is `{}` {what}. {left}: nothing was retrained.",
        inline(source)
    );
    if prediction_layers > 0 {
        text.push_str(" Its multi-token-prediction blocks were not carried over.");
    }
    text
}

fn sizes(before: &Size, after: &Size) -> String {
    let row = |what: &str, of: &dyn Fn(&Size) -> String| {
        format!("\n| {what} | {} | {} |", of(before), of(after))
    };
    "| | before | after |\n|---|---:|---:|".to_owned()
        + &row("parameters", &|size| count(size.parameters))
        + &row("active per token", &|size| count(size.active_parameters))
        + &row("weights in bytes", &|size| count(size.bytes))
        + &row("layers", &|size| size.layers.to_string())
        + &row("experts per MoE layer", &|size| {
            let counts: BTreeSet<_> = size
                .experts_per_layer
                .iter()
                .copied()
                .filter(|&n| n > 0)
                .collect();
            list(&counts.into_iter().collect::<Vec<_>>())
        })
}

fn method(plan: &Plan, layout: Layout) -> String {
    let method = &plan.method;
    let mut text = String::from("### How\n");
    let mut item = |what: &str, how: String| {
        // Writing to a string does not fail.
        let _ = write!(text, "\n- {what}: {how}");
    };
    let asked: Vec<_> = method
        .asked
        .flags()
        .iter()
        .map(|flag| format!("`{flag}`"))
        .collect();
    if !asked.is_empty() {
        item("Asked for", asked.join(", "));
    }
    item(
        "Experts",
        format!(
            "criterion `{}`, allocation `{}`, seed {}",
            method.criterion,
            method.allocation(),
            method.seed
        ),
    );
    if method.asked.drops().next().is_some() {
        item("Layers", format!("criterion `{}`", method.layer_criterion));
    }
    let constraints = &method.constraints;
    let protected = constraints.super_experts.iter().flatten();
    let protected: Vec<String> = protected
        .chain(&constraints.protected)
        .map(|id| format!("`{id}`"))
        .collect();
    if !protected.is_empty() {
        item("Protected, as layer:expert", protected.join(", "));
    }
    let domains: Vec<_> = plan
        .stats
        .domains
        .iter()
        .map(|domain| {
            format!(
                "{} ({} tokens, weight {})",
                cell(&domain.name),
                count(domain.tokens),
                domain.weight
            )
        })
        .collect();
    item(
        "Calibration",
        format!(
            "{} tokens: {}",
            count(plan.stats.tokens),
            domains.join(", ")
        ),
    );
    item(
        "Experts are stored",
        match layout {
            Layout::Hf => {
                "as one matrix per expert and projection, for transformers, vLLM and llama.cpp"
                    .to_owned()
            }
            Layout::Engine => {
                "as mistral.rs loads them; `--layout hf` writes what transformers loads".to_owned()
            }
            Layout::Gguf(_) => format!(
                "as GGUF, which llama.cpp loads with `llama-cli -m {}`",
                inline(&super::gguf::file_name(&plan.model.name))
            ),
            Layout::Uqff(uqff) => format!(
                "as UQFF, which mistral.rs loads with `--from-uqff {}`; layers may keep different \
                 numbers of them",
                uqff.first_file()
            ),
        },
    );
    item("Written by", plan.created_by.clone());
    text
}

fn measured(loss: &Loss) -> String {
    let mut text = format!(
        "### Measured loss\n\nPerplexity on {} held-out tokens.\n\n\
         | text | before | after | change | {}% interval |\n|---|---:|---:|---:|---:|",
        count(loss.tokens),
        loss.confidence * 100.0,
    );
    for row in &loss.rows {
        let interval = row.interval.map_or_else(
            || "–".to_owned(),
            |(low, high)| format!("[{:+.1}, {:+.1}]", low * 100.0, high * 100.0),
        );
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "\n| {} | {:.3} | {:.3} | {:+.1}% | {interval} |",
            cell(&row.domain),
            row.before,
            row.after,
            row.change * 100.0,
        );
    }
    text
}

fn unmeasured() -> String {
    format!(
        "### Measured loss\n\nNot measured. `mistralrs-prune eval` with `--plan {PLAN_FILE}` compares it \
         with the original on text of your own."
    )
}

fn reproduce(source: &str, layout: Layout) -> String {
    let source = inline(source);
    let source = if source
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c))
    {
        source
    } else {
        format!("'{}'", source.replace('\'', r"'\''"))
    };
    let options = match layout {
        Layout::Uqff(uqff) => format!(
            " --uqff-weights {} --uqff-device {}",
            uqff.weights.name(),
            uqff.device.name()
        ),
        Layout::Gguf(weights) if weights != UqffWeights::Float => {
            format!(" --gguf-weights {}", weights.name())
        }
        Layout::Hf | Layout::Engine | Layout::Gguf(_) => String::new(),
    };
    format!(
        "### Reproduce\n\nThe plan is in this directory.\n\n```sh\n\
         mistralrs-prune prune -m {source} --plan {PLAN_FILE} --layout {layout}{options} -o PRUNED\n```"
    )
}

fn removed(plan: &Plan) -> String {
    let mut text = String::from(
        "<details>\n<summary>What was removed, by original index</summary>\n\n\
         | layer | experts kept | removed | removed experts |\n|---:|---:|---:|---|",
    );
    for layer in &plan.layers {
        let experts = layer.scores.len();
        let (kept, removed, mut which) = match experts {
            _ if layer.dropped => (0, experts, "the whole layer".to_owned()),
            _ if layer.skipped.mlp => (0, experts, "all, with the router".to_owned()),
            0 => (0, 0, "dense".to_owned()),
            _ => (layer.kept.len(), layer.removed.len(), list(&layer.removed)),
        };
        if layer.skipped.attention {
            which.push_str(" (and the attention)");
        }
        // Writing to a string does not fail.
        let _ = write!(text, "\n| {} | {kept} | {removed} | {which} |", layer.layer);
    }
    text + "\n\n</details>"
}

/// `a, b and c`
fn joined(parts: &[String]) -> String {
    match parts.split_last() {
        Some((last, first)) if !first.is_empty() => format!("{} and {last}", first.join(", ")),
        _ => parts.concat(),
    }
}

/// `1, 2, 3`
fn list(indices: &[usize]) -> String {
    indices
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

/// A name inside a table or list.
fn cell(text: &str) -> String {
    inline(text).replace('|', r"\|")
}

/// A name on one line, without what would end a code span.
fn inline(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() || c == '`' { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests;
