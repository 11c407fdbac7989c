//! The text part of Qwen3-VL-MoE (Qwen3-VL-30B-A3B, Qwen3-VL-235B-A22B).
//!
//! Qwen3-MoE under `text_config`, with experts stacked and gate values always
//! renormalised. Text alone has the same position in time, height and width,
//! so its rotary positions are plain. The vision tower is carried over
//! untouched.
//!
//! Source: `Qwen3VLMoeForConditionalGeneration` in Hugging Face transformers.

use serde_json::Value;

use super::names::COMMON;
use super::qwen3_moe::Qwen3Moe;
use super::{rope, Config, EngineLayout, Family, Keep, MlpSpec, Names, Serving, Topology};
use crate::Result;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Qwen3VlMoe;

static NAMES: Names = Names {
    embedding: "model.language_model.embed_tokens.weight",
    final_norm: "model.language_model.norm.weight",
    layers: "model.language_model.layers.",
    ..COMMON
};

const TEXT: &str = "text_config";

impl Family for Qwen3VlMoe {
    fn model_type(&self) -> &'static str {
        "qwen3_vl_moe"
    }

    fn architectures(&self) -> &'static [&'static str] {
        &["Qwen3VLMoeForConditionalGeneration"]
    }

    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn stacks_experts(&self) -> bool {
        true
    }

    fn serving(&self, _topology: &Topology) -> Serving {
        Serving::Multimodal(EngineLayout {
            stacked: true,
            ..EngineLayout::default()
        })
    }

    fn topology(&self, config: &Config) -> Result<Topology> {
        let mut topology = Qwen3Moe.topology(&config.section(TEXT)?)?;
        topology.tied_head = config.flag_or("tie_word_embeddings", false)?;
        for mlp in &mut topology.mlps {
            if let MlpSpec::Moe(moe) = mlp {
                moe.router.renormalize = true;
            }
        }
        Ok(topology)
    }

    fn rewrite_config(&self, config: &mut Value, topology: &Topology, keep: &Keep) {
        Qwen3Moe.rewrite_config(&mut config[TEXT], topology, keep);
    }

    fn spell_for_engine(&self, config: &mut Value, topology: &Topology) {
        rope::flatten(&mut config[TEXT]);
        config[TEXT]["norm_topk_prob"] = true.into();
        config["tie_word_embeddings"] = topology.tied_head.into();
    }
}
