//! Model families: what a checkpoint's configuration and tensor names mean.
//!
//! A family is one file that implements [`Family`] and one line in
//! [`FAMILIES`]. It owns the reading and rewriting of `config.json` and the
//! spelling of tensor names; it owns no arithmetic (see [`crate::forward`]).

mod config;
mod deepseek;
mod deepseek_v2;
mod deepseek_v3;
pub mod gguf;
mod glm4_moe;
mod glm4_moe_lite;
mod grouped;
mod keep;
mod latent;
mod minimax_m2;
mod mixtral;
mod names;
mod olmoe;
mod phimoe;
mod qwen2_moe;
mod qwen3_moe;
mod qwen3_vl_moe;
mod rewrite;
mod rope;
mod router;
mod shapes;
mod spell;
mod stand_in;
#[cfg(test)]
mod tests;
mod topology;

use serde_json::Value;

pub use config::Config;
pub use keep::{Keep, Skip};
pub use names::{Names, Part, Projection, Role, Sublayer, SCALE_SUFFIX};
pub use shapes::Expected;
pub use topology::{
    AttentionSpec, GroupScore, GroupedQuery, Groups, Latent, LongRope, MlpSpec, MoeSpec, NormKind,
    NormSpec, Pairs, Projections, QkNorm, RotarySpec, RouterRule, Scaling, Scoring, SharedExperts,
    Topology, Yarn,
};

use crate::{Error, Result};

/// Every family this build reads.
pub const FAMILIES: &[&dyn Family] = &[
    &qwen3_moe::Qwen3Moe,
    &qwen3_vl_moe::Qwen3VlMoe,
    &qwen2_moe::Qwen2Moe,
    &mixtral::Mixtral,
    &phimoe::PhiMoe,
    &olmoe::Olmoe,
    &minimax_m2::MiniMaxM2,
    &deepseek_v2::DeepSeekV2,
    &deepseek_v3::DeepSeekV3,
    &glm4_moe::Glm4Moe,
    &glm4_moe_lite::Glm4MoeLite,
];

/// What one architecture's configuration and names mean.
pub trait Family: Sync + std::fmt::Debug {
    /// `model_type` in `config.json`: `qwen3_moe`.
    fn model_type(&self) -> &'static str;

    /// Entries of `architectures` in `config.json` that mean this family, the
    /// usual spelling first: `Qwen3MoeForCausalLM`.
    fn architectures(&self) -> &'static [&'static str];

    /// How tensors are called.
    fn names(&self) -> &'static Names;

    /// What the names of a vision tower begin with, if there is one.
    fn vision(&self) -> Option<&'static str> {
        None
    }

    /// Whether checkpoints on the hub stack the experts of a layer, as
    /// [E, H, 2I] and [E, I, H].
    fn stacks_experts(&self) -> bool {
        false
    }

    /// How the engine takes a model of this structure.
    fn serving(&self, topology: &Topology) -> Serving;

    /// How llama.cpp stores the family; `None` if it does not, or computes
    /// something else.
    fn gguf(&self) -> Option<&'static gguf::Gguf> {
        None
    }

    /// Reads the model's structure from its configuration.
    ///
    /// # Errors
    /// [`Error::Config`] for a field that is absent or unusable.
    fn topology(&self, config: &Config) -> Result<Topology>;

    /// Rewrites `config` so that it describes what `keep` leaves of the model.
    /// Keys that do not change are left alone, unknown ones included.
    ///
    /// `keep` has passed [`Keep::check`].
    fn rewrite_config(&self, config: &mut Value, topology: &Topology, keep: &Keep);

    /// How wide the dense MLP of zeros is that stands in the place of every
    /// feed-forward part that `keep` takes out of a layer that stays:
    /// [`rewrite_config`](Self::rewrite_config) says that those layers are
    /// dense. A model that has dense layers gives it their width, since a
    /// configuration states one.
    ///
    /// # Errors
    /// Why no configuration of the family describes such a model, as a clause.
    fn stand_in(
        &self,
        _topology: &Topology,
        _keep: &Keep,
    ) -> std::result::Result<usize, &'static str> {
        Err(stand_in::NO_DENSE_LAYERS)
    }

    /// Spells a `config` that describes `topology` so that the engine reads
    /// from it what [`topology`](Self::topology) does.
    fn spell_for_engine(&self, config: &mut Value, topology: &Topology) {
        spell::common(config, topology);
    }

    /// Takes back from `config` what [`spell_for_engine`](Self::spell_for_engine)
    /// says and only the engine's copy of the weights has.
    fn spell_for_others(&self, _config: &mut Value) {}
}

/// How the engine takes a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serving {
    /// As a language model.
    Text(EngineLayout),
    /// As a model that also sees images, with all tensors of its vision tower.
    Multimodal(EngineLayout),
    /// Not at all, for this reason.
    No(&'static str),
}

/// How the engine wants weights stored where it does not read them as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EngineLayout {
    /// Whether experts are stacked in one tensor per projection.
    pub stacked: bool,
    /// How it pairs rotary dimensions, if otherwise than the model: rows of
    /// the query and key projections are reordered for it.
    pub pairs: Option<Pairs>,
    /// How layers that keep fewer experts than others can be made to look alike
    /// to it, if they can.
    pub uneven: Option<Uneven>,
    /// What it still computes otherwise than the model, in a sentence.
    pub caveat: Option<&'static str>,
}

/// How layers that keep fewer experts than others are made to look alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uneven {
    /// The router is read without its shape being checked.
    Router,
    /// The router has a bias that closes absent experts.
    Bias,
    /// The residual stream gains a channel that does.
    Channel,
}

impl Serving {
    /// The engine's layout; `None` if it does not take the family.
    pub fn layout(self) -> Option<EngineLayout> {
        match self {
            Self::Text(layout) | Self::Multimodal(layout) => Some(layout),
            Self::No(_) => None,
        }
    }

    /// Why the engine does not take the family, or what it computes otherwise.
    pub fn note(self) -> Option<&'static str> {
        match self {
            Self::Text(layout) | Self::Multimodal(layout) => layout.caveat,
            Self::No(reason) => Some(reason),
        }
    }
}

/// Finds the family of a configuration by `architectures`, else `model_type`.
///
/// # Errors
/// [`Error::UnknownFamily`] if none is registered.
pub fn detect(config: &Config) -> Result<&'static dyn Family> {
    let architecture = config.architecture();
    let model_type = config.model_type();
    FAMILIES
        .iter()
        .copied()
        .find(|family| architecture.is_some_and(|it| family.architectures().contains(&it)))
        .or_else(|| {
            FAMILIES
                .iter()
                .copied()
                .find(|family| architecture.is_none() && model_type == Some(family.model_type()))
        })
        .ok_or_else(|| Error::UnknownFamily {
            path: config.path().to_path_buf(),
            found: architecture.or(model_type).unwrap_or("none").to_owned(),
            known: FAMILIES
                .iter()
                .map(|family| family.architectures()[0])
                .collect::<Vec<_>>()
                .join(", "),
        })
}
