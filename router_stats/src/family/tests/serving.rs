//! How the engine takes published models.

use super::published;
use crate::family::{Pairs, Serving};

#[test]
fn published_models_are_served_or_refused_for_a_reason() {
    let expected = [
        ("deepseek-v2", "No: group-limited"),
        ("deepseek-v2-lite", "Text stacked"),
        ("deepseek-v3", "Text stacked"),
        ("glm-4.5", "Text stacked adjacent"),
        ("glm-4.5-air", "Text stacked adjacent"),
        ("glm-4.6", "Text stacked adjacent"),
        ("glm-4.7-flash", "Text stacked"),
        ("kimi-k2-instruct", "Text stacked"),
        ("minimax-m2", "No: no loader for MiniMaxM2ForCausalLM"),
        ("mixtral-8x22b-v0.1", "Text"),
        ("mixtral-8x7b-v0.1", "Text"),
        ("olmoe-1b-7b-0924", "No: no loader for OlmoeForCausalLM"),
        ("phi-3.5-moe-instruct", "Text but second-best router logit"),
        ("qwen1.5-moe-a2.7b", "No: no loader for Qwen2MoeForCausalLM"),
        ("qwen2-57b-a14b", "No: no loader for Qwen2MoeForCausalLM"),
        ("qwen3-235b-a22b", "Text stacked"),
        ("qwen3-30b-a3b", "Text stacked"),
        ("qwen3-coder-480b-a35b", "Text stacked"),
        ("qwen3-vl-235b-a22b-instruct", "Multimodal stacked"),
        ("qwen3-vl-30b-a3b-instruct", "Multimodal stacked"),
    ];
    let found = published();
    assert_eq!(found.len(), expected.len());
    for (case, (name, expected)) in found.iter().zip(expected) {
        assert_eq!(case.name, name);
        let (layout, kind) = match case.family.serving(&case.topology) {
            Serving::Text(layout) => (layout, "Text"),
            Serving::Multimodal(layout) => (layout, "Multimodal"),
            Serving::No(reason) => {
                let named = expected.strip_prefix("No: ").unwrap();
                assert!(reason.contains(named), "{name}: {reason}");
                continue;
            }
        };
        let (taken, caveat) = match expected.split_once(" but ") {
            Some((taken, caveat)) => (taken, Some(caveat)),
            None => (expected, None),
        };
        let mut found = kind.to_owned();
        if layout.stacked {
            found += " stacked";
        }
        if layout.pairs == Some(Pairs::Adjacent) {
            found += " adjacent";
        }
        assert_eq!(found, taken, "{name}");
        match (layout.caveat, caveat) {
            (None, None) => {}
            (Some(said), Some(named)) => assert!(said.contains(named), "{name}: {said}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}
