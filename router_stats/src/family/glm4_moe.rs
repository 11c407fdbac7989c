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

use serde_json::{json, Value};

use super::deepseek::{leading_dense, prediction_layers};
use super::deepseek_v3::NAMES;
use super::gguf::{self, Gguf};
use super::{
    grouped, rewrite, rope, router, spell, stand_in, AttentionSpec, Config, EngineLayout, Family,
    GroupedQuery, Keep, MoeSpec, Names, NormSpec, Pairs, QkNorm, Serving, Topology, Uneven,
};
use crate::Result;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Glm4Moe;

/// Key in the engine's copy; no other tool reads it.
const INTERLEAVED: &str = "rope_interleave";

/// The fraction of a head that turns where the configuration does not say.
const PARTIAL: f64 = 0.5;

/// llama.cpp has as many leading dense layers as there are, and always shared
/// experts.
static GGUF: Gguf = Gguf {
    architecture: "glm4moe",
    modules: &[
        gguf::ATTENTION,
        gguf::QK_NORMS,
        &[
            ("input_layernorm", "attn_norm"),
            ("post_attention_layernorm", "post_attention_norm"),
            ("mlp.shared_experts.gate_proj", "ffn_gate_shexp"),
            ("mlp.shared_experts.up_proj", "ffn_up_shexp"),
            ("mlp.shared_experts.down_proj", "ffn_down_shexp"),
        ],
        gguf::DENSE,
    ],
    pairs: Pairs::Halves,
    refuses: |topology| {
        if topology.moes().any(|moe| moe.shared.is_none()) {
            return Some("llama.cpp reads shared experts in every layer of this family");
        }
        gguf::plain_attention(topology)
    },
    keys: |topology| {
        let mut keys = gguf::grouped_keys("glm4moe", topology);
        keys.extend(gguf::expert_width("glm4moe", topology));
        let mut say = |name: &str, value| keys.push((format!("glm4moe.{name}"), value));
        say(
            "leading_dense_block_count",
            gguf::count(topology.dense_layers()),
        );
        say("expert_gating_func", gguf::SIGMOID.into());
        if let Some(moe) = topology.moes().next() {
            let shared = moe.shared.map_or(0, |shared| shared.intermediate);
            say(
                "expert_shared_count",
                gguf::count(shared / moe.intermediate),
            );
            say("expert_weights_scale", (moe.router.scale as f32).into());
            say("expert_weights_norm", moe.router.renormalize.into());
        }
        keys
    },
    read: |metadata, has| {
        let key = |name: &str| format!("glm4moe.{name}");
        let mut config = gguf::grouped_config("glm4moe", metadata)?;
        config["architectures"] = json!(["Glm4MoeForCausalLM"]);
        config["model_type"] = json!("glm4_moe");
        for (ours, theirs) in [
            ("moe_intermediate_size", "expert_feed_forward_length"),
            ("intermediate_size", "feed_forward_length"),
            ("n_shared_experts", "expert_shared_count"),
        ] {
            config[ours] = json!(metadata.count(&key(theirs))?);
        }
        let dense = metadata.get(&key("leading_dense_block_count"));
        config["first_k_dense_replace"] = json!(dense.map_or(Some(0), |it| it.natural()));
        let scale = metadata.optional_number(&key("expert_weights_scale"))?;
        config["routed_scaling_factor"] = json!(scale.filter(|&it| it != 0.0).unwrap_or(1.0));
        let renormalise = metadata.optional_flag(&key("expert_weights_norm"))?;
        config["norm_topk_prob"] = json!(renormalise.unwrap_or(false));
        config["attention_bias"] = json!(has("blk.0.attn_q.bias"));
        config["use_qk_norm"] = json!(has("blk.0.attn_q_norm.weight"));
        // Blocks that predict more than one token are counted with the others.
        let predicting = key("nextn_predict_layers");
        let predicting = metadata.get(&predicting).and_then(gguf::Value::natural);
        config["num_nextn_predict_layers"] = json!(predicting.unwrap_or(0));
        let layers = config["num_hidden_layers"].as_u64().unwrap_or(0);
        config["num_hidden_layers"] = json!(layers.saturating_sub(predicting.unwrap_or(0)));
        gguf::expert_keys("glm4moe", "n_routed_experts", metadata, &mut config)?;
        Ok(config)
    },
};

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
        if topology.moes().any(wide_shared) {
            return Serving::No("mistral.rs 0.8.1 reads one shared expert only");
        }
        Serving::Text(EngineLayout {
            stacked: true,
            pairs: Some(Pairs::Adjacent),
            uneven: Some(Uneven::Bias),
            ..EngineLayout::default()
        })
    }

    fn gguf(&self) -> Option<&'static Gguf> {
        Some(&GGUF)
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
            ..grouped::query(config, hidden)?
        };
        let mut rotary = rope::partial(config, query.head_dim, PARTIAL, 10_000.0)?;
        if config.flag_or(INTERLEAVED, false)? {
            rotary.pairs = Pairs::Adjacent;
        }
        let rule = router::biased_sigmoid(config, (1, 1), 1.0)?;
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

    fn stand_in(
        &self,
        topology: &Topology,
        keep: &Keep,
    ) -> std::result::Result<usize, &'static str> {
        stand_in::leading(topology, keep)
    }

    fn spell_for_engine(&self, config: &mut Value, topology: &Topology) {
        spell::deepseek(config, topology);
        spell::default(config, "partial_rotary_factor", PARTIAL);
        spell::default(config, "n_shared_experts", 0);
        config[INTERLEAVED] = true.into();
    }

    fn spell_for_others(&self, config: &mut Value) {
        if let Some(config) = config.as_object_mut() {
            config.shift_remove(INTERLEAVED);
        }
    }
}

