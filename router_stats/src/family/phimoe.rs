//! Phi-3.5-MoE.
//!
//! SparseMixer routing to two experts, layer norms with biases, biases on
//! attention and head, LongRoPE positions. Experts are spelled as Mixtral's.
//!
//! Source: `PhimoeForCausalLM` in Hugging Face transformers; SparseMixer-v2
//! (arXiv 2409.12136).

use serde_json::Value;

use super::mixtral::NAMES;
use super::{
    rewrite, rope, router, AttentionSpec, Config, EngineLayout, Family, GroupedQuery, Keep,
    MlpSpec, MoeSpec, Names, NormKind, NormSpec, RouterRule, Scaling, Scoring, Serving, Topology,
};
use crate::Result;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct PhiMoe;

/// Experts that SparseMixer is defined for.
const TOP_K: usize = 2;

impl Family for PhiMoe {
    fn model_type(&self) -> &'static str {
        "phimoe"
    }

    fn architectures(&self) -> &'static [&'static str] {
        // As on the hub, and as transformers writes it.
        &["PhiMoEForCausalLM", "PhimoeForCausalLM"]
    }

    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn serving(&self, topology: &Topology) -> Serving {
        if topology.tied_head {
            return Serving::No("mistral.rs 0.8.1 reads no tied head for this family");
        }
        if let Scaling::Long(long) = &topology.attention.rotary.scaling {
            if long.short_magnitude != long.long_magnitude {
                return Serving::No(
                    "mistral.rs 0.8.1 has one magnitude for short and long sequences",
                );
            }
        }
        Serving::Text(EngineLayout {
            caveat: Some(
                "mistral.rs 0.8.1 gives tokens whose second-best router logit is not positive \
                 other gate values than the model",
            ),
            ..EngineLayout::default()
        })
    }

    fn topology(&self, config: &Config) -> Result<Topology> {
        config.require_one_of("hidden_act", &["silu"])?;
        let layers = config.layers()?;
        let hidden = config.count("hidden_size")?;
        let bias = config.flag_or("attention_bias", false)?;
        let query = GroupedQuery {
            qkv_bias: bias,
            o_bias: bias,
            ..super::config::grouped_query(config, hidden)?
        };
        if config.count_or("num_experts_per_tok", TOP_K)? != TOP_K {
            return Err(config.error("num_experts_per_tok", "2"));
        }
        let moe = MoeSpec {
            experts: config.count("num_local_experts")?,
            intermediate: config.count("intermediate_size")?,
            router: RouterRule {
                scoring: Scoring::SparseMixer {
                    jitter: config.positive_or("router_jitter_noise", 0.01)?,
                },
                ..RouterRule::softmax(TOP_K, false)
            },
            shared: None,
        };
        router::check_top_k(config, &moe)?;
        let rotary = rope::long(config, query.head_dim, 1e6)?;
        let window = match config.has("sliding_window") {
            true => Some(config.count("sliding_window")?),
            false => None,
        };
        Ok(Topology {
            hidden,
            vocab: config.count("vocab_size")?,
            max_positions: config.count_or("max_position_embeddings", 131_072)?,
            norm: NormSpec {
                kind: NormKind::Layer,
                eps: config.positive_or("rms_norm_eps", 1e-5)?,
            },
            tied_head: config.flag_or("tie_word_embeddings", false)?,
            head_bias: config.flag_or("lm_head_bias", false)?,
            attention: AttentionSpec::grouped(query, rotary, vec![window; layers]),
            mlps: vec![MlpSpec::Moe(moe); layers],
            prediction_layers: 0,
        })
    }

    fn rewrite_config(&self, config: &mut Value, topology: &Topology, keep: &Keep) {
        rewrite::counts(config, "num_local_experts", topology, keep);
    }

    /// The engine computes the magnitude m of cosines and sines from the ratio
    /// of two fields, m = √(1 + ln(max/original)/ln(original)), and does not
    /// read it: the first is set so that m comes out.
    fn spell_for_engine(&self, config: &mut Value, topology: &Topology) {
        rope::flatten(config);
        config["architectures"] = vec!["PhiMoEForCausalLM"].into();
        for (field, default) in [
            ("attention_bias", Value::from(false)),
            ("lm_head_bias", false.into()),
            ("router_jitter_noise", 0.01.into()),
            (
                "original_max_position_embeddings",
                topology.max_positions.into(),
            ),
        ] {
            if config.get(field).is_none_or(Value::is_null) {
                config[field] = default;
            }
        }
        if let Some(scaling) = config
            .get_mut("rope_scaling")
            .and_then(Value::as_object_mut)
        {
            scaling.insert("type".to_owned(), "longrope".into());
        }
        if let Scaling::Long(long) = &topology.attention.rotary.scaling {
            let original = long.original as f64;
            let most = original * original.powf(long.short_magnitude.powi(2) - 1.0);
            config["max_position_embeddings"] = (most.round() as usize).into();
            config["original_max_position_embeddings"] = long.original.into();
        }
    }
}
