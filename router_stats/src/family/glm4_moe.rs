//! GLM-4-MoE (GLM-4.5, GLM-4.5-Air, GLM-4.6).
//!
//! Grouped-query attention of which a part of each head turns, with norms over
//! queries and keys in the larger models. Routing is that of DeepSeek-V3,
//! without groups in the published models. The first layers are dense.
//!
//! The engine turns adjacent dimensions where the model turns halves, so its
//! copy has the rows of queries and keys reordered and says `rope_interleave`.
//!
//! Source: `Glm4MoeForCausalLM` in Hugging Face transformers.

use serde_json::Value;

use super::deepseek_v2::{leading_dense, prediction_layers};
use super::deepseek_v3::NAMES;
use super::{
    rewrite, rope, router, AttentionSpec, Config, EngineLayout, Family, GroupedQuery, Keep, Names,
    NormSpec, Pairs, QkNorm, Serving, Topology,
};
use crate::Result;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Glm4Moe;

/// Key in the engine's copy; no other tool reads it.
const INTERLEAVED: &str = "rope_interleave";

impl Family for Glm4Moe {
    fn model_type(&self) -> &'static str {
        "glm4_moe"
    }

    fn architectures(&self) -> &'static [&'static str] {
        &["Glm4MoeForCausalLM"]
    }

    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn serving(&self, topology: &Topology) -> Serving {
        let wide = |layer| {
            let moe = topology.moe(layer)?;
            moe.shared
                .is_some_and(|shared| shared.intermediate != moe.intermediate)
                .then_some(())
        };
        if (0..topology.layers()).any(|layer| wide(layer).is_some()) {
            return Serving::No("mistral.rs 0.8.1 reads one shared expert only");
        }
        Serving::Text(EngineLayout {
            stacked: true,
            pairs: Some(Pairs::Adjacent),
            ..EngineLayout::default()
        })
    }

    fn topology(&self, config: &Config) -> Result<Topology> {
        config.require_one_of("hidden_act", &["silu"])?;
        let layers = config.layers()?;
        let hidden = config.count("hidden_size")?;
        let query = GroupedQuery {
            qk_norm: config
                .flag_or("use_qk_norm", false)?
                .then_some(QkNorm::Head),
            qkv_bias: config.flag_or("attention_bias", false)?,
            ..super::config::grouped_query(config, hidden)?
        };
        let turning = (rope::partial(config, 0.5)? * query.head_dim as f64) as usize;
        if turning == 0 || !turning.is_multiple_of(2) {
            let expected = format!("an even part of {} dimensions", query.head_dim);
            return Err(config.error("partial_rotary_factor", &expected));
        }
        let mut rotary = rope::plain(config, turning, 10_000.0)?;
        if config.flag_or(INTERLEAVED, false)? {
            rotary.pairs = Pairs::Adjacent;
        }
        let rule = router::biased_sigmoid(config, config.count("n_routed_experts")?)?;
        let dense = config.natural_or("first_k_dense_replace", 1)?;
        Ok(Topology {
            hidden,
            vocab: config.count("vocab_size")?,
            max_positions: config.count_or("max_position_embeddings", 131_072)?,
            norm: NormSpec::rms(config.positive_or("rms_norm_eps", 1e-5)?),
            tied_head: config.flag_or("tie_word_embeddings", false)?,
            head_bias: false,
            attention: AttentionSpec::grouped(query, rotary, vec![None; layers]),
            mlps: leading_dense(config, rule, layers, dense)?,
            prediction_layers: prediction_layers(config)?,
        })
    }

    fn rewrite_config(&self, config: &mut Value, topology: &Topology, keep: &Keep) {
        rewrite::deepseek(config, topology, keep);
    }

    fn spell_for_engine(&self, config: &mut Value, topology: &Topology) {
        rope::flatten(config);
        let dense = (0..topology.layers()).filter(|&layer| topology.moe(layer).is_none());
        config["first_k_dense_replace"] = dense.count().into();
        config["partial_rotary_factor"] = rope_fraction(topology).into();
        if config.get("rope_theta").is_none_or(Value::is_null) {
            config["rope_theta"] = topology.attention.rotary.theta.into();
        }
        config[INTERLEAVED] = true.into();
    }

    fn spell_for_others(&self, config: &mut Value) {
        if let Some(config) = config.as_object_mut() {
            config.remove(INTERLEAVED);
        }
    }
}

/// The fraction of a head that turns.
fn rope_fraction(topology: &Topology) -> f64 {
    match &topology.attention.projections {
        super::Projections::Grouped(query) => {
            topology.attention.rotary.dim as f64 / query.head_dim as f64
        }
        super::Projections::Latent(_) => 1.0,
    }
}
