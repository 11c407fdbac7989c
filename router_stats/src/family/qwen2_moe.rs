//! Qwen2-MoE (Qwen1.5-MoE-A2.7B, Qwen2-57B-A14B).
//!
//! Softmax over all experts, then top-k, usually without renormalisation.
//! Every token also passes through a shared expert whose output has a gate of
//! its own. Queries, keys and values have biases.
//!
//! Source: `Qwen2MoeForCausalLM` in Hugging Face transformers.

use serde_json::{json, Value};

use super::gguf::{self, Gguf};
use super::names::COMMON;
use super::{
    grouped, qwen3_moe, rewrite, rope, router, stand_in, AttentionSpec, Config, Family,
    GroupedQuery, Keep, MoeSpec, Names, NormSpec, Pairs, RouterRule, Serving, SharedExperts,
    Topology,
};
use crate::Result;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Qwen2Moe;

static NAMES: Names = Names {
    shared: Some("mlp.shared_expert."),
    shared_gate: Some("mlp.shared_expert_gate.weight"),
    ..COMMON
};

/// llama.cpp has experts in every layer and gate values that are never
/// renormalised.
static GGUF: Gguf = Gguf {
    architecture: "qwen2moe",
    modules: &[
        gguf::ATTENTION,
        gguf::NORMS,
        &[
            ("mlp.shared_expert.gate_proj", "ffn_gate_shexp"),
            ("mlp.shared_expert.up_proj", "ffn_up_shexp"),
            ("mlp.shared_expert.down_proj", "ffn_down_shexp"),
            ("mlp.shared_expert_gate", "ffn_gate_inp_shexp"),
        ],
    ],
    pairs: Pairs::Halves,
    refuses: |topology| {
        if topology.dense_layers() > 0 {
            return Some(gguf::NO_DENSE_LAYERS);
        }
        gguf::plain_softmax(topology)
            .or_else(|| gguf::shared_heads(topology))
            .or_else(|| gguf::plain_attention(topology))
    },
    keys: |topology| {
        let mut keys = gguf::grouped_keys("qwen2moe", topology);
        keys.extend(gguf::expert_width("qwen2moe", topology));
        if let Some(shared) = topology.moes().find_map(|moe| moe.shared) {
            let width = gguf::count(shared.intermediate);
            keys.push((SHARED_WIDTH.to_owned(), width));
        }
        keys
    },
    read: |metadata, has| {
        let mut config = gguf::grouped_config("qwen2moe", metadata)?;
        config["architectures"] = json!(["Qwen2MoeForCausalLM"]);
        config["model_type"] = json!("qwen2_moe");
        let width = metadata.count("qwen2moe.expert_feed_forward_length")?;
        config["moe_intermediate_size"] = json!(width);
        config["shared_expert_intermediate_size"] = json!(metadata.count(SHARED_WIDTH)?);
        config["norm_topk_prob"] = json!(false);
        config["qkv_bias"] = json!(has("blk.0.attn_q.bias"));
        gguf::expert_keys("qwen2moe", "num_experts", metadata, &mut config)?;
        Ok(config)
    },
};

/// llama.cpp's key of the width of the shared expert.
const SHARED_WIDTH: &str = "qwen2moe.expert_shared_feed_forward_length";

