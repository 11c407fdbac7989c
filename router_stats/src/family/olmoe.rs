//! OLMoE (OLMoE-1B-7B).
//!
//! Softmax over all experts, then top-k without renormalisation. Queries and
//! keys are RMS-normalised over all heads together and may be clipped.
//!
//! Source: `OlmoeForCausalLM` in Hugging Face transformers;
//! OLMoE (arXiv 2409.02060).

use serde_json::{json, Value};

use super::gguf::{self, Gguf};
use super::names::COMMON;
use super::{
    grouped, rewrite, rope, router, AttentionSpec, Config, Family, GroupedQuery, Keep, MlpSpec,
    MoeSpec, Names, NormSpec, Pairs, Projections, QkNorm, RouterRule, Serving, Topology,
};
use crate::Result;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Olmoe;

/// llama.cpp clips nothing, has as many key-value heads as heads, and gate values
/// that are never renormalised.
static GGUF: Gguf = Gguf {
    architecture: "olmoe",
    modules: &[gguf::ATTENTION, gguf::QK_NORMS, gguf::NORMS],
    pairs: Pairs::Halves,
    refuses: |topology| {
        if let Projections::Grouped(query) = &topology.attention.projections {
            if query.clip.is_some() {
                return Some("llama.cpp clips no queries, keys and values of this family");
            }
            if query.heads != query.kv_heads {
                return Some("llama.cpp reads as many key-value heads as heads of this family");
            }
        }
        if grouped::biased(topology) {
            return Some("llama.cpp reads no attention biases for this family");
        }
        gguf::plain_softmax(topology)
            .or_else(|| gguf::shared_heads(topology))
            .or_else(|| gguf::plain_attention(topology))
    },
    keys: |topology| gguf::grouped_keys("olmoe", topology),
    read: |metadata, _| {
        let mut config = gguf::grouped_config("olmoe", metadata)?;
        config["architectures"] = json!(["OlmoeForCausalLM"]);
        config["model_type"] = json!("olmoe");
        config["intermediate_size"] = json!(metadata.count("olmoe.feed_forward_length")?);
        config["norm_topk_prob"] = json!(false);
        gguf::expert_keys("olmoe", "num_experts", metadata, &mut config)?;
        Ok(config)
    },
};

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

    fn gguf(&self) -> Option<&'static Gguf> {
        Some(&GGUF)
    }

    fn topology(&self, config: &Config) -> Result<Topology> {
        config.require_one_of("hidden_act", &["silu"])?;
        // transformers obeys it with some implementations of attention only.
        if config.has("sliding_window") {
            return Err(config.error("sliding_window", "null"));
        }
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
            ..grouped::query(config, hidden)?
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
        rewrite::counts(config, &["num_experts"], topology, keep);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::tests::{read, refuses, with};
    use crate::family::{Projections, RotarySpec};

    fn small() -> Value {
        json!({
            "model_type": "olmoe", "hidden_size": 32, "vocab_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": null, "num_experts": 6,
            "num_experts_per_tok": 2, "intermediate_size": 8, "clip_qkv": null
        })
    }

    #[test]
    fn reads_structure_and_defaults() {
        let topology = read(&Olmoe, &small()).unwrap();
        let query = GroupedQuery {
            qk_norm: Some(QkNorm::Whole),
            ..GroupedQuery::plain(4, 4, 8)
        };
        let rotary = RotarySpec::plain(8, 1e4);
        assert_eq!(
            topology.attention,
            AttentionSpec::grouped(query, rotary, vec![None; 2])
        );
        let moe = MoeSpec {
            experts: 6,
            intermediate: 8,
            router: RouterRule::softmax(2, false),
            shared: None,
        };
        assert_eq!(topology.mlps, vec![MlpSpec::Moe(moe); 2]);
        assert_eq!(topology.norm, NormSpec::rms(1e-5));
        assert_eq!(topology.max_positions, 4096);
    }

    #[test]
    fn clipping_and_biases_are_said() {
        let changes = [("clip_qkv", json!(8)), ("attention_bias", json!(true))];
        let topology = read(&Olmoe, &with(&small(), &changes)).unwrap();
        match topology.attention.projections {
            Projections::Grouped(query) => {
                assert_eq!(query.clip, Some(8.0));
                assert!(query.qkv_bias && query.o_bias);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn unusable_fields_are_named() {
        refuses(
            &Olmoe,
            &small(),
            &[
                ("clip_qkv", json!(-8.0)),
                ("sliding_window", json!(16)),
                ("num_experts_per_tok", json!(7)),
                ("hidden_act", json!("gelu")),
                ("num_key_value_heads", json!(3)),
                ("rope_scaling", json!({"type": "linear", "factor": 4.0})),
            ],
        );
    }
}
