//! GLM-4-MoE-Lite (GLM-4.7-Flash).
//!
//! Multi-head latent attention and routing as in DeepSeek-V3. The first layer
//! is dense; `mlp_layer_types` may say otherwise.
//!
//! Source: `Glm4MoeLiteForCausalLM` in Hugging Face transformers.

use serde_json::{json, Value};

use super::deepseek::{self, Defaults};
use super::deepseek_v3::NAMES;
use super::glm4_moe::wide_shared;
use super::{
    rewrite, router, spell, stand_in, Config, Family, Keep, Names, Projections, Scaling, Serving,
    Topology,
};
use crate::Result;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Glm4MoeLite;

/// How many of the first layers are dense.
const LEADING: &str = "first_k_dense_replace";

/// Says of every layer whether it is dense.
const LAYER_TYPES: &str = "mlp_layer_types";

const DEFAULTS: Defaults = Defaults {
    positions: 202_752,
    eps: 1e-5,
    dense: 1,
};

impl Family for Glm4MoeLite {
    fn model_type(&self) -> &'static str {
        "glm4_moe_lite"
    }

    fn architectures(&self) -> &'static [&'static str] {
        &["Glm4MoeLiteForCausalLM"]
    }

    fn names(&self) -> &'static Names {
        &NAMES
    }

    fn serving(&self, topology: &Topology) -> Serving {
        if topology.moes().any(wide_shared) {
            return Serving::No("mistral.rs 0.8.1 reads one shared expert only");
        }
        if topology.moes().any(|moe| !moe.router.renormalize) {
            return Serving::No("mistral.rs 0.8.1 always renormalises the gate values");
        }
        if topology.attention.rotary.scaling != Scaling::None {
            return Serving::No(
                "mistral.rs 0.8.1 reads no scaled rotary positions for this family",
            );
        }
        match &topology.attention.projections {
            Projections::Latent(latent) if latent.q_rank.is_none() || latent.bias => Serving::No(
                "mistral.rs 0.8.1 reads a low-rank query projection and no attention biases",
            ),
            _ => deepseek::serving(topology),
        }
    }

    fn topology(&self, config: &Config) -> Result<Topology> {
        let rule = router::biased_sigmoid(config, (1, 1), 1.8)?;
        let dense = match config.has(LAYER_TYPES) {
            true => leading_dense(config)?,
            // transformers has one dense layer then, whatever this field says.
            false if config.natural_or(LEADING, DEFAULTS.dense)? != DEFAULTS.dense => {
                return Err(config.error(LEADING, "1, or `mlp_layer_types` beside it"));
            }
            false => DEFAULTS.dense,
        };
        deepseek::latent_moe(config, rule, dense, &DEFAULTS)
    }

    fn rewrite_config(&self, config: &mut Value, topology: &Topology, keep: &Keep) {
        rewrite::deepseek(config, topology, keep);
        let loses_experts = |&layer: &usize| keep.skip(layer).mlp;
        if keep.layers.len() < topology.layers() || keep.layers.iter().any(loses_experts) {
            let kinds = keep
                .layers
                .iter()
                .map(|&layer| match keep.moe(topology, layer) {
                    Some(_) => "sparse",
                    None => "dense",
                });
            config[LAYER_TYPES] = kinds.collect::<Vec<_>>().into();
        }
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
        spell::default(config, "n_shared_experts", 0);
    }
}