impl Family for Qwen2Moe {
    fn model_type(&self) -> &'static str {
        "qwen2_moe"
    }

    fn architectures(&self) -> &'static [&'static str] {
        &["Qwen2MoeForCausalLM"]
    }

    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn serving(&self, _topology: &Topology) -> Serving {
        Serving::No("mistral.rs 0.8.1 has no loader for Qwen2MoeForCausalLM")
    }

    fn gguf(&self) -> Option<&'static Gguf> {
        Some(&GGUF)
    }

    fn topology(&self, config: &Config) -> Result<Topology> {
        config.require_one_of("hidden_act", &["silu"])?;
        // Which layers slide has changed between versions of transformers.
        if config.flag_or("use_sliding_window", false)? {
            return Err(config.error("use_sliding_window", "false"));
        }
        let kinds = config.value().get("layer_types").and_then(Value::as_array);
        if kinds.is_some_and(|kinds| kinds.iter().any(|kind| kind != "full_attention")) {
            return Err(config.error("layer_types", "`full_attention` for every layer"));
        }
        let hidden = config.count("hidden_size")?;
        let query = GroupedQuery {
            qkv_bias: config.flag_or("qkv_bias", true)?,
            ..grouped::query(config, hidden)?
        };
        let moe = MoeSpec {
            experts: config.count("num_experts")?,
            intermediate: config.count("moe_intermediate_size")?,
            router: RouterRule::softmax(
                config.count("num_experts_per_tok")?,
                config.flag_or("norm_topk_prob", false)?,
            ),
            shared: Some(SharedExperts {
                intermediate: config.count("shared_expert_intermediate_size")?,
                gated: true,
            }),
        };
        router::check_top_k(config, &moe)?;
        let rotary = rope::plain(config, query.head_dim, 10_000.0)?;
        let mlps = qwen3_moe::mlps(config, &moe)?;
        Ok(Topology {
            hidden,
            vocab: config.count("vocab_size")?,
            max_positions: config.count_or("max_position_embeddings", 32_768)?,
            norm: NormSpec::rms(config.positive_or("rms_norm_eps", 1e-6)?),
            tied_head: config.flag_or("tie_word_embeddings", false)?,
            head_bias: false,
            attention: AttentionSpec::grouped(query, rotary, vec![None; mlps.len()]),
            mlps,
            prediction_layers: 0,
        })
    }

    fn rewrite_config(&self, config: &mut Value, topology: &Topology, keep: &Keep) {
        rewrite::counts(config, &["num_experts"], topology, keep);
        rewrite::keep_layer_entries(config, "layer_types", &keep.layers);
        rewrite::listed_dense_layers(config, topology, keep);
    }

    fn stand_in(
        &self,
        topology: &Topology,
        keep: &Keep,
    ) -> std::result::Result<usize, &'static str> {
        Ok(stand_in::anywhere(topology, keep))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::tests::{read, refuses, with, without};
    use crate::family::{MlpSpec, RotarySpec};

    fn small() -> Value {
        json!({
            "model_type": "qwen2_moe", "hidden_size": 32, "vocab_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 8,
            "shared_expert_intermediate_size": 24, "intermediate_size": 40,
            "use_sliding_window": false, "sliding_window": 0, "max_window_layers": 1
        })
    }

    #[test]
    fn reads_structure_and_defaults() {
        let topology = read(&Qwen2Moe, &small()).unwrap();
        let query = GroupedQuery {
            qkv_bias: true,
            ..GroupedQuery::plain(4, 2, 8)
        };
        let moe = MoeSpec {
            experts: 6,
            intermediate: 8,
            router: RouterRule::softmax(2, false),
            shared: Some(SharedExperts {
                intermediate: 24,
                gated: true,
            }),
        };
        let expected = Topology {
            hidden: 32,
            vocab: 64,
            max_positions: 32_768,
            norm: NormSpec::rms(1e-6),
            tied_head: false,
            head_bias: false,
            attention: AttentionSpec::grouped(query, RotarySpec::plain(8, 1e4), vec![None; 2]),
            mlps: vec![MlpSpec::Moe(moe); 2],
            prediction_layers: 0,
        };
        assert_eq!(topology, expected);
    }

    #[test]
    fn biases_and_dense_layers_are_said() {
        let changes = [("qkv_bias", json!(false)), ("mlp_only_layers", json!([0]))];
        let topology = read(&Qwen2Moe, &with(&small(), &changes)).unwrap();
        assert!(!super::super::grouped::biased(&topology));
        assert_eq!(topology.experts(), [0, 6]);
    }

    #[test]
    fn unusable_fields_are_named() {
        let windows = json!(["full_attention", "sliding_attention"]);
        refuses(
            &Qwen2Moe,
            &small(),
            &[
                ("use_sliding_window", json!(true)),
                ("layer_types", windows),
                ("shared_expert_intermediate_size", json!(null)),
                ("num_experts_per_tok", json!(7)),
                ("decoder_sparse_step", json!(0)),
                ("hidden_act", json!("gelu")),
                ("rope_scaling", json!({"type": "yarn", "factor": 4.0})),
            ],
        );
        assert!(read(&Qwen2Moe, &without(&small(), "num_experts")).is_err());
    }
}
