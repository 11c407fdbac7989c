//! MiniMax-M2 (M2, M2.1, M2.5).
//!
//! Grouped-query attention of which a part of each head turns, with norms over
//! all heads together. Experts are chosen by a sigmoid score plus a bias; the
//! gate value is the score without it, renormalised. Experts are spelled as
//! Mixtral's. Published configurations announce multi-token-prediction blocks
//! that their checkpoints do not have.
//!
//! Source: `MiniMaxM2ForCausalLM` in Hugging Face transformers.

use serde_json::{json, Value};

use super::gguf::{self, Gguf};
use super::{
    grouped, mixtral, rewrite, rope, router, AttentionSpec, Config, Family, GroupedQuery, Keep,
    MlpSpec, MoeSpec, Names, NormSpec, Pairs, QkNorm, RotarySpec, RouterRule, Scoring, Serving,
    Topology,
};
use crate::Result;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct MiniMaxM2;

static NAMES: Names = Names {
    router_bias: Some("block_sparse_moe.e_score_correction_bias"),
    ..mixtral::NAMES
};

/// Number of dimensions of a head that turn, as published; transformers 5 has a
/// fraction instead.
const ROTARY_DIM: &str = "rotary_dim";
/// The kind of attention of each layer.
const ATTENTION_KINDS: &str = "attn_type_list";

static GGUF: Gguf = Gguf {
    architecture: "minimax-m2",
    modules: &[gguf::ATTENTION, gguf::QK_NORMS, gguf::NORMS],
    pairs: Pairs::Halves,
    refuses: |topology| {
        if topology.tied_head {
            return Some("llama.cpp reads no head tied to the embedding for this family");
        }
        gguf::plain_attention(topology)
    },
    keys: |topology| {
        let mut keys = gguf::grouped_keys("minimax-m2", topology);
        keys.extend(gguf::expert_width("minimax-m2", topology));
        keys.push((
            "minimax-m2.expert_gating_func".to_owned(),
            gguf::SIGMOID.into(),
        ));
        keys
    },
    read: |metadata, _| {
        let mut config = gguf::grouped_config("minimax-m2", metadata)?;
        config["architectures"] = json!(["MiniMaxM2ForCausalLM"]);
        config["model_type"] = json!("minimax_m2");
        let width = metadata.count("minimax-m2.feed_forward_length")?;
        config["intermediate_size"] = json!(width);
        gguf::expert_keys("minimax-m2", "num_local_experts", metadata, &mut config)?;
        Ok(config)
    },
};

impl Family for MiniMaxM2 {
    fn model_type(&self) -> &'static str {
        "minimax_m2"
    }

    fn architectures(&self) -> &'static [&'static str] {
        &["MiniMaxM2ForCausalLM"]
    }

    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn serving(&self, _topology: &Topology) -> Serving {
        Serving::No("mistral.rs 0.8.1 has no loader for MiniMaxM2ForCausalLM")
    }

    fn gguf(&self) -> Option<&'static Gguf> {
        Some(&GGUF)
    }

    fn topology(&self, config: &Config) -> Result<Topology> {
        let layers = config.layers()?;
        check(config, layers)?;
        let hidden = config.count("hidden_size")?;
        let query = GroupedQuery {
            qk_norm: Some(QkNorm::Whole),
            ..grouped::query(config, hidden)?
        };
        let moe = MoeSpec {
            experts: config.count("num_local_experts")?,
            intermediate: config.count("intermediate_size")?,
            router: RouterRule {
                scoring: Scoring::Sigmoid,
                correction_bias: true,
                ..RouterRule::softmax(config.count("num_experts_per_tok")?, true)
            },
            shared: None,
        };
        router::check_top_k(config, &moe)?;
        let rotary = rotary(config, query.head_dim)?;
        Ok(Topology {
            hidden,
            vocab: config.count("vocab_size")?,
            max_positions: config.count_or("max_position_embeddings", 196_608)?,
            norm: NormSpec::rms(config.positive_or("rms_norm_eps", 1e-6)?),
            tied_head: config.flag_or("tie_word_embeddings", false)?,
            head_bias: false,
            attention: AttentionSpec::grouped(query, rotary, vec![None; layers]),
            mlps: vec![MlpSpec::Moe(moe); layers],
            prediction_layers: 0,
        })
    }

    fn rewrite_config(&self, config: &mut Value, topology: &Topology, keep: &Keep) {
        rewrite::counts(config, &["num_local_experts"], topology, keep);
        rewrite::keep_layer_entries(config, ATTENTION_KINDS, &keep.layers);
    }
}

/// Fails for what the class does not compute, and without the sizes of heads,
/// which transformers does not derive from other fields as we do.
fn check(config: &Config, layers: usize) -> Result<()> {
    config.require_one_of("hidden_act", &["silu"])?;
    config.require_one_of("scoring_func", &["sigmoid"])?;
    config.require_one_of("qk_norm_type", &["per_layer"])?;
    for field in ["use_qk_norm", "use_routing_bias"] {
        if !config.flag_or(field, true)? {
            return Err(config.error(field, "true"));
        }
    }
    if config.natural_or("shared_intermediate_size", 0)? > 0 {
        return Err(config.error("shared_intermediate_size", "0"));
    }
    if config.has("sliding_window") {
        return Err(config.error("sliding_window", "null"));
    }
    if config.has(ATTENTION_KINDS) && config.indices(ATTENTION_KINDS)? != vec![1; layers] {
        let expected = format!("1, for full attention, {layers} times");
        return Err(config.error(ATTENTION_KINDS, &expected));
    }
    for field in ["num_key_value_heads", "head_dim"] {
        config.count(field)?;
    }
    Ok(())
}

