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
    grouped, rewrite, rope, router, spell, AttentionSpec, Config, EngineLayout, Family,
    GroupedQuery, Keep, LongRope, MlpSpec, MoeSpec, Names, NormKind, NormSpec, RouterRule, Scaling,
    Scoring, Serving, Topology,
};
use crate::Result;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct PhiMoe;

/// Experts that SparseMixer is defined for.
const TOP_K: usize = 2;

/// ε of SparseMixer where the configuration does not say.
const JITTER: f64 = 0.01;

const POSITIONS: &str = "max_position_embeddings";
const ORIGINAL_POSITIONS: &str = "original_max_position_embeddings";
/// Key in the engine's copy that keeps what [`POSITIONS`] was; no other tool
/// reads it.
const OWN_POSITIONS: &str = "own_max_position_embeddings";

/// Positions that the engine is given at most; it computes tables for all of
/// them before it answers.
const MAX_POSITIONS: f64 = 1_048_576.0;

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
        if !grouped::divides(topology) {
            return Serving::No(grouped::UNREAD_HEAD_DIM);
        }
        if let Scaling::Long(long) = &topology.attention.rotary.scaling {
            if long.short_magnitude != long.long_magnitude {
                return Serving::No(
                    "mistral.rs 0.8.1 has one magnitude for short and long sequences",
                );
            }
            if engine_positions(long).is_none() {
                return Serving::No("mistral.rs 0.8.1 cannot be given this magnitude");
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
            ..grouped::query(config, hidden)?
        };
        if config.count_or("num_experts_per_tok", TOP_K)? != TOP_K {
            return Err(config.error("num_experts_per_tok", "2"));
        }
        let moe = MoeSpec {
            experts: config.count("num_local_experts")?,
            intermediate: config.count("intermediate_size")?,
            router: RouterRule {
                scoring: Scoring::SparseMixer {
                    jitter: config.positive_or("router_jitter_noise", JITTER)?,
                },
                ..RouterRule::softmax(TOP_K, false)
            },
            shared: None,
        };
        router::check_top_k(config, &moe)?;
        let rotary = rope::long(config, query.head_dim, 1e6)?;
        let window = config.optional_count("sliding_window")?;
        Ok(Topology {
            hidden,
            vocab: config.count("vocab_size")?,
            max_positions: match config.optional_count(OWN_POSITIONS)? {
                Some(own) => own,
                None => config.count_or(POSITIONS, 131_072)?,
            },
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
        rewrite::counts(config, &["num_local_experts"], topology, keep);
    }

    /// The engine does not read the magnitude of cosines and sines but computes
    /// it from the number of positions, which is set so that it comes out.
    fn spell_for_engine(&self, config: &mut Value, topology: &Topology) {
        spell::common(config, topology);
        config["architectures"] = vec![self.architectures()[0]].into();
        spell::default(config, "attention_bias", false);
        spell::default(config, "lm_head_bias", false);
        spell::default(config, "router_jitter_noise", JITTER);
        let Scaling::Long(long) = &topology.attention.rotary.scaling else {
            spell::default(config, ORIGINAL_POSITIONS, topology.max_positions);
            return;
        };
        config[ORIGINAL_POSITIONS] = long.original.into();
        config["rope_scaling"]["type"] = "longrope".into();
        if let Some(positions) = engine_positions(long) {
            config[OWN_POSITIONS] = topology.max_positions.into();
            config[POSITIONS] = positions.into();
        }
    }

    fn spell_for_others(&self, config: &mut Value) {
        let own = config
            .as_object_mut()
            .and_then(|config| config.shift_remove(OWN_POSITIONS));
        if let Some(own) = own {
            config[POSITIONS] = own;
        }
    }
}

/// How far the engine's magnitude may be from the model's, relatively: as far
/// as the next number of positions.
const CLOSE: f64 = 1e-5;

/// The number of positions from which the engine computes the magnitude that
/// the model has, m = √(1 + ln(positions/original)/ln(original)); `None` if
/// there is none, or more than the engine can hold tables for.
fn engine_positions(long: &LongRope) -> Option<usize> {
    let original = long.original as f64;
    let positions = original.powf(long.short_magnitude.powi(2)).round();
    let magnitude = if positions > original {
        (1.0 + (positions / original).ln() / original.ln()).sqrt()
    } else {
        1.0
    };
    let close = (magnitude / long.short_magnitude - 1.0).abs() < CLOSE;
    (close && positions <= MAX_POSITIONS).then_some(positions as usize)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::family::tests::{read, refusal, refuses, with, without};

    /// √(4/3): of 256 positions after 64.
    const MAGNITUDE: f64 = 1.154_700_538_379_251_5;

    fn small() -> Value {
        json!({
            "architectures": ["PhimoeForCausalLM"], "hidden_size": 32, "vocab_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "num_local_experts": 6, "num_experts_per_tok": 2, "intermediate_size": 8,
            "max_position_embeddings": 512, "attention_bias": true, "lm_head_bias": true,
            "rope_theta": 10000.0,
            "rope_scaling": {
                "type": "longrope", "original_max_position_embeddings": 64,
                "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 3.0, 4.0, 5.0],
                "short_mscale": MAGNITUDE, "long_mscale": MAGNITUDE
            }
        })
    }

    fn long(topology: &Topology) -> &LongRope {
        match &topology.attention.rotary.scaling {
            Scaling::Long(long) => long,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_structure_and_defaults() {
        let topology = read(&PhiMoe, &small()).unwrap();
        assert_eq!(topology.norm.kind, NormKind::Layer);
        assert_eq!(topology.norm.eps, 1e-5);
        assert!(topology.head_bias && grouped::biased(&topology));
        let router = &topology.moe(0).unwrap().router;
        assert_eq!(router.scoring, Scoring::SparseMixer { jitter: 0.01 });
        assert_eq!((router.top_k, router.renormalize), (2, false));
        assert_eq!(topology.attention.windows, [None; 2]);
        assert_eq!(long(&topology).original, 64);
        let plain = with(&small(), &[("rope_scaling", Value::Null)]);
        let plain = read(&PhiMoe, &without(&plain, "rope_theta")).unwrap();
        assert_eq!(plain.attention.rotary.scaling, Scaling::None);
        assert_eq!(plain.attention.rotary.theta, 1e6);
    }

    #[test]
    fn the_window_holds_for_every_layer() {
        let value = with(&small(), &[("sliding_window", json!(16))]);
        let topology = read(&PhiMoe, &value).unwrap();
        assert_eq!(topology.attention.windows, [Some(16); 2]);
    }

    #[test]
    fn unusable_fields_are_named() {
        refuses(
            &PhiMoe,
            &small(),
            &[
                ("num_experts_per_tok", json!(1)),
                ("router_jitter_noise", json!(-0.1)),
                ("num_local_experts", json!(0)),
                ("sliding_window", json!(0)),
                ("rope_scaling", json!({"type": "yarn", "factor": 4.0})),
            ],
        );
    }

    #[test]
    fn the_engine_computes_the_magnitude_it_is_given() {
        let value = small();
        let topology = read(&PhiMoe, &value).unwrap();
        let mut spelled = value.clone();
        PhiMoe.spell_for_engine(&mut spelled, &topology);
        assert_eq!(spelled["architectures"], json!(["PhiMoEForCausalLM"]));
        assert_eq!(spelled["original_max_position_embeddings"], 64);
        // 64^(4/3)
        assert_eq!(spelled["max_position_embeddings"], 256);
        assert_eq!(read(&PhiMoe, &spelled).unwrap(), topology);
        PhiMoe.spell_for_others(&mut spelled);
        assert_eq!(spelled["max_position_embeddings"], 512);
        assert_eq!(spelled.get(OWN_POSITIONS), None);
    }

    #[test]
    fn magnitudes_that_it_cannot_compute_are_refused() {
        let magnitudes = |short: f64, long: f64| {
            let mut value = small();
            value["rope_scaling"]["short_mscale"] = short.into();
            value["rope_scaling"]["long_mscale"] = long.into();
            refusal(&PhiMoe, &value)
        };
        assert_eq!(magnitudes(MAGNITUDE, MAGNITUDE), "");
        assert_eq!(magnitudes(1.0, 1.0), "");
        assert!(magnitudes(1.2, 1.3).contains("one magnitude"));
        assert!(magnitudes(0.9, 0.9).contains("cannot be given"));
        assert!(magnitudes(2.0, 2.0).contains("cannot be given"));
    }

    #[test]
    fn other_heads_and_tied_heads_are_not_served() {
        let tied = with(&small(), &[("tie_word_embeddings", json!(true))]);
        assert!(refusal(&PhiMoe, &tied).contains("tied head"));
        let changes = [("head_dim", json!(16)), ("rope_scaling", Value::Null)];
        assert!(refusal(&PhiMoe, &with(&small(), &changes)).contains("head_dim"));
    }
}
