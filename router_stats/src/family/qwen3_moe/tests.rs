use serde_json::json;

use super::*;
use crate::family::RotarySpec;
use crate::Error;

/// The demo model's configuration, as transformers 4 writes it.
fn demo() -> Value {
    json!({
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe",
        "attention_bias": false, "decoder_sparse_step": 1, "mlp_only_layers": [],
        "norm_topk_prob": true, "hidden_act": "silu", "intermediate_size": 192,
        "max_window_layers": 8, "use_sliding_window": false, "sliding_window": null,
        "rope_scaling": null, "tie_word_embeddings": true, "vocab_size": 4096,
        "hidden_size": 192, "num_hidden_layers": 8, "num_attention_heads": 6,
        "num_key_value_heads": 2, "head_dim": 32, "num_experts": 16,
        "num_experts_per_tok": 2, "moe_intermediate_size": 96, "rope_theta": 10000.0,
        "rms_norm_eps": 1e-06, "max_position_embeddings": 2048, "unknown": {"kept": true}
    })
}

fn topology(value: &Value) -> Result<Topology> {
    Qwen3Moe.topology(&Config::new("config.json", value.clone())?)
}

fn with(changes: &[(&str, Value)]) -> Value {
    let mut value = demo();
    for (field, change) in changes {
        value[*field] = change.clone();
    }
    value
}

#[test]
fn reads_the_demo_model() {
    let moe = MoeSpec {
        experts: 16,
        intermediate: 96,
        router: RouterRule::softmax(2, true),
        shared: None,
    };
    let expected = Topology {
        hidden: 192,
        vocab: 4096,
        max_positions: 2048,
        norm: NormSpec::rms(1e-6),
        tied_head: true,
        head_bias: false,
        attention: AttentionSpec::grouped(
            GroupedQuery {
                qk_norm: Some(QkNorm::Head),
                ..GroupedQuery::plain(6, 2, 32)
            },
            RotarySpec::plain(32, 1e4),
            vec![None; 8],
        ),
        mlps: vec![MlpSpec::Moe(moe); 8],
        prediction_layers: 0,
    };
    assert_eq!(topology(&demo()).unwrap(), expected);
}

#[test]
fn reads_what_transformers_5_writes() {
    let mut value = with(&[(
        "rope_parameters",
        json!({"rope_theta": 1e6, "rope_type": "default"}),
    )]);
    value.as_object_mut().unwrap().remove("rope_theta");
    assert_eq!(topology(&value).unwrap().attention.rotary.theta, 1e6);
}

#[test]
fn the_engine_is_told_what_transformers_5_leaves_out() {
    let mut value = demo();
    let fields = value.as_object_mut().unwrap();
    let experts = fields.remove("num_experts").unwrap();
    fields.insert("num_local_experts".to_owned(), experts);
    fields.retain(|field, _| !field.contains("window"));
    let topology = topology(&value).unwrap();
    assert_eq!(topology.max_experts(), 16);
    let mut spelled = value;
    Qwen3Moe.spell_for_engine(&mut spelled, &topology);
    assert_eq!(spelled["num_experts"], 16);
    assert_eq!(spelled["use_sliding_window"], false);
    assert_eq!(spelled["max_window_layers"], 28);
}

#[test]
fn the_engine_reads_no_biases() {
    let serving = |value: &Value| Qwen3Moe.serving(&topology(value).unwrap());
    assert!(serving(&demo()).layout().is_some());
    let biased = with(&[("attention_bias", true.into())]);
    assert!(serving(&biased).layout().is_none());
}

#[test]
fn dense_layers_come_from_the_list_and_the_step() {
    let value = with(&[
        ("decoder_sparse_step", 2.into()),
        ("mlp_only_layers", json!([3])),
    ]);
    assert_eq!(
        topology(&value).unwrap().experts(),
        [0, 16, 0, 0, 0, 16, 0, 16]
    );
}

#[test]
fn windows_start_at_max_window_layers() {
    let value = with(&[
        ("use_sliding_window", true.into()),
        ("sliding_window", 64.into()),
        ("max_window_layers", 6.into()),
    ]);
    let mut expected = vec![None; 6];
    expected.extend([Some(64); 2]);
    assert_eq!(topology(&value).unwrap().attention.windows, expected);
}

#[test]
fn unusable_fields_are_named() {
    for (field, value) in [
        ("num_experts_per_tok", json!(17)),
        ("num_key_value_heads", json!(4)),
        ("head_dim", json!(31)),
        ("hidden_act", json!("gelu")),
        ("num_experts", Value::Null),
        ("norm_topk_prob", json!(1)),
        ("mlp_only_layers", json!("all")),
        ("rope_scaling", json!({"rope_type": "yarn"})),
    ] {
        match topology(&with(&[(field, value)])) {
            Err(Error::Config { field: named, .. }) => assert_eq!(named, field),
            other => panic!("{field}: {other:?}"),
        }
    }
}

#[test]
fn keeping_every_layer_leaves_windows_as_they_were() {
    // More than there are layers, as transformers' default is.
    let before = with(&[("max_window_layers", 28.into())]);
    let mut config = before.clone();
    let topology = topology(&config).unwrap();
    Qwen3Moe.rewrite_config(&mut config, &topology, &Keep::all(&topology));
    assert_eq!(config, before);
}

#[test]
fn windows_stay_with_their_layers_where_the_default_says_which() {
    let mut config = with(&[
        ("num_hidden_layers", 30.into()),
        ("use_sliding_window", true.into()),
        ("sliding_window", 64.into()),
    ]);
    config.as_object_mut().unwrap().remove("max_window_layers");
    let before = topology(&config).unwrap();
    let mut keep = Keep::all(&before);
    keep.layers = (2..30).collect();
    Qwen3Moe.rewrite_config(&mut config, &before, &keep);
    assert_eq!(config["max_window_layers"], 26);
    assert_eq!(
        topology(&config).unwrap().attention.windows,
        before.attention.windows[2..]
    );
}

#[test]
fn a_rewritten_configuration_describes_the_kept_layers() {
    let mut config = with(&[
        ("decoder_sparse_step", 2.into()),
        ("use_sliding_window", true.into()),
        ("sliding_window", 64.into()),
        ("max_window_layers", 5.into()),
        (
            "layer_types",
            json!(["a", "b", "c", "d", "e", "f", "g", "h"]),
        ),
    ]);
    let before = topology(&config).unwrap();
    let mut keep = Keep::all(&before);
    keep.layers = vec![0, 1, 3, 5, 6];
    Qwen3Moe.rewrite_config(&mut config, &before, &keep);
    let after = topology(&config).unwrap();
    assert_eq!(after.experts(), [0, 16, 16, 16, 0]);
    assert_eq!(
        after.attention.windows,
        [None, None, None, Some(64), Some(64)]
    );
    assert_eq!(config["num_hidden_layers"], 5);
    assert_eq!(config["max_window_layers"], 3);
    assert_eq!(config["mlp_only_layers"], json!([0, 4]));
    assert_eq!(config["decoder_sparse_step"], 1);
    assert_eq!(config["layer_types"], json!(["a", "b", "d", "f", "g"]));
    assert_eq!(config["unknown"], json!({"kept": true}));
}