/// Dense layers that `mlp_layer_types` begins with.
fn leading_dense(config: &Config) -> Result<usize> {
    let layers = config.layers()?;
    let kinds = config.value().get(LAYER_TYPES).and_then(Value::as_array);
    let kinds = kinds.map_or(&[][..], Vec::as_slice);
    let dense = kinds
        .iter()
        .take_while(|&kind| *kind == json!("dense"))
        .count();
    if kinds.len() != layers || kinds[dense..].iter().any(|kind| *kind != json!("sparse")) {
        let expected = format!("`dense` or `sparse` for {layers} layers, dense ones first");
        return Err(config.error(LAYER_TYPES, &expected));
    }
    Ok(dense)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::tests::{read, refusal, refuses, with};

    fn small() -> Value {
        json!({
            "model_type": "glm4_moe_lite", "hidden_size": 32, "vocab_size": 64,
            "num_hidden_layers": 3, "num_attention_heads": 4, "q_lora_rank": 24,
            "kv_lora_rank": 16, "qk_nope_head_dim": 12, "qk_rope_head_dim": 4, "v_head_dim": 16,
            "intermediate_size": 40, "moe_intermediate_size": 8, "n_routed_experts": 6,
            "n_shared_experts": 1, "num_experts_per_tok": 2
        })
    }

    #[test]
    fn reads_structure_and_defaults() {
        let topology = read(&Glm4MoeLite, &small()).unwrap();
        assert_eq!(topology.experts(), [0, 6, 6]);
        assert_eq!((topology.max_positions, topology.norm.eps), (202_752, 1e-5));
        let router = &topology.moe(1).unwrap().router;
        assert_eq!((router.groups, router.scale), (None, 1.8));
    }

    #[test]
    fn layer_types_decide_which_layers_are_dense() {
        let experts = |types: Value| {
            let changes = [(LAYER_TYPES, types), ("first_k_dense_replace", json!(1))];
            let topology = read(&Glm4MoeLite, &with(&small(), &changes))?;
            Ok::<_, crate::Error>(topology.experts())
        };
        let (dense, sparse) = ("dense", "sparse");
        let read = |types: [&str; 3]| experts(json!(types)).unwrap();
        assert_eq!(read([sparse, sparse, sparse]), [6, 6, 6]);
        assert_eq!(read([dense, sparse, sparse]), [0, 6, 6]);
        assert_eq!(read([dense, dense, sparse]), [0, 0, 6]);
        assert_eq!(read([dense, dense, dense]), [0, 0, 0]);
        assert_eq!(experts(Value::Null).unwrap(), [0, 6, 6]);
        for refused in [
            json!([sparse, dense, sparse]),
            json!([dense, sparse, dense]),
            json!([dense, sparse]),
            json!([dense, sparse, "moe"]),
            json!("dense"),
            json!([]),
        ] {
            match experts(refused) {
                Err(crate::Error::Config { field, .. }) => assert_eq!(field, LAYER_TYPES),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn without_the_dense_layer_both_spellings_say_so() {
        let topology = read(&Glm4MoeLite, &small()).unwrap();
        let mut keep = Keep::all(&topology);
        keep.layers = vec![1, 2];
        let mut rewritten = small();
        Glm4MoeLite.rewrite_config(&mut rewritten, &topology, &keep);
        assert_eq!(rewritten[LAYER_TYPES], json!(["sparse", "sparse"]));
        assert_eq!(rewritten["first_k_dense_replace"], 0);
    }

    #[test]
    fn what_the_engine_does_not_compute_is_refused() {
        let refused = |field, change| refusal(&Glm4MoeLite, &with(&small(), &[(field, change)]));
        assert_eq!(refused("n_shared_experts", json!(0)), "");
        assert!(refused("n_shared_experts", json!(2)).contains("one shared expert"));
        assert!(refused("norm_topk_prob", json!(false)).contains("renormalises"));
        assert!(refused("q_lora_rank", Value::Null).contains("low-rank"));
        assert!(refused("attention_bias", json!(true)).contains("biases"));
        assert!(refused("rope_interleave", json!(false)).contains("adjacent"));
        let yarn = json!({"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128});
        assert!(refused("rope_scaling", yarn).contains("scaled rotary positions"));
        let neither = [
            ("n_shared_experts", json!(0)),
            ("norm_topk_prob", json!(false)),
        ];
        assert!(refusal(&Glm4MoeLite, &with(&small(), &neither)).contains("renormalises"));
    }

    #[test]
    fn unusable_fields_are_named() {
        refuses(
            &Glm4MoeLite,
            &small(),
            &[
                ("partial_rotary_factor", json!(0.5)),
                ("first_k_dense_replace", json!(-1)),
                ("scoring_func", json!("softmax")),
                ("num_key_value_heads", json!(2)),
                ("rope_scaling", json!({"type": "llama3", "factor": 4.0})),
            ],
        );
    }
}
