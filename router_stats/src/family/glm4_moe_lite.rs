//! GLM-4-MoE-Lite (GLM-4.7-Flash).
//!
//! Multi-head latent attention and routing as in DeepSeek-V3. The first layer
//! is dense; `mlp_layer_types` may say otherwise.
//!
//! Source: `Glm4MoeLiteForCausalLM` in Hugging Face transformers.

use serde_json::{json, Value};

use super::deepseek_v2::{latent_moe, spell_for_engine};
use super::deepseek_v3::NAMES;
use super::{
    rewrite, router, Config, EngineLayout, Family, Keep, Names, Projections, Serving, Topology,
};
use crate::Result;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Glm4MoeLite;

/// Says of every layer whether it is dense.
const LAYER_TYPES: &str = "mlp_layer_types";

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
        let unread = |layer| {
            let moe = topology.moe(layer)?;
            let wide = moe.shared?.intermediate != moe.intermediate;
            (wide || !moe.router.renormalize).then_some(())
        };
        if (0..topology.layers()).any(|layer| unread(layer).is_some()) {
            return Serving::No(
                "mistral.rs 0.8.1 reads one shared expert and always renormalises the gate values",
            );
        }
        match &topology.attention.projections {
            Projections::Latent(latent) if latent.q_rank.is_none() || latent.bias => Serving::No(
                "mistral.rs 0.8.1 reads a low-rank query projection and no attention biases",
            ),
            _ => Serving::Text(EngineLayout {
                stacked: true,
                ..EngineLayout::default()
            }),
        }
    }

    fn topology(&self, config: &Config) -> Result<Topology> {
        let rule = router::biased_sigmoid(config, config.count("n_routed_experts")?)?;
        let dense = match config.has(LAYER_TYPES) {
            true => leading_dense(config)?,
            false => config.natural_or("first_k_dense_replace", 1)?,
        };
        latent_moe(config, rule, dense)
    }

    fn rewrite_config(&self, config: &mut Value, topology: &Topology, keep: &Keep) {
        rewrite::deepseek(config, topology, keep);
        if keep.layers.len() < topology.layers() || config.get(LAYER_TYPES).is_some() {
            let kinds = keep.layers.iter().map(|&layer| match topology.moe(layer) {
                Some(_) => "sparse",
                None => "dense",
            });
            config[LAYER_TYPES] = kinds.collect::<Vec<_>>().into();
        }
    }

    fn spell_for_engine(&self, config: &mut Value, topology: &Topology) {
        spell_for_engine(config, topology);
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
