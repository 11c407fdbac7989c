//! Changes to `config.json` that several families share.

use serde_json::Value;

use super::{Keep, Topology};

/// Sets the count of experts, called `field`, and that of layers.
pub(super) fn counts(config: &mut Value, field: &str, topology: &Topology, keep: &Keep) {
    if let Some(experts) = keep.uniform_experts(topology) {
        config[field] = experts.into();
    }
    config["num_hidden_layers"] = keep.layers.len().into();
}

/// Keeps the entries of a per-layer list whose layers stay.
pub(super) fn keep_layer_entries(config: &mut Value, field: &str, layers: &[usize]) {
    if let Some(list) = config.get_mut(field).and_then(Value::as_array_mut) {
        *list = layers
            .iter()
            .filter_map(|&layer| list.get(layer).cloned())
            .collect();
    }
}

/// Lists the dense layers that stay in `mlp_only_layers`: after layers were
/// dropped, `decoder_sparse_step` may no longer describe which they are.
pub(super) fn listed_dense_layers(config: &mut Value, topology: &Topology, keep: &Keep) {
    let dense: Vec<usize> = keep
        .layers
        .iter()
        .enumerate()
        .filter(|(_, &layer)| topology.moe(layer).is_none())
        .map(|(index, _)| index)
        .collect();
    if keep.layers.len() < topology.layers()
        || config.get("mlp_only_layers").is_some()
        || !dense.is_empty()
    {
        config["mlp_only_layers"] = dense.into();
        config["decoder_sparse_step"] = 1.into();
    }
}

/// What DeepSeek-V2 and its descendants say beside the counts: how many of the
/// first layers are dense, how experts are grouped, and that the
/// multi-token-prediction blocks are gone.
pub(super) fn deepseek(config: &mut Value, topology: &Topology, keep: &Keep) {
    counts(config, "n_routed_experts", topology, keep);
    let dense = |&&layer: &&usize| topology.moe(layer).is_none();
    let before = (0..topology.layers()).filter(|layer| dense(&layer)).count();
    let after = keep.layers.iter().filter(dense).count();
    if before != after || config.get("first_k_dense_replace").is_some() {
        config["first_k_dense_replace"] = after.into();
    }
    if topology.prediction_layers > 0 {
        config["num_nextn_predict_layers"] = 0.into();
    }
    // Groups that do not restrict the choice would still have to divide it.
    let rule = (0..topology.layers()).find_map(|layer| Some(&topology.moe(layer)?.router));
    if rule.is_some_and(|rule| rule.groups.is_none()) && !keep.is_identity(topology) {
        for field in ["n_group", "topk_group"] {
            if config.get(field).is_some_and(|value| !value.is_null()) {
                config[field] = 1.into();
            }
        }
    }
}
