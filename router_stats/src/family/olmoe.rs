//! OLMoE (OLMoE-1B-7B).
//!
//! Softmax over all experts, then top-k without renormalisation. Queries and
//! keys are RMS-normalised over all heads together and may be clipped.
//!
//! Source: `OlmoeForCausalLM` in Hugging Face transformers;
//! OLMoE (arXiv 2409.02060).

use serde_json::Value;

use super::names::COMMON;
use super::{
    rewrite, rope, router, AttentionSpec, Config, Family, GroupedQuery, Keep, MlpSpec, MoeSpec,
    Names, NormSpec, QkNorm, RouterRule, Serving, Topology,
};
use crate::Result;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Olmoe;

impl Family for Olmoe {
    fn model_type(&self) -> &'static str {
        "olmoe"
    }

    fn architectures(&self) -> &'static [&'static str] {
        &["OlmoeForCausalLM"]
    }

    fn names(&self) -> &'static Names {
        &COMMON
    }

    fn serving(&self, _topology: &Topology) -> Serving {
        Serving::No("mistral.rs 0.8.1 has no loader for OlmoeForCausalLM")
    }

    fn topology(&self, config: &Config) -> Result<Topology> {
        config.require_one_of("hidden_act", &["silu"])?;
        let layers = config.layers()?;
        let hidden = config.count("hidden_size")?;
        let bias = config.flag_or("attention_bias", false)?;
        let query = GroupedQuery {
            qk_norm: Some(QkNorm::Whole),
            clip: match config.has("clip_qkv") {
                true => Some(config.positive("clip_qkv")?),
                false => None,
            },
            qkv_bias: bias,
            o_bias: bias,
            ..super::config::grouped_query(config, hidden)?
        };
        let moe = MoeSpec {
            experts: config.count("num_experts")?,
            intermediate: config.count("intermediate_size")?,
            router: RouterRule::softmax(
                config.count("num_experts_per_tok")?,
                config.flag_or("norm_topk_prob", false)?,
            ),
            shared: None,
        };
        router::check_top_k(config, &moe)?;
        let rotary = rope::plain(config, query.head_dim, 10_000.0)?;
        Ok(Topology {
            hidden,
            vocab: config.count("vocab_size")?,
            max_positions: config.count_or("max_position_embeddings", 4096)?,
            norm: NormSpec::rms(config.positive_or("rms_norm_eps", 1e-5)?),
            tied_head: config.flag_or("tie_word_embeddings", false)?,
            head_bias: false,
            attention: AttentionSpec::grouped(query, rotary, vec![None; layers]),
            mlps: vec![MlpSpec::Moe(moe); layers],
            prediction_layers: 0,
        })
    }

    fn rewrite_config(&self, config: &mut Value, topology: &Topology, keep: &Keep) {
        rewrite::counts(config, "num_experts", topology, keep);
    }
}
