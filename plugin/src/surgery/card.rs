//! What a pruned checkpoint's model card says about its pruning.
//!
//! Everything comes from the plan, except the measured loss. Paths of the
//! machine that pruned are not written. Does not own the rest of the card
//! (see [`super::companion`]).

use std::collections::BTreeSet;
use std::fmt::Write;

use super::{Layout, PLAN_FILE};
use crate::plan::{Plan, Size};

/// What a model card says beyond the plan.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CardFacts {
    /// How others get the original model: a hub id. The name of the model's
    /// directory if `None`.
    pub source: Option<String>,
    /// What pruning cost on held-out text, if it was measured.
    pub loss: Option<Loss>,
}

/// Perplexity on held-out text before and after pruning.
#[derive(Debug, Clone, PartialEq)]
pub struct Loss {
    /// Tokens it was measured on.
    pub tokens: u64,
    /// Probability that an interval holds its change: 0.95.
    pub confidence: f64,
    /// One row per domain, in the order they are shown.
    pub rows: Vec<DomainLoss>,
}

/// Perplexity of one domain's held-out text before and after pruning.
#[derive(Debug, Clone, PartialEq)]
pub struct DomainLoss {
    /// Name.
    pub domain: String,
    /// Perplexity of the original model.
    pub before: f64,
    /// Perplexity of the pruned model.
    pub after: f64,
    /// Relative change of perplexity: 0.1 is ten per cent more.
    pub change: f64,
    /// Both ends of the interval of `change`; `None` if the text is too short
    /// for one.
    pub interval: Option<(f64, f64)>,
}

/// The section, in Markdown, that a model card gains.
pub(super) fn section(plan: &Plan, layout: Layout, facts: &CardFacts) -> String {
    let source = facts.source.as_deref().unwrap_or(&plan.model.name);
    [
        format!("## Pruned with mistralrs-prune\n\n{}", summary(plan, source)),
        sizes(&plan.before, &plan.after),
        method(plan, layout),
        facts.loss.as_ref().map_or_else(unmeasured, measured),
        reproduce(source, layout),
        removed(plan),
    ]
    .join("\n\n")
        + "\n"
}

fn summary(plan: &Plan, source: &str) -> String {
    let dropped: Vec<_> = plan.layers.iter().filter(|layer| layer.dropped).map(|layer| layer.layer).collect();
    let left = || plan.layers.iter().filter(|layer| !layer.dropped);
    let experts: usize = left().map(|layer| layer.removed.len()).sum();
    let mut parts = Vec::new();
    if experts > 0 {
        let all: usize = left().map(|layer| layer.scores.len()).sum();
        let layers = if dropped.is_empty() { "" } else { " of the other layers" };
        parts.push(format!("{} of the {} experts{layers}", grouped(experts as u64), grouped(all as u64)));
    }
    if !dropped.is_empty() {
        let noun = if dropped.len() == 1 { "layer" } else { "layers" };
        parts.insert(0, format!("{noun} {} of {}", list(&dropped), plan.layers.len()));
    }
    let what = if parts.is_empty() { "with nothing removed".to_owned() } else { format!("without {}", parts.join(" and ")) };
    format!(
        "This is `{}` {what}. What is left has the weights it had: nothing was retrained.",
        inline(source)
    )
}

