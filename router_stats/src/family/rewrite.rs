//! Changes to `config.json` that several families share.

use serde_json::Value;

use super::{stand_in, Keep, Topology};

/// Sets the count of experts under each of its spellings that is in use, that of
/// layers, and that of the experts a token takes if it changes.
pub(super) fn counts(config: &mut Value, fields: &[&str], topology: &Topology, keep: &Keep) {
    if let Some(experts) = keep.uniform_experts(topology) {
        for field in fields {
            if is_said(config, field) {
                config[*field] = experts.into();
            }
        }
    }
    config["num_hidden_layers"] = keep.layers.len().into();
    if let Some(top_k) = keep.top_k {
        config["num_experts_per_tok"] = top_k.into();
    }
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

/// Lists the layers that have no experts in `mlp_only_layers`, with the width of
/// their MLPs: after layers or experts of a layer were dropped,
/// `decoder_sparse_step` no longer describes which they are.
pub(super) fn listed_dense_layers(config: &mut Value, topology: &Topology, keep: &Keep) {
    let loses_experts = |&layer: &usize| keep.skip(layer).mlp;
    if keep.layers.len() == topology.layers() && !keep.layers.iter().any(loses_experts) {
        return;
    }
    let dense: Vec<usize> = keep
        .layers
        .iter()
        .enumerate()
        .filter(|(_, &layer)| keep.moe(topology, layer).is_none())
        .map(|(index, _)| index)
        .collect();
    config["mlp_only_layers"] = dense.into();
    config["decoder_sparse_step"] = 1.into();
    stand_in::spell_width(config, topology, keep);
}

/// What DeepSeek-V2 and its descendants say beside the counts: how many of the
/// first layers are dense, how experts are grouped, and that the
/// multi-token-prediction blocks are gone.
pub(super) fn deepseek(config: &mut Value, topology: &Topology, keep: &Keep) {
    counts(config, &["n_routed_experts"], topology, keep);
    let dense = |&&layer: &&usize| keep.moe(topology, layer).is_none();
    stand_in::spell_width(config, topology, keep);
    let after = keep.layers.iter().filter(dense).count();
    if after != topology.dense_layers() {
        config["first_k_dense_replace"] = after.into();
    }
    if topology.prediction_layers > 0 {
        config["num_nextn_predict_layers"] = 0.into();
    }
    // Groups that do not restrict the choice would still have to divide it.
    let grouped = topology.moes().any(|moe| moe.router.groups.is_some());
    let fields = ["n_group", "topk_group"];
    if !grouped && !keep.is_identity(topology) && fields.iter().any(|field| is_said(config, field))
    {
        for field in fields {
            config[field] = 1.into();
        }
    }
}

/// Whether `config` has `field`, and not as null.
pub(super) fn is_said(config: &Value, field: &str) -> bool {
    config.get(field).is_some_and(|value| !value.is_null())
}
