//! Qwen3-MoE (Qwen3-30B-A3B, Qwen3-235B-A22B, Qwen3-Coder).
//!
//! Softmax over all experts, then top-k, then renormalisation if
//! `norm_topk_prob`; queries and keys are RMS-normalised per head. Layers
//! named in `mlp_only_layers`, and those that `decoder_sparse_step` skips,
//! are dense.
//!
//! Source: `Qwen3MoeForCausalLM` in Hugging Face transformers.

use serde_json::{json, Value};

use super::gguf::{self, Gguf};
use super::names::COMMON;
use super::{
    grouped, rewrite, rope, router, spell, stand_in, AttentionSpec, Config, EngineLayout, Family,
    GroupedQuery, Keep, MlpSpec, MoeSpec, Names, NormSpec, Pairs, QkNorm, RouterRule, Serving,
    Topology, Uneven,
};
use crate::Result;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Qwen3Moe;

/// The number of experts, as on the hub and as transformers 5 writes it.
pub(super) const EXPERTS: [&str; 2] = ["num_experts", "num_local_experts"];

/// `max_window_layers` where a configuration does not say: layers at and above
/// it use the sliding window.
const MAX_WINDOW_LAYERS: u64 = 28;

impl Family for Qwen3Moe {
    fn model_type(&self) -> &'static str {
        "qwen3_moe"
    }

    fn architectures(&self) -> &'static [&'static str] {
        &["Qwen3MoeForCausalLM"]
    }

    fn names(&self) -> &'static Names {
        &COMMON
    }

    fn serving(&self, topology: &Topology) -> Serving {
        if grouped::biased(topology) {
            return Serving::No("mistral.rs 0.8.1 reads no attention biases for this family");
        }
        Serving::Text(EngineLayout {
            stacked: true,
            uneven: Some(Uneven::Channel),
            ..EngineLayout::default()
        })
    }

    fn gguf(&self) -> Option<&'static Gguf> {
        Some(&GGUF)
    }

    fn topology(&self, config: &Config) -> Result<Topology> {
        read(config, 10_000.0, 32_768)
    }

    fn rewrite_config(&self, config: &mut Value, topology: &Topology, keep: &Keep) {
        rewrite::counts(config, &EXPERTS, topology, keep);
        let layers = keep.layers.len();
        if layers < topology.layers() {
            shorten_windows(config, keep);
        }
        rewrite::keep_layer_entries(config, "layer_types", &keep.layers);
        rewrite::listed_dense_layers(config, topology, keep);
    }

    fn stand_in(
        &self,
        topology: &Topology,
        keep: &Keep,
    ) -> std::result::Result<usize, &'static str> {
        Ok(stand_in::anywhere(topology, keep))
    }

    fn spell_for_engine(&self, config: &mut Value, topology: &Topology) {
        spell::common(config, topology);
        if let Some(moe) = topology.moes().next() {
            spell::default(config, EXPERTS[0], moe.experts);
            spell::default(config, "norm_topk_prob", moe.router.renormalize);
            spell::default(config, "intermediate_size", moe.intermediate);
        }
        spell::default(config, "use_sliding_window", false);
        spell::default(config, "max_window_layers", MAX_WINDOW_LAYERS);
        spell::default(config, "mlp_only_layers", Vec::<usize>::new());
        spell::default(config, "decoder_sparse_step", 1);
    }
}

/// llama.cpp has experts in every layer, no biases, and gate values that are
/// always renormalised.
static GGUF: Gguf = Gguf {
    architecture: "qwen3moe",
    modules: &[gguf::ATTENTION, gguf::QK_NORMS, gguf::NORMS],
    pairs: Pairs::Halves,
    refuses: |topology| {
        if topology.dense_layers() > 0 {
            return Some(gguf::NO_DENSE_LAYERS);
        }
        if topology.moes().any(|moe| !moe.router.renormalize) {
            return Some("llama.cpp always renormalises gate values of this family");
        }
        if grouped::biased(topology) {
            return Some("llama.cpp reads no attention biases for this family");
        }
        gguf::plain_attention(topology)
    },
    keys: |topology| {
        let mut keys = gguf::grouped_keys("qwen3moe", topology);
        keys.extend(gguf::expert_width("qwen3moe", topology));
        keys
    },
    read: |metadata, _| {
        let mut config = gguf::grouped_config("qwen3moe", metadata)?;
        config["architectures"] = json!(["Qwen3MoeForCausalLM"]);
        config["model_type"] = json!("qwen3_moe");
        gguf::expert_keys("qwen3moe", EXPERTS[0], metadata, &mut config)?;
        let width = metadata.count("qwen3moe.expert_feed_forward_length")?;
        config["moe_intermediate_size"] = json!(width);
        config["norm_topk_prob"] = json!(true);
        Ok(config)
    },
};