/// Whether the shared experts of a layer are wider than one expert.
pub(super) fn wide_shared(moe: &MoeSpec) -> bool {
    let shared = moe.shared.map(|shared| shared.intermediate);
    shared.is_some_and(|intermediate| intermediate != moe.intermediate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::tests::{read, refusal, refuses, with};
    use crate::family::Projections;

    fn small() -> Value {
        json!({
            "model_type": "glm4_moe", "hidden_size": 32, "vocab_size": 64,
            "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
            "head_dim": 16, "intermediate_size": 40, "moe_intermediate_size": 8,
            "n_routed_experts": 6, "n_shared_experts": 1, "num_experts_per_tok": 2
        })
    }

    #[test]
    fn reads_structure_and_defaults() {
        let topology = read(&Glm4Moe, &small()).unwrap();
        assert_eq!(topology.experts(), [0, 6, 6]);
        assert_eq!((topology.max_positions, topology.norm.eps), (131_072, 1e-5));
        let rotary = &topology.attention.rotary;
        assert_eq!((rotary.dim, rotary.theta), (8, 10_000.0));
        assert_eq!(rotary.pairs, Pairs::Halves);
        assert_eq!(
            topology.attention.projections,
            Projections::Grouped(GroupedQuery::plain(4, 2, 16))
        );
        let router = &topology.moe(1).unwrap().router;
        assert_eq!((router.groups, router.scale), (None, 1.0));
    }

    #[test]
    fn norms_and_biases_are_said() {
        let changes = [
            ("use_qk_norm", json!(true)),
            ("attention_bias", json!(true)),
        ];
        let topology = read(&Glm4Moe, &with(&small(), &changes)).unwrap();
        match topology.attention.projections {
            Projections::Grouped(query) => {
                assert_eq!(query.qk_norm, Some(QkNorm::Head));
                // The output projection has none, whatever is said.
                assert!(query.qkv_bias && !query.o_bias);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_engines_copy_says_that_its_rows_are_reordered() {
        let topology = read(&Glm4Moe, &small()).unwrap();
        let mut spelled = small();
        Glm4Moe.spell_for_engine(&mut spelled, &topology);
        assert_eq!(spelled["partial_rotary_factor"], 0.5);
        let read_again = read(&Glm4Moe, &spelled).unwrap();
        assert_eq!(read_again.attention.rotary.pairs, Pairs::Adjacent);
        Glm4Moe.spell_for_others(&mut spelled);
        assert_eq!(read(&Glm4Moe, &spelled).unwrap(), topology);
    }

    #[test]
    fn one_shared_expert_or_none_is_served() {
        let shared = |n| refusal(&Glm4Moe, &with(&small(), &[("n_shared_experts", json!(n))]));
        assert_eq!((shared(0), shared(1)), ("", ""));
        assert!(shared(2).contains("one shared expert"));
    }

    #[test]
    fn unusable_fields_are_named() {
        refuses(
            &Glm4Moe,
            &small(),
            &[
                ("partial_rotary_factor", json!(0.01)),
                ("partial_rotary_factor", json!(2)),
                ("head_dim", json!(0)),
                ("rope_interleave", json!("yes")),
                ("rope_scaling", json!({"type": "yarn", "factor": 4.0})),
                ("moe_layer_freq", json!(2)),
                ("num_experts_per_tok", json!(7)),
                ("hidden_act", json!("gelu")),
            ],
        );
    }
}
