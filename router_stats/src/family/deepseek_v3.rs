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

use super::deepseek_v2::{latent_moe, spell_for_engine};
use super::names::COMMON;
use super::{rewrite, router, Config, EngineLayout, Family, Keep, Names, Serving, Topology};
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
        let plain = |layer| {
            let moe = topology.moe(layer)?;
            (!moe.router.renormalize).then_some(())
        };
        if (0..topology.layers()).any(|layer| plain(layer).is_some()) {
            return Serving::No("mistral.rs 0.8.1 always renormalises the gate values");
        }
        Serving::Text(EngineLayout {
            stacked: true,
            ..EngineLayout::default()
        })
    }

    fn topology(&self, config: &Config) -> Result<Topology> {
        let rule = router::biased_sigmoid(config, config.count("n_routed_experts")?)?;
        latent_moe(config, rule, config.natural_or("first_k_dense_replace", 3)?)
    }

    fn rewrite_config(&self, config: &mut Value, topology: &Topology, keep: &Keep) {
        rewrite::deepseek(config, topology, keep);
    }

    fn spell_for_engine(&self, config: &mut Value, topology: &Topology) {
        spell_for_engine(config, topology);
        // Its defaults are those of DeepSeek-V2.
        config["scoring_func"] = "sigmoid".into();
        config["topk_method"] = "noaux_tc".into();
    }
}
