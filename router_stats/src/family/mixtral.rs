//! Mixtral (8x7B, 8x22B).
//!
//! Softmax over all experts, top-k, renormalised; plain grouped-query
//! attention. Experts spell gate, down and up as `w1`, `w2` and `w3`.
//!
//! Source: `MixtralForCausalLM` in Hugging Face transformers.

use serde_json::{json, Value};

use super::gguf::{self, Gguf};
use super::names::COMMON;
use super::{
    grouped, rewrite, rope, router, AttentionSpec, Config, EngineLayout, Family, Keep, MlpSpec,
    MoeSpec, Names, NormSpec, Pairs, RouterRule, Serving, Topology, Uneven,
};
use crate::Result;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Mixtral;

/// Shared with Phi-3.5-MoE.
pub(super) static NAMES: Names = Names {
    router: "block_sparse_moe.gate.weight",
    experts: "block_sparse_moe.experts.",
    gate: "w1.weight",
    up: "w3.weight",
    down: "w2.weight",
    stacked_gate_up: "block_sparse_moe.experts.gate_up_proj",
    stacked_down: "block_sparse_moe.experts.down_proj",
    ..COMMON
};

/// llama.cpp's `llama`, whose heads turn in adjacent pairs. Without experts it is
/// another family.
static GGUF: Gguf = Gguf {
    architecture: "llama",
    modules: &[gguf::ATTENTION, gguf::NORMS],
    pairs: Pairs::Adjacent,
    refuses: gguf::plain_attention,
    keys: |topology| gguf::grouped_keys("llama", topology),
    read: |metadata, _| {
        let mut config = gguf::grouped_config("llama", metadata)?;
        config["architectures"] = json!(["MixtralForCausalLM"]);
        config["model_type"] = json!("mixtral");
        config["intermediate_size"] = json!(metadata.count("llama.feed_forward_length")?);
        gguf::expert_keys("llama", "num_local_experts", metadata, &mut config)?;
        Ok(config)
    },
};

impl Family for Mixtral {
    fn model_type(&self) -> &'static str {
        "mixtral"
    }

    fn architectures(&self) -> &'static [&'static str] {
        &["MixtralForCausalLM"]
    }

    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn serving(&self, topology: &Topology) -> Serving {
        match grouped::divides(topology) {
            true => Serving::Text(EngineLayout {
                uneven: Some(Uneven::Router),
                ..EngineLayout::default()
            }),
            false => Serving::No(grouped::UNREAD_HEAD_DIM),
        }
    }

    fn gguf(&self) -> Option<&'static Gguf> {
        Some(&GGUF)
    }

    fn topology(&self, config: &Config) -> Result<Topology> {
        config.require_one_of("hidden_act", &["silu"])?;
        let layers = config.layers()?;
        let hidden = config.count("hidden_size")?;
        let moe = MoeSpec {
            experts: config.count("num_local_experts")?,
            intermediate: config.count("intermediate_size")?,
            router: RouterRule::softmax(config.count_or("num_experts_per_tok", 2)?, true),
            shared: None,
        };
        router::check_top_k(config, &moe)?;
        let window = config.optional_count("sliding_window")?;
        let query = grouped::query(config, hidden)?;
        let rotary = rope::plain(config, query.head_dim, 1e6)?;
        Ok(Topology {
            hidden,
            vocab: config.count("vocab_size")?,
            max_positions: config.count_or("max_position_embeddings", 32_768)?,
            norm: NormSpec::rms(config.positive_or("rms_norm_eps", 1e-5)?),
            tied_head: config.flag_or("tie_word_embeddings", false)?,
            head_bias: false,
            attention: AttentionSpec::grouped(query, rotary, vec![window; layers]),
            prediction_layers: 0,
            mlps: vec![MlpSpec::Moe(moe); layers],
        })
    }

    fn rewrite_config(&self, config: &mut Value, topology: &Topology, keep: &Keep) {
        rewrite::counts(config, &["num_local_experts"], topology, keep);
        rewrite::keep_layer_entries(config, "layer_types", &keep.layers);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::tests::refuses;
    use crate::family::{GroupedQuery, RotarySpec};

    fn small() -> Value {
        json!({
            "architectures": ["MixtralForCausalLM"], "model_type": "mixtral",
            "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 96,
            "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
            "num_local_experts": 8, "num_experts_per_tok": 2, "vocab_size": 256,
            "sliding_window": null, "rope_theta": 1000000.0
        })
    }

    fn topology(value: &Value) -> Result<Topology> {
        Mixtral.topology(&Config::new("config.json", value.clone())?)
    }

    #[test]
    fn reads_structure_and_defaults() {
        let topology = topology(&small()).unwrap();
        assert_eq!(topology.experts(), [8, 8, 8]);
        assert_eq!(
            (topology.hidden, topology.vocab, topology.max_positions),
            (64, 256, 32_768)
        );
        assert_eq!(topology.norm, NormSpec::rms(1e-5));
        assert!(!topology.tied_head);
        let expected = AttentionSpec::grouped(
            GroupedQuery::plain(4, 2, 16),
            RotarySpec::plain(16, 1e6),
            vec![None; 3],
        );
        assert_eq!(topology.attention, expected);
        let moe = topology.moe(1).unwrap();
        assert_eq!(moe.intermediate, 96);
        assert_eq!(moe.router, RouterRule::softmax(2, true));
    }

    #[test]
    fn the_window_holds_for_every_layer() {
        let mut value = small();
        value["sliding_window"] = 128.into();
        assert_eq!(topology(&value).unwrap().attention.windows, [Some(128); 3]);
    }

    #[test]
    fn heads_of_another_width_are_not_served() {
        let mut value = small();
        assert!(Mixtral
            .serving(&topology(&value).unwrap())
            .layout()
            .is_some());
        value["head_dim"] = 32.into();
        assert!(Mixtral
            .serving(&topology(&value).unwrap())
            .layout()
            .is_none());
    }

    #[test]
    fn unusable_fields_are_named() {
        refuses(
            &Mixtral,
            &small(),
            &[
                ("sliding_window", json!(0)),
                ("num_experts_per_tok", json!(9)),
                ("num_local_experts", json!(null)),
                ("num_key_value_heads", json!(3)),
                ("rope_scaling", json!({"type": "linear", "factor": 2.0})),
            ],
        );
    }

    #[test]
    fn a_rewritten_configuration_describes_what_is_kept() {
        let mut config = small();
        let before = topology(&config).unwrap();
        let mut keep = Keep::all(&before);
        keep.layers = vec![0, 2];
        keep.experts.iter_mut().for_each(|kept| kept.truncate(4));
        Mixtral.rewrite_config(&mut config, &before, &keep);
        assert_eq!(topology(&config).unwrap().experts(), [4, 4]);
        let mut expected = small();
        expected["num_local_experts"] = 4.into();
        expected["num_hidden_layers"] = 2.into();
        assert_eq!(config, expected);
    }
}
