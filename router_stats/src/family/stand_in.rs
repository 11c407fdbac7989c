//! What stands in the place of a feed-forward part that goes.
//!
//! Loaders build a feed-forward part for every layer. A dense MLP of zeros adds
//! nothing to the residual stream, so a configuration that may call any layer
//! dense, or the next one after its dense layers, describes a model that lacks
//! that part. Its tensors are written by surgery.

use serde_json::Value;

use super::{Keep, MlpSpec, Topology};

/// Why families whose layers all have experts cannot be written so.
pub(super) const NO_DENSE_LAYERS: &str =
    "the configuration of this family cannot say that a layer has no experts";

/// Why families whose first layers are dense cannot be written so.
const NOT_LEADING: &str =
    "the configuration of this family counts its dense layers from the first, so only layers \
     that follow them directly can lose their experts";

/// Width where the model has no dense layer whose width it must share: one
/// block of the types that quantise by 32.
const NARROW: usize = 32;

/// The width in families that may call any layer dense.
pub(super) fn anywhere(topology: &Topology, keep: &Keep) -> usize {
    let dense = keep.layers.iter().filter(|&&layer| !keep.skip(layer).mlp);
    let mut widths = dense.filter_map(|&layer| match topology.mlps.get(layer) {
        Some(MlpSpec::Dense { intermediate }) => Some(*intermediate),
        _ => None,
    });
    widths.next().unwrap_or(NARROW)
}

/// The width in families whose dense layers come first.
///
/// # Errors
/// A clause, if a layer that keeps its experts comes before one that does not.
pub(super) fn leading(
    topology: &Topology,
    keep: &Keep,
) -> std::result::Result<usize, &'static str> {
    let mut routed = keep
        .layers
        .iter()
        .map(|&layer| keep.moe(topology, layer).is_some());
    if routed.by_ref().any(|routed| routed) && !routed.all(|routed| routed) {
        return Err(NOT_LEADING);
    }
    Ok(anywhere(topology, keep))
}

/// Says in `config` how wide the dense layers of what `keep` leaves are, if some
/// are of zeros.
pub(super) fn spell_width(config: &mut Value, topology: &Topology, keep: &Keep) {
    if keep.layers.iter().any(|&layer| keep.skip(layer).mlp) {
        config["intermediate_size"] = anywhere(topology, keep).into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::tests::read;
    use crate::family::{detect, Config, Family, Skip};

    fn skipping(topology: &Topology, layers: &[usize]) -> Keep {
        let mut keep = Keep::all(topology);
        for &layer in layers {
            keep.skipped[layer] = Skip {
                attention: false,
                mlp: true,
            };
        }
        keep
    }

    fn model(model_type: &str, more: &Value) -> (&'static dyn Family, Value, Topology) {
        let mut value = serde_json::json!({
            "model_type": model_type, "hidden_size": 32, "vocab_size": 64,
            "num_hidden_layers": 5, "num_attention_heads": 4, "q_lora_rank": 24,
            "kv_lora_rank": 16, "qk_nope_head_dim": 12, "qk_rope_head_dim": 4, "v_head_dim": 10,
            "intermediate_size": 40, "moe_intermediate_size": 8, "num_experts_per_tok": 2
        });
        for (field, change) in more.as_object().into_iter().flatten() {
            value[field] = change.clone();
        }
        let family = detect(&Config::new("config.json", value.clone()).unwrap()).unwrap();
        let topology = read(family, &value).unwrap();
        (family, value, topology)
    }

    /// The experts and the width of dense layers that the configuration of what
    /// `keep` leaves says.
    fn rewritten(
        (family, value, topology): &(&'static dyn Family, Value, Topology),
        keep: &Keep,
    ) -> (Vec<usize>, Value) {
        keep.check(topology).unwrap();
        let mut value = value.clone();
        family.rewrite_config(&mut value, topology, keep);
        let experts = read(*family, &value).unwrap().experts();
        (experts, value["intermediate_size"].clone())
    }

    #[test]
    fn qwen_calls_any_layer_dense() {
        let more = serde_json::json!({"num_experts": 6, "norm_topk_prob": true});
        let model = model("qwen3_moe", &more);
        let (family, _, topology) = &model;
        let mut keep = skipping(topology, &[1, 4]);
        assert_eq!(family.stand_in(topology, &keep), Ok(NARROW));
        let (experts, width) = rewritten(&model, &keep);
        assert_eq!(experts, [6, 0, 6, 6, 0]);
        assert_eq!(width, NARROW);
        keep.layers.remove(0);
        assert_eq!(rewritten(&model, &keep).0, [0, 6, 6, 0]);
    }

    #[test]
    fn dense_layers_share_their_width_while_there_are_any() {
        let more = serde_json::json!({"num_experts": 6, "mlp_only_layers": [1]});
        let model = model("qwen3_moe", &more);
        let (family, _, topology) = &model;
        let keep = skipping(topology, &[3]);
        assert_eq!(family.stand_in(topology, &keep), Ok(40));
        assert_eq!(rewritten(&model, &keep), (vec![6, 0, 6, 0, 6], 40.into()));
        let keep = skipping(topology, &[1, 3]);
        assert_eq!(family.stand_in(topology, &keep), Ok(NARROW));
        let expected = (vec![6, 0, 6, 0, 6], NARROW.into());
        assert_eq!(rewritten(&model, &keep), expected);
    }

    #[test]
    fn deepseek_calls_the_first_layers_dense() {
        let more = serde_json::json!({
            "n_routed_experts": 32, "n_shared_experts": 1, "first_k_dense_replace": 1,
            "n_group": 4, "topk_group": 2, "scoring_func": "sigmoid", "topk_method": "noaux_tc"
        });
        let model = model("deepseek_v3", &more);
        let (family, _, topology) = &model;
        let keep = skipping(topology, &[1, 2]);
        assert_eq!(family.stand_in(topology, &keep), Ok(40));
        assert_eq!(rewritten(&model, &keep), (vec![0, 0, 0, 32, 32], 40.into()));
        let mut later = skipping(topology, &[2]);
        assert_eq!(family.stand_in(topology, &later), Err(NOT_LEADING));
        later.layers.retain(|&layer| layer != 1);
        assert_eq!(family.stand_in(topology, &later), Ok(40));
    }

    #[test]
    fn families_without_dense_layers_say_so() {
        let more = serde_json::json!({"num_local_experts": 4, "sliding_window": null});
        let (family, _, topology) = model("mixtral", &more);
        let keep = skipping(&topology, &[1]);
        assert_eq!(family.stand_in(&topology, &keep), Err(NO_DENSE_LAYERS));
    }
}
