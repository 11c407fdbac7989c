use super::loss::DomainLoss;
use router_stats::family::Skip;

use super::*;
use crate::plan::{
    Asked, Constraints, DomainShare, ExpertBudget, ExpertId, LayerBudget, LayerPlan, Method,
    PlannedFrom, PlannedModel,
};

fn size(layers: usize, experts_per_layer: Vec<usize>) -> Size {
    Size {
        parameters: 1_234_567,
        active_parameters: 890,
        bytes: 2_469_134,
        layers,
        experts_per_layer,
    }
}

fn layer(layer: usize, dropped: bool, kept: Vec<usize>, removed: Vec<usize>) -> LayerPlan {
    let scores = vec![1.0; kept.len() + removed.len()];
    LayerPlan {
        layer,
        dropped,
        skipped: Skip::default(),
        block_influence: 0.5,
        kept,
        removed,
        scores,
    }
}

fn plan() -> Plan {
    Plan {
        version: crate::plan::VERSION,
        created_by: "mistralrs-prune 0.1.0".into(),
        model: PlannedModel {
            name: "Tiny".into(),
            fingerprint: "5f1c".into(),
            family: "qwen3_moe".into(),
        },
        stats: PlannedFrom {
            hash: "ab".into(),
            corpus: "cd".into(),
            tokens: 4096,
            domains: vec![DomainShare {
                name: "a|b".into(),
                weight: 0.5,
                tokens: 4096,
                coverage: Some(0.75),
            }],
        },
        method: Method {
            criterion: "reap".into(),
            allocator: "uniform".into(),
            search: None,
            layer_criterion: "block-influence".into(),
            seed: 7,
            asked: Asked {
                experts: Some(ExpertBudget::Fraction(0.5)),
                layers: Some(LayerBudget::Count(1)),
                ..Asked::default()
            },
            constraints: Constraints {
                super_experts: Some(vec![ExpertId {
                    layer: 0,
                    expert: 2,
                }]),
                ..Constraints::default()
            },
        },
        before: size(3, vec![4, 0, 4]),
        after: size(2, vec![2, 0]),
        weights: None,
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
        "- Protected, as layer:expert: `0:2`",
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
    let loss = Loss {
        tokens: 32_768,
        confidence: 0.95,
        rows: vec![row],
    };
    let text = measured(&loss);
    for part in [
        "Perplexity on 32,768 held-out tokens.",
        "| change | 95% interval |",
        "| math | 8.710 | 9.940 | +14.1% | [+13.2, +15.2] |",
    ] {
        assert!(text.contains(part), "{part}\n\n{text}");
    }
}

#[test]
fn a_source_that_a_shell_would_split_is_quoted() {
    let facts = CardFacts {
        source: Some("org/Tiny model".into()),
        ..CardFacts::default()
    };
    let text = section(&plan(), Layout::Engine, &facts);
    assert!(text.contains("-m 'org/Tiny model' "), "{text}");
    assert!(!text.contains("multi-token"), "{text}");
}

#[test]
fn blocks_that_are_not_carried_over_are_said() {
    let facts = CardFacts {
        prediction_layers: 1,
        ..CardFacts::default()
    };
    let text = section(&plan(), Layout::Hf, &facts);
    assert!(text.contains("multi-token-prediction blocks were not carried over"));
}

#[test]
fn nothing_removed_is_said() {
    let mut plan = plan();
    for layer in &mut plan.layers {
        layer.dropped = false;
        layer.kept = (0..layer.scores.len()).collect();
        layer.removed.clear();
    }
    assert!(
        section(&plan, Layout::Hf, &CardFacts::default()).contains("`Tiny` with nothing removed.")
    );
}