/// Reads the structure. `theta` is the base of rotary positions, and
/// `max_positions` their number, where the configuration does not say.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config)
pub(super) fn read(config: &Config, theta: f64, max_positions: usize) -> Result<Topology> {
    config.require_one_of("hidden_act", &["silu"])?;
    let layers = config.layers()?;
    let hidden = config.count("hidden_size")?;
    let moe = MoeSpec {
        experts: config.spelled_count(EXPERTS)?,
        intermediate: config.count("moe_intermediate_size")?,
        router: RouterRule::softmax(
            config.count("num_experts_per_tok")?,
            config.flag_or("norm_topk_prob", false)?,
        ),
        shared: None,
    };
    router::check_top_k(config, &moe)?;
    let mlps = mlps(config, &moe)?;
    let bias = config.flag_or("attention_bias", false)?;
    let query = GroupedQuery {
        qk_norm: Some(QkNorm::Head),
        qkv_bias: bias,
        o_bias: bias,
        ..grouped::query(config, hidden)?
    };
    let rotary = rope::plain(config, query.head_dim, theta)?;
    Ok(Topology {
        hidden,
        vocab: config.count("vocab_size")?,
        max_positions: config.count_or("max_position_embeddings", max_positions)?,
        norm: NormSpec::rms(config.positive_or("rms_norm_eps", 1e-6)?),
        tied_head: config.flag_or("tie_word_embeddings", false)?,
        head_bias: false,
        attention: AttentionSpec::grouped(query, rotary, windows(config, layers)?),
        mlps,
        prediction_layers: 0,
    })
}

/// Layers of `moe`, but dense ones where `mlp_only_layers` lists them or
/// `decoder_sparse_step` skips them. Shared with Qwen2-MoE.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config)
pub(super) fn mlps(config: &Config, moe: &MoeSpec) -> Result<Vec<MlpSpec>> {
    let sparse_step = config.count_or("decoder_sparse_step", 1)?;
    let dense_layers = config.indices("mlp_only_layers")?;
    let in_layer = |layer: usize| {
        if dense_layers.contains(&layer) || !(layer + 1).is_multiple_of(sparse_step) {
            Ok(MlpSpec::Dense {
                intermediate: config.count("intermediate_size")?,
            })
        } else {
            Ok(MlpSpec::Moe(moe.clone()))
        }
    };
    (0..config.layers()?).map(in_layer).collect()
}

/// Sliding windows apply from `max_window_layers` on, if at all.
fn windows(config: &Config, layers: usize) -> Result<Vec<Option<usize>>> {
    if !config.flag_or("use_sliding_window", false)? || !config.has("sliding_window") {
        return Ok(vec![None; layers]);
    }
    let window = config.count("sliding_window")?;
    let full = full_attention_layers(config.value()).unwrap_or(MAX_WINDOW_LAYERS);
    Ok((0..layers)
        .map(|layer| (layer as u64 >= full).then_some(window))
        .collect())
}

fn full_attention_layers(config: &Value) -> Option<u64> {
    config.get("max_window_layers").and_then(Value::as_u64)
}

/// Rewrites `max_window_layers` to the kept layers below it. Where windows are
/// in use and the field is absent, it is written, as its default would count
/// other layers than before.
fn shorten_windows(config: &mut Value, keep: &Keep) {
    let sliding = config.get("use_sliding_window").and_then(Value::as_bool) == Some(true);
    let full = full_attention_layers(config).or(sliding.then_some(MAX_WINDOW_LAYERS));
    if let Some(full) = full {
        let below = keep.layers.iter().filter(|&&layer| (layer as u64) < full);
        config["max_window_layers"] = below.count().into();
    }
}

#[cfg(test)]
mod tests;
