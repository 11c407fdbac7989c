//! What the keys of all families have in common.

use serde_json::{json, Map, Value as Json};

use crate::family::{MlpSpec, Projections, Scaling, Scoring, Topology};
use crate::gguf::{Array, Metadata, Unusable, Value};

/// Why llama.cpp would compute something else, as a clause.
pub type Refusal = &'static str;

/// Why a model with dense layers is refused where llama.cpp has none.
pub(in crate::family) const NO_DENSE_LAYERS: Refusal =
    "llama.cpp reads no dense layers for this family";

/// The first of what no family's keys can say.
pub(in crate::family) fn plain_attention(topology: &Topology) -> Option<Refusal> {
    if topology.attention.windows.iter().any(Option::is_some) {
        return Some("llama.cpp ignores the sliding windows of this family");
    }
    if topology.attention.rotary.scaling != Scaling::None {
        return Some("scaled rotary positions of this family are not written to GGUF");
    }
    let rules = topology.moes().map(|moe| &moe.router);
    for rule in rules {
        if matches!(rule.scoring, Scoring::SparseMixer { .. }) {
            return Some("llama.cpp has no sparse mixer");
        }
        if rule.groups.is_some() {
            return Some("groups of experts are not written to GGUF for this family");
        }
    }
    None
}

/// Keys that every family of grouped-query attention has.
pub(in crate::family) fn grouped_keys(
    architecture: &str,
    topology: &Topology,
) -> Vec<(String, Value)> {
    let mut keys = Vec::new();
    let mut say = |name: &str, value: Value| keys.push((format!("{architecture}.{name}"), value));
    say("block_count", count(topology.layers()));
    say("context_length", count(topology.max_positions));
    say("embedding_length", count(topology.hidden));
    if let Some(width) = dense_width(topology) {
        say("feed_forward_length", count(width));
    }
    if let Projections::Grouped(query) = &topology.attention.projections {
        say("attention.head_count", count(query.heads));
        say("attention.head_count_kv", count(query.kv_heads));
        say("attention.key_length", count(query.head_dim));
        say("attention.value_length", count(query.head_dim));
    }
    say(
        "attention.layer_norm_rms_epsilon",
        Value::F32(topology.norm.eps as f32),
    );
    let rotary = &topology.attention.rotary;
    say("rope.dimension_count", count(rotary.dim));
    say("rope.freq_base", Value::F32(rotary.theta as f32));
    say("vocab_size", count(topology.vocab));
    if let Some(moe) = topology.moes().next() {
        say("expert_count", count(moe.experts));
        say("expert_used_count", count(moe.router.top_k));
    }
    keys
}

/// The width of an expert, for families where it has a key of its own.
pub(in crate::family) fn expert_width(
    architecture: &str,
    topology: &Topology,
) -> Option<(String, Value)> {
    let moe = topology.moes().next()?;
    let key = format!("{architecture}.expert_feed_forward_length");
    Some((key, count(moe.intermediate)))
}

/// llama.cpp's number of scores that are sigmoids.
pub(in crate::family) const SIGMOID: u32 = 2;

/// Why softmax scores are not what llama.cpp makes of them in a family whose
/// gate values are as they are.
pub(in crate::family) fn plain_softmax(topology: &Topology) -> Option<Refusal> {
    let renormalises = topology.moes().any(|moe| moe.router.renormalize);
    renormalises.then_some("llama.cpp renormalises no gate values of this family")
}

/// Why heads are not what llama.cpp reads in a family whose heads share the
/// residual stream and whose head is a tensor of its own.
pub(in crate::family) fn shared_heads(topology: &Topology) -> Option<Refusal> {
    if topology.tied_head {
        return Some("llama.cpp reads no head tied to the embedding for this family");
    }
    let divides = crate::family::grouped::divides(topology);
    (!divides).then_some("llama.cpp reads no other width of heads for this family")
}

/// The fields of a configuration that say how many experts there are, where it
/// calls their number `name`.
///
/// # Errors
/// [`Unusable`]
pub(in crate::family) fn expert_keys(
    architecture: &str,
    name: &str,
    metadata: &Metadata,
    config: &mut Json,
) -> Result<(), Unusable> {
    let key = |name: &str| format!("{architecture}.{name}");
    config[name] = json!(metadata.count(&key("expert_count"))?);
    let used = key("expert_used_count");
    let top_k = same(metadata, &used)?;
    config["num_experts_per_tok"] = match top_k {
        Some(top_k) => json!(top_k),
        None => return Err(metadata.unusable(&used, "a positive integer")),
    };
    Ok(())
}