/// The rotary positions of a head of `head_dim`, in either spelling.
fn rotary(config: &Config, head_dim: usize) -> Result<RotarySpec> {
    let said = config.optional_count(ROTARY_DIM)?;
    let dim = said.unwrap_or(head_dim);
    if dim > head_dim || !dim.is_multiple_of(2) {
        let expected = format!("an even part of {head_dim} dimensions");
        return Err(config.error(ROTARY_DIM, &expected));
    }
    let rotary = rope::partial(config, head_dim, dim as f64 / head_dim as f64, 5e6)?;
    if said.is_some_and(|said| said != rotary.dim) {
        let expected = format!("{}, as partial_rotary_factor says", rotary.dim);
        return Err(config.error(ROTARY_DIM, &expected));
    }
    Ok(rotary)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::tests::{read, refuses, with, without};

    fn small() -> Value {
        json!({
            "model_type": "minimax_m2", "hidden_size": 32, "vocab_size": 64,
            "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
            "head_dim": 16, "rotary_dim": 8, "num_local_experts": 6, "num_experts_per_tok": 2,
            "intermediate_size": 12, "attn_type_list": [1, 1, 1], "scoring_func": "sigmoid",
            "use_routing_bias": true, "use_qk_norm": true, "qk_norm_type": "per_layer",
            "shared_intermediate_size": 0, "use_mtp": true, "num_mtp_modules": 3
        })
    }

    #[test]
    fn reads_structure_and_defaults() {
        let topology = read(&MiniMaxM2, &small()).unwrap();
        let query = GroupedQuery {
            qk_norm: Some(QkNorm::Whole),
            ..GroupedQuery::plain(4, 2, 16)
        };
        let expected = AttentionSpec::grouped(query, RotarySpec::plain(8, 5e6), vec![None; 3]);
        assert_eq!(topology.attention, expected);
        assert_eq!(topology.experts(), [6, 6, 6]);
        let moe = topology.moe(0).unwrap();
        assert_eq!((moe.intermediate, moe.shared), (12, None));
        assert_eq!(
            moe.router.to_string(),
            "sigmoid + bias, top 2, renormalised"
        );
        assert_eq!((topology.max_positions, topology.norm.eps), (196_608, 1e-6));
        assert!(!topology.tied_head && !topology.predicts(3));
    }

    #[test]
    fn either_spelling_says_what_turns() {
        let published = read(&MiniMaxM2, &small()).unwrap();
        let silent = without(&small(), "rotary_dim");
        let whole = read(&MiniMaxM2, &silent).unwrap();
        assert_eq!(whole.attention.rotary.dim, 16);
        let nested =
            json!({"rope_type": "default", "rope_theta": 5e6, "partial_rotary_factor": 0.5});
        let nested = [("rope_parameters", nested)];
        assert_eq!(
            read(&MiniMaxM2, &with(&silent, &nested)).unwrap(),
            published
        );
        // transformers 5 keeps the other beside its own.
        assert_eq!(
            read(&MiniMaxM2, &with(&small(), &nested)).unwrap(),
            published
        );
    }

    #[test]
    fn names_are_mixtrals_with_a_bias() {
        let topology = read(&MiniMaxM2, &small()).unwrap();
        let tensors = topology.tensors(MiniMaxM2.names());
        let shape = |name: &str| {
            let found = tensors.iter().find(|tensor| tensor.name == name);
            found.map(|tensor| tensor.shape.clone()).unwrap_or_default()
        };
        for (name, expected) in [
            ("block_sparse_moe.e_score_correction_bias", &[6][..]),
            ("block_sparse_moe.gate.weight", &[6, 32]),
            ("block_sparse_moe.experts.5.w2.weight", &[32, 12]),
            ("self_attn.q_norm.weight", &[64]),
            ("self_attn.k_norm.weight", &[32]),
        ] {
            assert_eq!(shape(&format!("model.layers.2.{name}")), expected, "{name}");
        }
    }

    #[test]
    fn a_rewritten_configuration_describes_what_is_kept() {
        let before = read(&MiniMaxM2, &small()).unwrap();
        let mut keep = Keep::all(&before);
        keep.layers = vec![0, 2];
        keep.experts.iter_mut().for_each(|kept| kept.truncate(4));
        let mut config = small();
        MiniMaxM2.rewrite_config(&mut config, &before, &keep);
        assert_eq!(read(&MiniMaxM2, &config).unwrap().experts(), [4, 4]);
        let changes = [
            ("num_local_experts", json!(4)),
            ("num_hidden_layers", json!(2)),
            ("attn_type_list", json!([1, 1])),
        ];
        assert_eq!(config, with(&small(), &changes));
    }

    #[test]
    fn unusable_fields_are_named() {
        refuses(
            &MiniMaxM2,
            &small(),
            &[
                ("use_routing_bias", json!(false)),
                ("use_qk_norm", json!(false)),
                ("qk_norm_type", json!("per_head")),
                ("scoring_func", json!("softmax")),
                ("shared_intermediate_size", json!(8)),
                ("attn_type_list", json!([1, 0, 1])),
                ("attn_type_list", json!([1, 1])),
                ("sliding_window", json!(16)),
                ("hidden_act", json!("gelu")),
                ("head_dim", Value::Null),
                ("num_key_value_heads", Value::Null),
                ("rotary_dim", json!(7)),
                ("rotary_dim", json!(18)),
                ("num_experts_per_tok", json!(7)),
                ("rope_scaling", json!({"type": "yarn", "factor": 4.0})),
            ],
        );
        let other = with(&small(), &[("partial_rotary_factor", json!(0.25))]);
        let error = read(&MiniMaxM2, &other).unwrap_err().to_string();
        assert!(
            error.contains("4, as partial_rotary_factor says"),
            "{error}"
        );
    }
}
