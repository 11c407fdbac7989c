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

use super::names::COMMON;
use super::{
    latent, rewrite, rope, router, Config, EngineLayout, Family, GroupScore, Keep, MlpSpec,
    MoeSpec, Names, NormSpec, RouterRule, Scoring, Serving, SharedExperts, Topology,
};
use crate::Result;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct DeepSeekV2;

static NAMES: Names = Names {
    shared: Some("mlp.shared_experts."),
    ..COMMON
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
        let grouped = |layer| {
            let moe = topology.moe(layer)?;
            moe.router.groups
        };
        if (0..topology.layers()).any(|layer| grouped(layer).is_some()) {
            return Serving::No(
                "mistral.rs 0.8.1 gives every expert of a group-limited router the gate value 0",
            );
        }
        Serving::Text(EngineLayout {
            stacked: true,
            ..EngineLayout::default()
        })
    }

    fn topology(&self, config: &Config) -> Result<Topology> {
        config.require_one_of("scoring_func", &["softmax"])?;
        config.require_one_of("topk_method", &["greedy", "group_limited_greedy"])?;
        if config.flag_or("norm_topk_prob", false)? {
            return Err(config.error("norm_topk_prob", "false"));
        }
        let grouped = config.value().get("topk_method") == Some(&"group_limited_greedy".into());
        let experts = config.count("n_routed_experts")?;
        let rule = RouterRule {
            top_k: config.count("num_experts_per_tok")?,
            scoring: Scoring::Softmax,
            correction_bias: false,
            groups: match grouped {
                true => router::groups(config, experts, GroupScore::Best)?,
                false => None,
            },
            renormalize: false,
            scale: config.positive_or("routed_scaling_factor", 1.0)?,
        };
        latent_moe(config, rule, config.natural_or("first_k_dense_replace", 0)?)
    }

    fn rewrite_config(&self, config: &mut Value, topology: &Topology, keep: &Keep) {
        rewrite::deepseek(config, topology, keep);
    }

    fn spell_for_engine(&self, config: &mut Value, topology: &Topology) {
        spell_for_engine(config, topology);
        config["norm_topk_prob"] = false.into();
    }
}

/// What DeepSeek-V2 and V3 have in common: everything but the routing rule.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config)
pub(super) fn latent_moe(config: &Config, rule: RouterRule, dense: usize) -> Result<Topology> {
    config.require_one_of("hidden_act", &["silu"])?;
    if config.count_or("moe_layer_freq", 1)? != 1 {
        return Err(config.error("moe_layer_freq", "1"));
    }
    if config.flag_or("mlp_bias", false)? {
        return Err(config.error("mlp_bias", "false"));
    }
    let layers = config.layers()?;
    let mlps = leading_dense(config, rule, layers, dense)?;
    Ok(Topology {
        hidden: config.count("hidden_size")?,
        vocab: config.count("vocab_size")?,
        max_positions: config.count_or("max_position_embeddings", 2048)?,
        norm: NormSpec::rms(config.positive_or("rms_norm_eps", 1e-6)?),
        tied_head: config.flag_or("tie_word_embeddings", false)?,
        head_bias: false,
        attention: latent::attention(config, layers, 10_000.0)?,
        mlps,
        prediction_layers: prediction_layers(config)?,
    })
}

/// `dense` dense layers, then layers of experts and shared experts.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config)
pub(super) fn leading_dense(
    config: &Config,
    rule: RouterRule,
    layers: usize,
    dense: usize,
) -> Result<Vec<MlpSpec>> {
    let intermediate = config.count("moe_intermediate_size")?;
    let shared = config.natural_or("n_shared_experts", 0)?;
    let moe = MoeSpec {
        experts: config.count("n_routed_experts")?,
        intermediate,
        router: rule,
        shared: (shared > 0).then_some(SharedExperts {
            intermediate: intermediate * shared,
            gated: false,
        }),
    };
    router::check_top_k(config, &moe)?;
    let mut mlps = vec![MlpSpec::Moe(moe); layers];
    for mlp in mlps.iter_mut().take(dense) {
        *mlp = MlpSpec::Dense {
            intermediate: config.count("intermediate_size")?,
        };
    }
    Ok(mlps)
}

/// Multi-token-prediction blocks after the last layer.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config)
pub(super) fn prediction_layers(config: &Config) -> Result<usize> {
    config.natural_or("num_nextn_predict_layers", 0)
}

/// Flat rotary fields, and those that the engine requires.
pub(super) fn spell_for_engine(config: &mut Value, topology: &Topology) {
    rope::flatten(config);
    rope::spell_yarn(config, &topology.attention);
    let dense = (0..topology.layers()).filter(|&layer| topology.moe(layer).is_none());
    config["first_k_dense_replace"] = dense.count().into();
    for (field, default) in [
        ("attention_bias", Value::from(false)),
        ("n_group", 1.into()),
        ("topk_group", 1.into()),
        ("rope_theta", 10_000.0.into()),
    ] {
        if config.get(field).is_none_or(Value::is_null) {
            config[field] = default;
        }
    }
}