/// The width of dense layers, else of an expert.
fn dense_width(topology: &Topology) -> Option<usize> {
    let mut dense = topology.mlps.iter().filter_map(|mlp| match mlp {
        MlpSpec::Dense { intermediate } => Some(*intermediate),
        MlpSpec::Moe(_) => None,
    });
    let expert = || topology.moes().next().map(|moe| moe.intermediate);
    dense.next().or_else(expert)
}

/// A count as llama.cpp stores it. [`Config`](crate::family::Config) reads none
/// of 2³¹ or more.
pub(in crate::family) fn count(count: usize) -> Value {
    Value::U32(u32::try_from(count).unwrap_or(u32::MAX))
}

/// The fields of a configuration that the keys of grouped-query attention
/// amount to, with rotary positions, and without experts.
///
/// # Errors
/// [`Unusable`]
pub(in crate::family) fn grouped_config(
    architecture: &str,
    metadata: &Metadata,
) -> Result<Json, Unusable> {
    let key = |name: &str| format!("{architecture}.{name}");
    let hidden = metadata.count(&key("embedding_length"))?;
    let heads = same(metadata, &key("attention.head_count"))?
        .ok_or_else(|| metadata.unusable(&key("attention.head_count"), "a positive integer"))?;
    let kv_heads = same(metadata, &key("attention.head_count_kv"))?.unwrap_or(heads);
    let width = metadata.optional_count(&key("attention.key_length"))?;
    let width = width.unwrap_or(hidden / heads);
    let values = metadata.optional_count(&key("attention.value_length"))?;
    if values.is_some_and(|values| values != width) {
        let expected = format!("{width}, as keys");
        return Err(metadata.unusable(&key("attention.value_length"), &expected));
    }
    let turning = metadata.optional_count(&key("rope.dimension_count"))?;
    let mut config = json!({
        "partial_rotary_factor": turning.unwrap_or(width) as f64 / width as f64,
        "hidden_act": "silu",
        "hidden_size": hidden,
        "num_hidden_layers": metadata.count(&key("block_count"))?,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": width,
        "max_position_embeddings": metadata.count(&key("context_length"))?,
        "rms_norm_eps": metadata.number(&key("attention.layer_norm_rms_epsilon"))?,
        "rope_theta": metadata.optional_number(&key("rope.freq_base"))?.unwrap_or(10_000.0),
    });
    if let Some(scaling) = scaling(metadata, &key)? {
        config["rope_scaling"] = scaling;
    }
    Ok(config)
}

/// A count, of which a file may have one or one per layer that are all the same.
pub(in crate::family) fn same(metadata: &Metadata, key: &str) -> Result<Option<usize>, Unusable> {
    let Some(Value::Array(array)) = metadata.get(key) else {
        return metadata.optional_count(key);
    };
    let counts: Option<Vec<u64>> = match array {
        Array::U32(counts) => Some(counts.iter().map(|&count| count.into()).collect()),
        Array::I32(counts) => counts.iter().map(|&count| count.try_into().ok()).collect(),
        _ => None,
    };
    let first = counts.as_ref().and_then(|counts| counts.first().copied());
    match (counts, first) {
        (Some(counts), Some(first))
            if (1..1 << 31).contains(&first) && counts.iter().all(|&count| count == first) =>
        {
            Ok(usize::try_from(first).ok())
        }
        _ => Err(metadata.unusable(key, "a positive integer, the same for all layers")),
    }
}

/// How positions are scaled, spelled as configurations have it.
fn scaling(metadata: &Metadata, key: &impl Fn(&str) -> String) -> Result<Option<Json>, Unusable> {
    let kind = metadata.optional_text(&key("rope.scaling.type"))?;
    let factor = match metadata.optional_number(&key("rope.scaling.factor"))? {
        None => metadata.optional_number(&key("rope.scale_linear"))?,
        factor => factor,
    };
    let plain = matches!(kind, None | Some("linear" | "none"));
    if plain && (kind == Some("none") || matches!(factor, None | Some(0.0 | 1.0))) {
        return Ok(None);
    }
    let mut fields = Map::new();
    fields.insert("rope_type".to_owned(), json!(kind.unwrap_or("linear")));
    if let Some(factor) = factor {
        fields.insert("factor".to_owned(), json!(factor));
    }
    for (theirs, ours) in [
        (
            "original_context_length",
            "original_max_position_embeddings",
        ),
        ("yarn_beta_fast", "beta_fast"),
        ("yarn_beta_slow", "beta_slow"),
        ("attn_factor", "attention_factor"),
    ] {
        let value = metadata.get(&key(&format!("rope.scaling.{theirs}")));
        if let Some(value) = value {
            let number = value.natural().map(Json::from);
            let value = number.or_else(|| value.number().map(Json::from));
            fields.insert(ours.to_owned(), value.unwrap_or(Json::Null));
        }
    }
    Ok(Some(Json::Object(fields)))
}
