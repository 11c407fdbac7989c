//! DeepSeek-V2 (V2, V2-Lite, Coder-V2).
//!
//! Multi-head latent attention. Softmax over all experts, then top-k, among
//! the best groups only where `topk_method` says so; gate values are not
//! renormalised but scaled. Every token also passes through shared experts.
//! The first layers are dense.
//!
//! Source: `DeepseekV2ForCausalLM` in Hugging Face transformers;
//! DeepSeek-V2 (arXiv 2405.04434).

use serde_json::Value;

use super::deepseek::{self, Defaults};
use super::names::COMMON;
use super::{
    rewrite, router, spell, stand_in, Config, Family, GroupScore, Keep, Names, RouterRule, Scoring,
    Serving, Topology,
};
use crate::Result;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct DeepSeekV2;

static NAMES: Names = Names {
    shared: Some("mlp.shared_experts."),
    ..COMMON
};

const DEFAULTS: Defaults = Defaults {
    positions: 2048,
    eps: 1e-6,
    dense: 0,
};

impl Family for DeepSeekV2 {
    fn model_type(&self) -> &'static str {
        "deepseek_v2"
    }

    fn architectures(&self) -> &'static [&'static str] {
        &["DeepseekV2ForCausalLM"]
    }

    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn serving(&self, topology: &Topology) -> Serving {
        if topology.moes().any(|moe| moe.router.groups.is_some()) {
            return Serving::No(
                "mistral.rs 0.8.1 gives every expert of a group-limited router the gate value 0",
            );
        }
        deepseek::serving(topology)
    }

    fn topology(&self, config: &Config) -> Result<Topology> {
        config.require_one_of("scoring_func", &["softmax"])?;
        config.require_one_of("topk_method", &["greedy", "group_limited_greedy"])?;
        if config.flag_or("norm_topk_prob", false)? {
            return Err(config.error("norm_topk_prob", "false"));
        }
        // transformers turns adjacent dimensions whatever this says.
        if !config.flag_or("rope_interleave", true)? {
            return Err(config.error("rope_interleave", "true"));
        }
        let grouped = config.value().get("topk_method") == Some(&"group_limited_greedy".into());
        let experts = config.count("n_routed_experts")?;
        let rule = RouterRule {
            top_k: config.count("num_experts_per_tok")?,
            scoring: Scoring::Softmax,
            correction_bias: false,
            groups: match grouped {
                true => router::groups(config, experts, GroupScore::Best, (1, 1))?,
                false => None,
            },
            renormalize: false,
            scale: config.positive_or("routed_scaling_factor", 1.0)?,
        };
        let dense = config.natural_or("first_k_dense_replace", DEFAULTS.dense)?;
        deepseek::latent_moe(config, rule, dense, &DEFAULTS)
    }

    fn rewrite_config(&self, config: &mut Value, topology: &Topology, keep: &Keep) {
        rewrite::deepseek(config, topology, keep);
    }

    fn stand_in(
        &self,
        topology: &Topology,
        keep: &Keep,
    ) -> std::result::Result<usize, &'static str> {
        stand_in::leading(topology, keep)
    }

    fn spell_for_engine(&self, config: &mut Value, topology: &Topology) {
        spell::deepseek(config, topology);
        // Groups that are all open are no groups, and as such are computed.
        if topology.moes().all(|moe| moe.router.groups.is_none()) {
            config["topk_method"] = "greedy".into();
        }
        spell::shared_experts(config, topology);
        spell::default(config, "norm_topk_prob", false);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::family::tests::{read, refusal, refuses, with, without};
    use crate::family::{Groups, NormSpec};

    fn small() -> Value {
        json!({
            "model_type": "deepseek_v2", "hidden_size": 32, "vocab_size": 64,
            "num_hidden_layers": 3, "num_attention_heads": 4, "q_lora_rank": null,
            "kv_lora_rank": 16, "qk_nope_head_dim": 12, "qk_rope_head_dim": 4, "v_head_dim": 10,
            "intermediate_size": 40, "moe_intermediate_size": 8, "n_routed_experts": 12,
            "n_shared_experts": 2, "num_experts_per_tok": 3, "n_group": 3, "topk_group": 2
        })
    }

    #[test]
    fn reads_structure_and_defaults() {
        let topology = read(&DeepSeekV2, &small()).unwrap();
        assert_eq!(topology.experts(), [12; 3]);
        assert_eq!(topology.norm, NormSpec::rms(1e-6));
        assert_eq!(topology.max_positions, 2048);
        let moe = topology.moe(0).unwrap();
        assert_eq!(moe.shared.unwrap().intermediate, 16);
        // Greedy, so that groups mean nothing.
        assert_eq!(moe.router, RouterRule::softmax(3, false));
    }

    #[test]
    fn groups_count_where_the_method_is_grouped() {
        let changes = [
            ("topk_method", json!("group_limited_greedy")),
            ("first_k_dense_replace", json!(1)),
            ("routed_scaling_factor", json!(16.0)),
        ];
        let value = with(&small(), &changes);
        let topology = read(&DeepSeekV2, &value).unwrap();
        assert_eq!(topology.experts(), [0, 12, 12]);
        let router = &topology.moe(1).unwrap().router;
        let expected = Groups {
            count: 3,
            chosen: 2,
            score: GroupScore::Best,
        };
        assert_eq!((router.groups, router.scale), (Some(expected), 16.0));
        assert!(refusal(&DeepSeekV2, &value).contains("group-limited"));
        // Groups that are all open are greedy to the engine.
        let open = with(&value, &[("topk_group", json!(3))]);
        let topology = read(&DeepSeekV2, &open).unwrap();
        assert_eq!(refusal(&DeepSeekV2, &open), "");
        let mut spelled = open;
        DeepSeekV2.spell_for_engine(&mut spelled, &topology);
        assert_eq!(spelled["topk_method"], "greedy");
        assert_eq!(read(&DeepSeekV2, &spelled).unwrap(), topology);
    }

    #[test]
    fn no_shared_experts_are_said_as_null_to_the_engine() {
        let value = with(&small(), &[("n_shared_experts", json!(0))]);
        let topology = read(&DeepSeekV2, &value).unwrap();
        assert_eq!(topology.moe(0).unwrap().shared, None);
        let mut spelled = value;
        DeepSeekV2.spell_for_engine(&mut spelled, &topology);
        assert_eq!(spelled["n_shared_experts"], Value::Null);
        assert_eq!(read(&DeepSeekV2, &spelled).unwrap(), topology);
    }

    #[test]
    fn more_dense_layers_than_there_are_make_all_dense() {
        let value = with(&small(), &[("first_k_dense_replace", json!(99))]);
        assert_eq!(read(&DeepSeekV2, &value).unwrap().experts(), [0; 3]);
    }

    #[test]
    fn unusable_fields_are_named() {
        refuses(
            &DeepSeekV2,
            &with(&small(), &[("topk_method", json!("group_limited_greedy"))]),
            &[
                ("norm_topk_prob", json!(true)),
                ("scoring_func", json!("sigmoid")),
                ("topk_method", json!("noaux_tc")),
                ("rope_interleave", json!(false)),
                ("mlp_bias", json!(true)),
                ("moe_layer_freq", json!(2)),
                ("n_group", json!(5)),
                ("topk_group", json!(4)),
                ("num_experts_per_tok", json!(9)),
                ("hidden_act", json!("gelu")),
                ("rope_scaling", json!({"type": "linear", "factor": 4.0})),
            ],
        );
        for field in ["n_shared_experts", "q_lora_rank"] {
            assert!(read(&DeepSeekV2, &without(&small(), field)).is_err());
        }
    }
}
