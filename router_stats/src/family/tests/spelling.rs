//! The spelling for the engine says the same, and all that it requires.

use serde_json::Value;

use super::{either_spelling, nested, published, Case};
use crate::family::{Family, Keep, Pairs, Topology};

/// Fields without a default in the loaders of mistral.rs 0.8.1, beside
/// [`EVERYWHERE`]; for some, a default that means another thing.
const REQUIRED: [(&str, &[&str]); 8] = [
    (
        "qwen3_moe",
        &[
            "intermediate_size",
            "moe_intermediate_size",
            "num_experts",
            "max_window_layers",
            "use_sliding_window",
            "mlp_only_layers",
            "decoder_sparse_step",
            "norm_topk_prob",
            "num_experts_per_tok",
            "hidden_act",
        ],
    ),
    (
        "qwen3_vl_moe",
        &[
            "head_dim",
            "intermediate_size",
            "moe_intermediate_size",
            "num_experts",
            "num_experts_per_tok",
            "rope_scaling",
            "norm_topk_prob",
            "hidden_act",
        ],
    ),
    (
        "mixtral",
        &["num_local_experts", "num_experts_per_tok", "hidden_act"],
    ),
    (
        "phimoe",
        &[
            "original_max_position_embeddings",
            "lm_head_bias",
            "attention_bias",
            "num_local_experts",
            "router_jitter_noise",
            "hidden_act",
        ],
    ),
    ("deepseek_v2", LATENT),
    ("deepseek_v3", LATENT),
    (
        "glm4_moe",
        &[
            "moe_intermediate_size",
            "partial_rotary_factor",
            "n_routed_experts",
            "n_shared_experts",
            "num_experts_per_tok",
            "first_k_dense_replace",
        ],
    ),
    ("glm4_moe_lite", LATENT),
];

const LATENT: &[&str] = &[
    "moe_intermediate_size",
    "attention_bias",
    "n_group",
    "topk_group",
    "qk_rope_head_dim",
    "kv_lora_rank",
    "v_head_dim",
    "qk_nope_head_dim",
    "n_routed_experts",
    "n_shared_experts",
    "num_experts_per_tok",
    "first_k_dense_replace",
    "routed_scaling_factor",
];

const EVERYWHERE: [&str; 8] = [
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "rms_norm_eps",
    "rope_theta",
];

fn spelled(family: &dyn Family, value: &Value, topology: &Topology) -> Value {
    let mut spelled = value.clone();
    family.spell_for_engine(&mut spelled, topology);
    spelled
}

fn text(config: &Value) -> &Value {
    config.get("text_config").unwrap_or(config)
}

/// What the engine requires of a family that it takes.
fn required(case: &Case) -> Option<&'static [&'static str]> {
    let model_type = case.family.model_type();
    let (_, fields) = REQUIRED.iter().find(|(it, _)| *it == model_type)?;
    Some(fields)
}

#[test]
fn both_spellings_mean_the_same() {
    for (flat, nested) in published().into_iter().zip(nested()) {
        assert_eq!(flat.topology, nested.topology, "{}", flat.name);
    }
}

#[test]
fn it_says_all_that_the_engine_requires() {
    for case in either_spelling() {
        let Some(fields) = required(&case) else {
            continue;
        };
        let spelled = spelled(case.family, &case.value, &case.topology);
        let text = text(&spelled);
        let model_type = case.family.model_type();
        for field in EVERYWHERE.iter().chain(fields) {
            let said = text.get(field).is_some_and(|value| !value.is_null());
            assert!(said, "{}: {field}", case.name);
        }
        assert!(text.get("rope_parameters").is_none(), "{}", case.name);
        if let Some(scaling) = text.get("rope_scaling").filter(|it| !it.is_null()) {
            let fields: &[_] = match model_type {
                "phimoe" => &["type", "short_factor", "long_factor"],
                "qwen3_vl_moe" => &["mrope_section"],
                _ => &[
                    "type",
                    "factor",
                    "original_max_position_embeddings",
                    "beta_fast",
                    "beta_slow",
                    "mscale",
                    "mscale_all_dim",
                ],
            };
            for field in fields {
                assert!(scaling.get(field).is_some(), "{}: {field}", case.name);
            }
        }
    }
}

#[test]
fn the_dense_layers_are_said_after_they_are_gone() {
    for case in either_spelling() {
        let dense = case.topology.dense_layers();
        if dense == 0 || case.value.get("n_routed_experts").is_none() {
            continue;
        }
        let mut keep = Keep::all(&case.topology);
        keep.layers.drain(..dense);
        let mut value = case.value.clone();
        case.family
            .rewrite_config(&mut value, &case.topology, &keep);
        let spelled = spelled(case.family, &value, &case.read(&value));
        assert_eq!(spelled["first_k_dense_replace"], 0, "{}", case.name);
    }
}

#[test]
fn it_means_the_same() {
    for case in either_spelling() {
        let once = spelled(case.family, &case.value, &case.topology);
        let mut read = case.read(&once);
        if case.family.model_type() == "glm4_moe" {
            assert_eq!(read.attention.rotary.pairs, Pairs::Adjacent);
            read.attention.rotary.pairs = Pairs::Halves;
        }
        assert_eq!(read, case.topology, "{}", case.name);
        let twice = spelled(case.family, &once, &case.topology);
        assert_eq!(twice, once, "{}", case.name);
    }
}

#[test]
fn published_configurations_are_not_respelled_without_need() {
    for case in published().iter().filter(|case| required(case).is_some()) {
        let unchanged = spelled(case.family, &case.value, &case.topology) == case.value;
        // Rows are reordered, or positions counted otherwise.
        let other = ["glm4_moe", "phimoe"].contains(&case.family.model_type());
        assert_eq!(unchanged, !other, "{}", case.name);
    }
}

#[test]
fn others_read_it_again() {
    for case in published() {
        let mut value = spelled(case.family, &case.value, &case.topology);
        case.family.spell_for_others(&mut value);
        assert_eq!(case.read(&value), case.topology, "{}", case.name);
        // What remains is said more than before, never otherwise.
        for (field, before) in case.value.as_object().unwrap() {
            assert_eq!(&value[field], before, "{}: {field}", case.name);
        }
    }
}
