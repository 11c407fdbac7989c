//! The text part of Qwen3-VL-MoE (Qwen3-VL-30B-A3B, Qwen3-VL-235B-A22B).
//!
//! Qwen3-MoE under `text_config`, with experts stacked and gate values always
//! renormalised. Text alone has the same position in time, height and width,
//! so its rotary positions are plain. The vision tower is carried over
//! untouched.
//!
//! Source: `Qwen3VLMoeForConditionalGeneration` in Hugging Face transformers.

use serde_json::{json, Value};

use super::names::COMMON;
use super::qwen3_moe::{self, Qwen3Moe, EXPERTS};
use super::{
    spell, stand_in, Config, Family, Keep, MlpSpec, Names, Projections, Serving, Topology,
};
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

/// Pairs of dimensions that turn with time, height and width, by default.
const SECTIONS: [usize; 3] = [24, 20, 20];

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

    fn vision(&self) -> Option<&'static str> {
        Some("model.visual.")
    }

    fn stacks_experts(&self) -> bool {
        true
    }

    fn serving(&self, topology: &Topology) -> Serving {
        match Qwen3Moe.serving(topology) {
            Serving::Text(layout) => Serving::Multimodal(layout),
            other => other,
        }
    }

    fn topology(&self, config: &Config) -> Result<Topology> {
        let text = config.section(TEXT)?;
        // transformers ignores it in this family, and the engine does not.
        if text.flag_or("use_sliding_window", false)? {
            return Err(text.error("use_sliding_window", "false"));
        }
        let mut topology = qwen3_moe::read(&text, 500_000.0, 128_000)?;
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

    fn stand_in(
        &self,
        topology: &Topology,
        keep: &Keep,
    ) -> std::result::Result<usize, &'static str> {
        Ok(stand_in::anywhere(topology, keep))
    }

    fn spell_for_engine(&self, config: &mut Value, topology: &Topology) {
        let text = &mut config[TEXT];
        spell::common(text, topology);
        if let Some(moe) = topology.moes().next() {
            spell::default(text, EXPERTS[0], moe.experts);
        }
        text["norm_topk_prob"] = true.into();
        if let Projections::Grouped(query) = &topology.attention.projections {
            spell::default(text, "head_dim", query.head_dim);
            if query.head_dim == 2 * SECTIONS.iter().sum::<usize>() {
                spell::default(text, "rope_scaling", json!({"mrope_section": SECTIONS}));
            }
        }
        spell::default(config, "tie_word_embeddings", topology.tied_head);
        spell::default(config, "vision_start_token_id", 151_652);
        spell::default(config, "vision_end_token_id", 151_653);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::tests::{read, refusal};
    use crate::Error;

    fn small() -> Value {
        json!({
            "model_type": "qwen3_vl_moe", "vision_config": {"depth": 2},
            "text_config": {
                "hidden_size": 32, "vocab_size": 64, "num_hidden_layers": 3,
                "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
                "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 8,
                "intermediate_size": 40, "mlp_only_layers": [0], "norm_topk_prob": false,
                "tie_word_embeddings": true
            }
        })
    }

    #[test]
    fn the_text_part_is_qwen3_moe_with_other_defaults() {
        let topology = read(&Qwen3VlMoe, &small()).unwrap();
        assert_eq!(topology.experts(), [0, 6, 6]);
        assert!(topology.moes().all(|moe| moe.router.renormalize));
        // The head is tied by the field outside.
        assert!(!topology.tied_head);
        assert_eq!(topology.attention.rotary.theta, 500_000.0);
        assert_eq!(topology.max_positions, 128_000);
    }

    #[test]
    fn unusable_fields_are_named_with_their_section() {
        for (field, change) in [
            ("use_sliding_window", json!(true)),
            ("num_experts", json!(0)),
            ("rope_scaling", json!({"rope_type": "yarn"})),
        ] {
            let mut value = small();
            value[TEXT][field] = change;
            match read(&Qwen3VlMoe, &value) {
                Err(Error::Config { field: named, .. }) => {
                    assert_eq!(named, format!("text_config.{field}"));
                }
                other => panic!("{field}: {other:?}"),
            }
        }
        assert!(read(&Qwen3VlMoe, &json!({"text_config": []})).is_err());
    }

    #[test]
    fn the_engine_reads_no_biases() {
        let mut value = small();
        assert_eq!(refusal(&Qwen3VlMoe, &value), "");
        value[TEXT]["attention_bias"] = true.into();
        assert!(refusal(&Qwen3VlMoe, &value).contains("attention biases"));
    }

    #[test]
    fn the_engine_is_told_what_transformers_takes_for_granted() {
        let mut value = small();
        value[TEXT]["head_dim"] = 128.into();
        let topology = read(&Qwen3VlMoe, &value).unwrap();
        let mut spelled = value.clone();
        Qwen3VlMoe.spell_for_engine(&mut spelled, &topology);
        assert_eq!(spelled["tie_word_embeddings"], false);
        assert_eq!(spelled["vision_end_token_id"], 151_653);
        let text = &spelled[TEXT];
        assert_eq!(text["norm_topk_prob"], true);
        assert_eq!(text["rope_scaling"]["mrope_section"], json!([24, 20, 20]));
        assert_eq!(text["rope_theta"], 500_000.0);
        assert_eq!(spelled["vision_config"], value["vision_config"]);
    }
}