fn sizes(before: &Size, after: &Size) -> String {
    let row = |what: &str, of: &dyn Fn(&Size) -> String| format!("\n| {what} | {} | {} |", of(before), of(after));
    "| | before | after |\n|---|---:|---:|".to_owned()
        + &row("parameters", &|size| grouped(size.parameters))
        + &row("active per token", &|size| grouped(size.active_parameters))
        + &row("weights in bytes", &|size| grouped(size.bytes))
        + &row("layers", &|size| size.layers.to_string())
        + &row("experts per MoE layer", &|size| {
            let counts: BTreeSet<_> = size.experts_per_layer.iter().copied().filter(|&n| n > 0).collect();
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
    let asked: Vec<_> = [
        method.asked.experts.map(|budget| format!("`{budget}`")),
        method.asked.layers.map(|budget| format!("`{budget}`")),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !asked.is_empty() {
        item("Asked for", asked.join(", "));
    }
    item(
        "Experts",
        format!("criterion `{}`, allocation `{}`, seed {}", method.criterion, method.allocator, method.seed),
    );
    if method.asked.layers.is_some() {
        item("Layers", format!("criterion `{}`", method.layer_criterion));
    }
    let domains: Vec<_> = plan
        .stats
        .domains
        .iter()
        .map(|domain| {
            format!("{} ({} tokens, weight {})", cell(&domain.name), grouped(domain.tokens), domain.weight)
        })
        .collect();
    item("Calibration", format!("{} tokens: {}", grouped(plan.stats.tokens), domains.join(", ")));
    item(
        "Experts are stored",
        match layout {
            Layout::Hf => "as one matrix per expert and projection, for transformers, vLLM and llama.cpp".to_owned(),
            Layout::Engine => "as mistral.rs loads them; `--layout hf` writes what transformers loads".to_owned(),
        },
    );
    item("Written by", plan.created_by.clone());
    text
}

fn measured(loss: &Loss) -> String {
    let mut text = format!(
        "### Measured loss\n\nPerplexity on {} held-out tokens.\n\n\
         | text | before | after | change | {}% interval |\n|---|---:|---:|---:|---:|",
        grouped(loss.tokens),
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
    let source = if source.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c)) {
        source
    } else {
        format!("'{}'", source.replace('\'', r"'\''"))
    };
    format!(
        "### Reproduce\n\nThe plan is in this directory.\n\n```sh\n\
         mistralrs-prune prune -m {source} --plan {PLAN_FILE} --layout {layout} -o PRUNED\n```"
    )
}

fn removed(plan: &Plan) -> String {
    let mut text = String::from(
        "<details>\n<summary>What was removed, by original index</summary>\n\n\
         | layer | experts kept | removed | removed experts |\n|---:|---:|---:|---|",
    );
    for layer in &plan.layers {
        let (kept, removed, which) = match (layer.dropped, layer.scores.len()) {
            (true, experts) => (0, experts, "the whole layer".to_owned()),
            (false, 0) => (0, 0, "dense".to_owned()),
            (false, _) => (layer.kept.len(), layer.removed.len(), list(&layer.removed)),
        };
        // Writing to a string does not fail.
        let _ = write!(text, "\n| {} | {kept} | {removed} | {which} |", layer.layer);
    }
    text + "\n\n</details>"
}

/// `1, 2, 3`
fn list(indices: &[usize]) -> String {
    indices.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// `1,234,567`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A name inside a table or list.
fn cell(text: &str) -> String {
    inline(text).replace('|', r"\|")
}

/// A name on one line, without what would end a code span.
fn inline(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || c == '`' { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Asked, DomainShare, ExpertBudget, LayerBudget, LayerPlan, Method, PlannedFrom, PlannedModel};

    fn size(layers: usize, experts_per_layer: Vec<usize>) -> Size {
        Size { parameters: 1_234_567, active_parameters: 890, bytes: 2_469_134, layers, experts_per_layer }
    }

    fn layer(layer: usize, dropped: bool, kept: Vec<usize>, removed: Vec<usize>) -> LayerPlan {
        let scores = vec![1.0; kept.len() + removed.len()];
        LayerPlan { layer, dropped, block_influence: 0.5, kept, removed, scores }
    }

    fn plan() -> Plan {
        Plan {
            version: crate::plan::VERSION,
            created_by: "mistralrs-prune 0.1.0".into(),
            model: PlannedModel { name: "Tiny".into(), fingerprint: "5f1c".into(), family: "qwen3_moe".into() },
            stats: PlannedFrom {
                hash: "ab".into(),
                corpus: "cd".into(),
                tokens: 4096,
                domains: vec![DomainShare { name: "a|b".into(), weight: 0.5, tokens: 4096 }],
            },
            method: Method {
                criterion: "reap".into(),
                allocator: "uniform".into(),
                layer_criterion: "block-influence".into(),
                seed: 7,
                asked: Asked {
                    experts: Some(ExpertBudget::Fraction(0.5)),
                    layers: Some(LayerBudget::Count(1)),
                },
            },
            before: size(3, vec![4, 0, 4]),
            after: size(2, vec![2, 0]),
            layers: vec![
                layer(0, false, vec![1, 2], vec![0, 3]),
                layer(1, false, vec![], vec![]),
                layer(2, true, vec![0, 1], vec![2, 3]),
            ],
        }
    }

    #[test]
    fn says_what_went_and_how_to_do_it_again() {
        let text = section(&plan(), Layout::Hf, &CardFacts::default());
        for part in [
            "## Pruned with mistralrs-prune\n\nThis is `Tiny` without layer 2 of 3 and 2 of the 4 experts of the other layers.",
            "| parameters | 1,234,567 | 1,234,567 |",
            "| experts per MoE layer | 4 | 2 |",
            "- Asked for: `--prune-experts 0.5`, `--drop-layers 1`",
            "criterion `reap`, allocation `uniform`, seed 7",
            "- Calibration: 4,096 tokens: a\\|b (4,096 tokens, weight 0.5)",
            "Not measured.",
            "mistralrs-prune prune -m Tiny --plan pruning_plan.json --layout hf -o PRUNED",
            "| 0 | 2 | 2 | 0, 3 |\n| 1 | 0 | 0 | dense |\n| 2 | 0 | 4 | the whole layer |\n\n</details>\n",
        ] {
            assert!(text.contains(part), "{part}\n\n{text}");
        }
    }

    #[test]
    fn a_measured_loss_is_a_table() {
        let row = DomainLoss {
            domain: "math".into(),
            before: 8.7104,
            after: 9.94,
            change: 0.1412,
            interval: Some((0.132, 0.152)),
        };
        let loss = Loss { tokens: 32_768, confidence: 0.95, rows: vec![row] };
        let facts = CardFacts { source: Some("org/Tiny model".into()), loss: Some(loss) };
        let text = section(&plan(), Layout::Engine, &facts);
        for part in [
            "Perplexity on 32,768 held-out tokens.",
            "| change | 95% interval |",
            "| math | 8.710 | 9.940 | +14.1% | [+13.2, +15.2] |",
            "-m 'org/Tiny model' ",
        ] {
            assert!(text.contains(part), "{part}\n\n{text}");
        }
        assert!(!text.contains("Not measured"));
    }

    #[test]
    fn nothing_removed_is_said() {
        let mut plan = plan();
        for layer in &mut plan.layers {
            layer.dropped = false;
            layer.kept = (0..layer.scores.len()).collect();
            layer.removed.clear();
        }
        assert!(section(&plan, Layout::Hf, &CardFacts::default()).contains("`Tiny` with nothing removed."));
    }

    #[test]
    fn digits_are_grouped() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (30_532_122_624, "30,532,122,624")] {
            assert_eq!(grouped(number), text);
        }
    }
}
