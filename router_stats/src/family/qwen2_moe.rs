//! Qwen2-MoE (Qwen1.5-MoE-A2.7B, Qwen2-57B-A14B).
//!
//! Softmax over all experts, then top-k, usually without renormalisation.
//! Every token also passes through a shared expert whose output has a gate of
//! its own. Queries, keys and values have biases.
//!
//! Source: `Qwen2MoeForCausalLM` in Hugging Face transformers.

use serde_json::Value;

use super::names::COMMON;
use super::{
    qwen3_moe, rewrite, rope, router, AttentionSpec, Config, Family, GroupedQuery, Keep, MoeSpec,
    Names, NormSpec, RouterRule, Serving, SharedExperts, Topology,
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

    fn topology(&self, config: &Config) -> Result<Topology> {
        config.require_one_of("hidden_act", &["silu"])?;
        // Which layers slide has changed between versions of transformers.
        if config.flag_or("use_sliding_window", false)? {
            return Err(config.error("use_sliding_window", "false"));
        }
        let hidden = config.count("hidden_size")?;
        let query = GroupedQuery {
            qkv_bias: config.flag_or("qkv_bias", true)?,
            ..super::config::grouped_query(config, hidden)?
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
        rewrite::counts(config, "num_experts", topology, keep);
        rewrite::keep_layer_entries(config, "layer_types", &keep.layers);
        rewrite::listed_dense_layers(config, topology, keep);
    }
}
