//! What the configurations of DeepSeek-V2 and its descendants have in common.

use super::{
    latent, router, Config, EngineLayout, MlpSpec, MoeSpec, NormSpec, RouterRule, Serving,
    SharedExperts, Topology, Uneven,
};
use crate::Result;

/// What a family means where its configuration does not say.
#[derive(Debug)]
pub(super) struct Defaults {
    /// `max_position_embeddings`.
    pub(super) positions: usize,
    /// `rms_norm_eps`.
    pub(super) eps: f64,
    /// `first_k_dense_replace`.
    pub(super) dense: usize,
}

/// A model with latent attention and routing by `rule`, whose first `dense`
/// layers are dense.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config)
pub(super) fn latent_moe(
    config: &Config,
    rule: RouterRule,
    dense: usize,
    defaults: &Defaults,
) -> Result<Topology> {
    config.require_one_of("hidden_act", &["silu"])?;
    if config.flag_or("mlp_bias", false)? {
        return Err(config.error("mlp_bias", "false"));
    }
    let layers = config.layers()?;
    Ok(Topology {
        hidden: config.count("hidden_size")?,
        vocab: config.count("vocab_size")?,
        max_positions: config.count_or("max_position_embeddings", defaults.positions)?,
        norm: NormSpec::rms(config.positive_or("rms_norm_eps", defaults.eps)?),
        tied_head: config.flag_or("tie_word_embeddings", false)?,
        head_bias: false,
        attention: latent::attention(config, layers, 10_000.0)?,
        mlps: leading_dense(config, rule, layers, dense)?,
        prediction_layers: prediction_layers(config)?,
    })
}

/// `dense` dense layers, then layers of experts and shared experts.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config)
pub(super) fn leading_dense(
    config: &Config,
    rule: RouterRule,
    layers: usize,
    dense: usize,
) -> Result<Vec<MlpSpec>> {
    if config.count_or("moe_layer_freq", 1)? != 1 {
        return Err(config.error("moe_layer_freq", "1"));
    }
    let intermediate = config.count("moe_intermediate_size")?;
    let moe = MoeSpec {
        experts: config.count("n_routed_experts")?,
        intermediate,
        router: rule,
        shared: shared_experts(config)?.map(|count| SharedExperts {
            intermediate: intermediate * count,
            gated: false,
        }),
    };
    router::check_top_k(config, &moe)?;
    let mut mlps = vec![MlpSpec::Moe(moe); layers];
    for mlp in mlps.iter_mut().take(dense) {
        *mlp = MlpSpec::Dense {
            intermediate: config.count("intermediate_size")?,
        };
    }
    Ok(mlps)
}

/// The number of shared experts. Absent, it means another thing to DeepSeek's
/// code than to transformers, so it must be said; 0 and null are none.
fn shared_experts(config: &Config) -> Result<Option<usize>> {
    let field = "n_shared_experts";
    match config.value().get(field) {
        None => Err(config.error(field, "an integer or null")),
        Some(_) => Ok(Some(config.natural_or(field, 0)?).filter(|&count| count > 0)),
    }
}

/// Multi-token-prediction blocks after the last layer.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config)
pub(super) fn prediction_layers(config: &Config) -> Result<usize> {
    config.natural_or("num_nextn_predict_layers", 0)
}

/// How the engine takes a model with latent attention, apart from its router.
pub(super) fn serving(topology: &Topology) -> Serving {
    match latent::refusal(topology) {
        Some(reason) => Serving::No(reason),
        None => Serving::Text(EngineLayout {
            stacked: true,
            uneven: topology
                .moes()
                .any(|moe| moe.router.correction_bias)
                .then_some(Uneven::Bias),
            ..EngineLayout::default()
        }),
    }
}
