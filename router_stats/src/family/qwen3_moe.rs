//! Qwen3-MoE (Qwen3-30B-A3B, Qwen3-235B-A22B, Qwen3-Coder).
//!
//! Softmax over all experts, then top-k, then renormalisation if
//! `norm_topk_prob`; queries and keys are RMS-normalised per head. Layers
//! named in `mlp_only_layers`, and those that `decoder_sparse_step` skips,
//! are dense.
//!
//! Source: `Qwen3MoeForCausalLM` in Hugging Face transformers.

use serde_json::Value;

use super::names::COMMON;
use super::{
    rewrite, rope, router, AttentionSpec, Config, EngineLayout, Family, GroupedQuery, Keep,
    MlpSpec, MoeSpec, Names, NormSpec, QkNorm, RouterRule, Serving, Topology,
};
use crate::Result;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Qwen3Moe;

/// `max_window_layers` where a configuration does not say: layers at and above
/// it use the sliding window.
const MAX_WINDOW_LAYERS: u64 = 28;

impl Family for Qwen3Moe {
    fn model_type(&self) -> &'static str {
        "qwen3_moe"
    }

    fn architectures(&self) -> &'static [&'static str] {
        &["Qwen3MoeForCausalLM"]
    }

    fn names(&self) -> &'static Names {
        &COMMON
    }

    fn serving(&self, _topology: &Topology) -> Serving {
        Serving::Text(EngineLayout {
            stacked: true,
            ..EngineLayout::default()
        })
    }

    fn topology(&self, config: &Config) -> Result<Topology> {
        config.require_one_of("hidden_act", &["silu"])?;
        let layers = config.layers()?;
        let hidden = config.count("hidden_size")?;
        let moe = MoeSpec {
            experts: config.count("num_experts")?,
            intermediate: config.count("moe_intermediate_size")?,
            router: RouterRule::softmax(
                config.count("num_experts_per_tok")?,
                config.flag_or("norm_topk_prob", false)?,
            ),
            shared: None,
        };
        router::check_top_k(config, &moe)?;
        let mlps = mlps(config, &moe)?;
        let bias = config.flag_or("attention_bias", false)?;
        let query = GroupedQuery {
            qk_norm: Some(QkNorm::Head),
            qkv_bias: bias,
            o_bias: bias,
            ..super::config::grouped_query(config, hidden)?
        };
        let rotary = rope::plain(config, query.head_dim, 10_000.0)?;
        Ok(Topology {
            hidden,
            vocab: config.count("vocab_size")?,
            max_positions: config.count_or("max_position_embeddings", 32_768)?,
            norm: NormSpec::rms(config.positive_or("rms_norm_eps", 1e-6)?),
            tied_head: config.flag_or("tie_word_embeddings", false)?,
            head_bias: false,
            attention: AttentionSpec::grouped(query, rotary, windows(config, layers)?),
            mlps,
            prediction_layers: 0,
        })
    }

    fn rewrite_config(&self, config: &mut Value, topology: &Topology, keep: &Keep) {
        rewrite::counts(config, "num_experts", topology, keep);
        let layers = keep.layers.len();
        if layers < topology.layers() {
            shorten_windows(config, keep);
        }
        rewrite::keep_layer_entries(config, "layer_types", &keep.layers);
        rewrite::listed_dense_layers(config, topology, keep);
    }
}

/// Layers of `moe`, but dense ones where `mlp_only_layers` lists them or
/// `decoder_sparse_step` skips them. Shared with Qwen2-MoE.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config)
pub(super) fn mlps(config: &Config, moe: &MoeSpec) -> Result<Vec<MlpSpec>> {
    let sparse_step = config.count_or("decoder_sparse_step", 1)?;
    let dense_layers = config.indices("mlp_only_layers")?;
    let in_layer = |layer: usize| {
        if dense_layers.contains(&layer) || (layer + 1) % sparse_step != 0 {
            Ok(MlpSpec::Dense {
                intermediate: config.count("intermediate_size")?,
            })
        } else {
            Ok(MlpSpec::Moe(moe.clone()))
        }
    };
    (0..config.layers()?).map(in_layer).collect()
}

/// Sliding windows apply from `max_window_layers` on, if at all.
fn windows(config: &Config, layers: usize) -> Result<Vec<Option<usize>>> {
    if !config.flag_or("use_sliding_window", false)? || !config.has("sliding_window") {
        return Ok(vec![None; layers]);
    }
    let window = config.count("sliding_window")?;
    let full = full_attention_layers(config.value()).unwrap_or(MAX_WINDOW_LAYERS);
    Ok((0..layers)
        .map(|layer| (layer as u64 >= full).then_some(window))
        .collect())
}

fn full_attention_layers(config: &Value) -> Option<u64> {
    config.get("max_window_layers").and_then(Value::as_u64)
}

/// Rewrites `max_window_layers` to the kept layers below it. Where windows are
/// in use and the field is absent, it is written, as its default would count
/// other layers than before.
fn shorten_windows(config: &mut Value, keep: &Keep) {
    let sliding = config.get("use_sliding_window").and_then(Value::as_bool) == Some(true);
    let full = full_attention_layers(config).or(sliding.then_some(MAX_WINDOW_LAYERS));
    if let Some(full) = full {
        let below = keep.layers.iter().filter(|&&layer| (layer as u64) < full);
        config["max_window_layers"] = below.count().into();
    }
}

#[cfg(test)]
mod tests {
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
    fn keeping_everything_changes_nothing() {
        let mut config = demo();
        let topology = topology(&config).unwrap();
        Qwen3Moe.rewrite_config(&mut config, &topology, &Keep::all(&topology));
        assert_eq!(config, demo());
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
    fn fewer_experts_change_one_number() {
        let mut config = demo();
        let topology = topology(&config).unwrap();
        let mut keep = Keep::all(&topology);
        keep.experts.iter_mut().for_each(|kept| kept.truncate(8));
        Qwen3Moe.rewrite_config(&mut config, &topology, &keep);
        assert_eq!(config, with(&[("num_experts", 8.into())]));
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
}
