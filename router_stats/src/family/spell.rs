//! The spelling of `config.json` that the engine reads: flat, and without
//! defaults for many fields that transformers has defaults for.

use serde_json::Value;

use super::rewrite::is_said;
use super::{rope, Projections, Topology};

/// Sets `field` to `value` unless it is said already.
pub(super) fn default(config: &mut Value, field: &str, value: impl Into<Value>) {
    if !is_said(config, field) {
        config[field] = value.into();
    }
}

/// What every loader requires: flat rotary positions, the fields of common
/// defaults, and the number of experts per token.
pub(super) fn common(config: &mut Value, topology: &Topology) {
    rope::flatten(config);
    default(config, "rope_theta", topology.attention.rotary.theta);
    default(config, "hidden_act", "silu");
    default(config, "rms_norm_eps", topology.norm.eps);
    default(config, "max_position_embeddings", topology.max_positions);
    let key_heads = match &topology.attention.projections {
        Projections::Grouped(query) => query.kv_heads,
        Projections::Latent(latent) => latent.heads,
    };
    default(config, "num_key_value_heads", key_heads);
    if let Some(moe) = topology.moes().next() {
        default(config, "num_experts_per_tok", moe.router.top_k);
    }
}

/// [`common`], and what the loaders of DeepSeek-V2 and its descendants
/// require.
pub(super) fn deepseek(config: &mut Value, topology: &Topology) {
    common(config, topology);
    rope::spell_yarn(config, &topology.attention);
    config["first_k_dense_replace"] = topology.dense_layers().into();
    default(config, "attention_bias", false);
    let Some(moe) = topology.moes().next() else {
        return;
    };
    default(config, "routed_scaling_factor", moe.router.scale);
    let groups = moe
        .router
        .groups
        .map(|groups| (groups.count, groups.chosen));
    let fields = ["n_group", "topk_group"];
    if fields.iter().any(|field| !is_said(config, field)) {
        let (count, chosen) = groups.unwrap_or((1, 1));
        config[fields[0]] = count.into();
        config[fields[1]] = chosen.into();
    }
}

/// Says that there are no shared experts as DeepSeek's loaders read it: 0 is
/// not none to them.
pub(super) fn shared_experts(config: &mut Value, topology: &Topology) {
    if topology.moes().all(|moe| moe.shared.is_none()) {
        config["n_shared_experts"] = Value::Null;
    }
}
