//! DeepSeek-V3 (V3, R1) and Kimi-K2.
//!
//! Multi-head latent attention. Experts are chosen by a sigmoid score plus a
//! bias, among the groups whose two best are best; the gate value is the score
//! without the bias, renormalised and scaled. Every token also passes through
//! a shared expert. The first layers are dense.
//!
//! Source: `DeepseekV3ForCausalLM` in Hugging Face transformers;
//! DeepSeek-V3 (arXiv 2412.19437).

use serde_json::Value;

use super::deepseek::{self, Defaults};
use super::names::COMMON;
use super::{rewrite, router, spell, stand_in, Config, Family, Keep, Names, Serving, Topology};
use crate::Result;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct DeepSeekV3;

/// Shared with GLM-4-MoE and GLM-4-MoE-Lite.
pub(super) static NAMES: Names = Names {
    router_bias: Some("mlp.gate.e_score_correction_bias"),
    shared: Some("mlp.shared_experts."),
    ..COMMON
};

const DEFAULTS: Defaults = Defaults {
    positions: 4096,
    eps: 1e-6,
    dense: 3,
};

impl Family for DeepSeekV3 {
    fn model_type(&self) -> &'static str {
        "deepseek_v3"
    }

    fn architectures(&self) -> &'static [&'static str] {
        &["DeepseekV3ForCausalLM"]
    }

    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn serving(&self, topology: &Topology) -> Serving {
        if topology.moes().any(|moe| !moe.router.renormalize) {
            return Serving::No("mistral.rs 0.8.1 always renormalises the gate values");
        }
        deepseek::serving(topology)
    }

    fn topology(&self, config: &Config) -> Result<Topology> {
        let rule = router::biased_sigmoid(config, (8, 4), 2.5)?;
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
        spell::shared_experts(config, topology);
        // Its defaults are those of DeepSeek-V2.
        config["scoring_func"] = "sigmoid".into();
        config["topk_method"] = "noaux_tc".into();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::family::tests::{read, refusal, refuses, with};
    use crate::family::{GroupScore, Groups, Keep, Pairs, Scoring};

    fn small() -> Value {
        json!({
            "model_type": "deepseek_v3", "hidden_size": 32, "vocab_size": 64,
            "num_hidden_layers": 5, "num_attention_heads": 4, "q_lora_rank": 24,
            "kv_lora_rank": 16, "qk_nope_head_dim": 12, "qk_rope_head_dim": 4, "v_head_dim": 10,
            "intermediate_size": 40, "moe_intermediate_size": 8, "n_routed_experts": 32,
            "n_shared_experts": 1, "num_experts_per_tok": 3, "num_nextn_predict_layers": 1
        })
    }

    #[test]
    fn reads_structure_and_defaults() {
        let topology = read(&DeepSeekV3, &small()).unwrap();
        assert_eq!(topology.experts(), [0, 0, 0, 32, 32]);
        assert_eq!((topology.max_positions, topology.norm.eps), (4096, 1e-6));
        assert!(topology.predicts(5) && !topology.predicts(4) && !topology.predicts(6));
        let router = &topology.moe(3).unwrap().router;
        assert_eq!(router.scoring, Scoring::Sigmoid);
        assert!(router.correction_bias && router.renormalize);
        let groups = Groups {
            count: 8,
            chosen: 4,
            score: GroupScore::BestTwo,
        };
        assert_eq!((router.groups, router.scale), (Some(groups), 2.5));
    }

    #[test]
    fn what_the_engine_would_take_for_granted_is_said() {
        let topology = read(&DeepSeekV3, &small()).unwrap();
        let mut spelled = small();
        DeepSeekV3.spell_for_engine(&mut spelled, &topology);
        for (field, value) in [
            ("scoring_func", json!("sigmoid")),
            ("topk_method", json!("noaux_tc")),
            ("first_k_dense_replace", json!(3)),
            ("n_group", json!(8)),
            ("topk_group", json!(4)),
            ("routed_scaling_factor", json!(2.5)),
        ] {
            assert_eq!(spelled[field], value, "{field}");
        }
    }

    #[test]
    fn open_groups_do_not_bind_the_number_of_experts() {
        let value = with(&small(), &[("topk_group", json!(8))]);
        let topology = read(&DeepSeekV3, &value).unwrap();
        let mut keep = Keep::all(&topology);
        keep.experts.iter_mut().for_each(|kept| kept.truncate(13));
        let mut rewritten = value;
        DeepSeekV3.rewrite_config(&mut rewritten, &topology, &keep);
        let after = read(&DeepSeekV3, &rewritten).unwrap();
        assert_eq!(after.experts(), [0, 0, 0, 13, 13]);
        assert_eq!(
            after.moe(3).unwrap().router,
            topology.moe(3).unwrap().router
        );
    }

    #[test]
    fn what_the_engine_does_not_compute_is_refused() {
        let refused = |field, change| refusal(&DeepSeekV3, &with(&small(), &[(field, change)]));
        assert_eq!(refused("attention_bias", json!(true)), "");
        assert!(refused("norm_topk_prob", json!(false)).contains("renormalises"));
        assert!(refused("rope_interleave", json!(false)).contains("adjacent"));
        assert!(refused("v_head_dim", json!(17)).contains("wider than queries"));
        let halves = with(&small(), &[("rope_interleave", json!(false))]);
        let topology = read(&DeepSeekV3, &halves).unwrap();
        assert_eq!(topology.attention.rotary.pairs, Pairs::Halves);
    }

    #[test]
    fn unusable_fields_are_named() {
        refuses(
            &DeepSeekV3,
            &small(),
            &[
                ("scoring_func", json!("softmax")),
                ("topk_method", json!("greedy")),
                ("n_group", json!(32)),
                ("topk_group", json!(9)),
                ("num_experts_per_tok", json!(17)),
                ("n_routed_experts", json!(0)),
                ("num_nextn_predict_layers", json!("one")),
                ("routed_scaling_factor", json!(0)),
            ],
        );
    }
}
