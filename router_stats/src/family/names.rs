//! How a family spells its tensors, and what a given name is.

/// The spelling of a family's tensor names.
///
/// Names inside a block are relative to `{layers}{layer}.`; those of an
/// expert, relative to `{layers}{layer}.{experts}{expert}.`.
#[derive(Debug)]
pub struct Names {
    /// Token embedding [V, H].
    pub embedding: &'static str,
    /// Norm before the head `[H]`.
    pub final_norm: &'static str,
    /// Head [V, H]; absent if tied.
    pub head: &'static str,
    /// What every block's names begin with, up to the layer index.
    pub layers: &'static str,
    /// Norm before attention `[H]`.
    pub attention_norm: &'static str,
    /// Norm before the feed-forward part `[H]`.
    pub mlp_norm: &'static str,
    /// Attention module; holds `q_proj`, `k_proj`, `v_proj`, `o_proj`, `q_norm`,
    /// `k_norm`, or the projections of latent attention.
    pub attention: &'static str,
    /// Dense MLP module; holds the three projections.
    pub dense: &'static str,
    /// Router weight [E, H].
    pub router: &'static str,
    /// Bias `[E]` that a router adds for the choice of experts alone, if there is
    /// one.
    pub router_bias: Option<&'static str>,
    /// Module of the experts that every token passes through, if there are
    /// any; holds the three projections.
    pub shared: Option<&'static str>,
    /// Gate of their output [1, H], if there is one.
    pub shared_gate: Option<&'static str>,
    /// What every expert's names begin with, up to the expert index.
    pub experts: &'static str,
    /// Gate projection of an expert or dense MLP [I, H].
    pub gate: &'static str,
    /// Up projection [I, H].
    pub up: &'static str,
    /// Down projection [H, I].
    pub down: &'static str,
    /// All gate and up projections in one tensor, gate first: [E, H, 2I] or [E, 2I, H].
    pub stacked_gate_up: &'static str,
    /// All down projections in one tensor: [E, I, H] or [E, H, I].
    pub stacked_down: &'static str,
}

/// The spelling that most families share; the others start from it.
pub(super) const COMMON: Names = Names {
    embedding: "model.embed_tokens.weight",
    final_norm: "model.norm.weight",
    head: "lm_head.weight",
    layers: "model.layers.",
    attention_norm: "input_layernorm.weight",
    mlp_norm: "post_attention_layernorm.weight",
    attention: "self_attn.",
    dense: "mlp.",
    router: "mlp.gate.weight",
    router_bias: None,
    shared: None,
    shared_gate: None,
    experts: "mlp.experts.",
    gate: "gate_proj.weight",
    up: "up_proj.weight",
    down: "down_proj.weight",
    stacked_gate_up: "mlp.experts.gate_up_proj",
    stacked_down: "mlp.experts.down_proj",
};

/// One of an expert's three matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Projection {
    /// [I, H], inside the activation.
    Gate,
    /// [I, H], multiplied by the activated gate projection.
    Up,
    /// [H, I], back to the residual stream.
    Down,
}

impl Projection {
    /// All three, in the order they are applied.
    pub const ALL: [Self; 3] = [Self::Gate, Self::Up, Self::Down];
}

/// What a tensor is to pruning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Outside the blocks: carried over unchanged.
    Global,
    /// Belongs to a block and goes with it.
    Block {
        /// Index of the block.
        layer: usize,
        /// What it is there.
        part: Part,
    },
}

/// What a tensor is inside its block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Independent of the experts: norms, attention, dense MLP.
    Shared,
    /// Has one row per expert: the router's weight or bias.
    Router,
    /// One matrix of one expert.
    Expert {
        /// Index of the expert.
        expert: usize,
        /// Which matrix.
        projection: Projection,
    },
    /// Block scales of one fp8 matrix of one expert.
    ExpertScale {
        /// Index of the expert.
        expert: usize,
        /// Which matrix.
        projection: Projection,
    },
    /// Gate and up projections of all experts, or one of the two.
    StackedGateUp,
    /// Down projections of all experts.
    StackedDown,
}

/// One of the two parts of a block that add to the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sublayer {
    /// Attention with the norm before it.
    Attention,
    /// The router and its experts, or a dense MLP, with the norm before them.
    Mlp,
}

/// What the name of an fp8 weight is followed by in that of its block scales.
pub const SCALE_SUFFIX: &str = "_scale_inv";

impl Names {
    /// Name of a tensor inside a block.
    pub fn in_block(&self, layer: usize, name: &str) -> String {
        format!("{}{layer}.{name}", self.layers)
    }

    /// Name of one matrix of one expert.
    pub fn expert(&self, layer: usize, expert: usize, projection: Projection) -> String {
        let matrix = self.projection(projection);
        format!("{}{layer}.{}{expert}.{matrix}", self.layers, self.experts)
    }

    /// Name of the bias that goes with the weight called `weight`.
    pub fn bias_of(weight: &str) -> String {
        format!("{}bias", weight.strip_suffix("weight").unwrap_or(weight))
    }

    /// Name inside the block of one projection of all experts, where each has a
    /// stack of its own: [E, I, H], or [E, H, I] for down.
    pub fn stack(&self, projection: Projection) -> String {
        let matrix = self.projection(projection);
        let matrix = matrix.strip_suffix(".weight").unwrap_or(matrix);
        format!("{}{matrix}", self.experts)
    }

    /// Spelling of a projection inside its module.
    pub fn projection(&self, projection: Projection) -> &'static str {
        match projection {
            Projection::Gate => self.gate,
            Projection::Up => self.up,
            Projection::Down => self.down,
        }
    }

    /// What the tensor called `name` is.
    pub fn role(&self, name: &str) -> Role {
        let Some((layer, name)) = name.strip_prefix(self.layers).and_then(split_index) else {
            return Role::Global;
        };
        let part = if name == self.router || self.router_bias == Some(name) {
            Part::Router
        } else if name == self.stacked_gate_up {
            Part::StackedGateUp
        } else if name == self.stacked_down {
            Part::StackedDown
        } else {
            let part = self.stack_part(name).or_else(|| self.expert_part(name));
            part.unwrap_or(Part::Shared)
        };
        Role::Block { layer, part }
    }

    /// Which sublayer of its block the tensor called `name` belongs to; `None`
    /// outside the blocks.
    pub fn sublayer(&self, name: &str) -> Option<Sublayer> {
        let (_, inside) = name.strip_prefix(self.layers).and_then(split_index)?;
        let attention = inside.starts_with(self.attention)
            || [self.attention_norm, &Self::bias_of(self.attention_norm)].contains(&inside);
        Some(if attention {
            Sublayer::Attention
        } else {
            Sublayer::Mlp
        })
    }

    /// The name of a tensor inside its block; `None` outside the blocks.
    pub fn inside<'a>(&self, name: &'a str) -> Option<&'a str> {
        let (_, inside) = name.strip_prefix(self.layers).and_then(split_index)?;
        Some(inside)
    }

    /// Whether the tensor called `name` is the norm before the feed-forward
    /// part of its block, which an engine asks for whatever follows it.
    pub fn is_mlp_norm(&self, name: &str) -> bool {
        let inside = name.strip_prefix(self.layers).and_then(split_index);
        inside.is_some_and(|(_, inside)| {
            [self.mlp_norm, &Self::bias_of(self.mlp_norm)].contains(&inside)
        })
    }

    /// Whether the tensor called `name` is a matrix that quantisation rounds:
    /// a projection of attention, of a dense MLP, or of a routed or shared
    /// expert. Embedding, head, routers, the gate of shared experts, norms and
    /// biases are not.
    pub fn is_projection(&self, name: &str) -> bool {
        let Role::Block { part, .. } = self.role(name) else {
            return false;
        };
        match part {
            Part::Expert { .. } | Part::StackedGateUp | Part::StackedDown => true,
            Part::Router | Part::ExpertScale { .. } => false,
            Part::Shared => {
                let name = name.strip_prefix(self.layers).and_then(split_index);
                name.is_some_and(|(_, name)| self.is_shared_projection(name))
            }
        }
    }

    /// [`is_projection`](Self::is_projection) of a name inside a block that is
    /// not of routed experts.
    fn is_shared_projection(&self, name: &str) -> bool {
        if let Some(name) = name.strip_prefix(self.attention) {
            let module = name.strip_suffix(".weight");
            return module.is_some_and(|module| module.contains("_proj"));
        }
        let modules = [Some(self.dense), self.shared];
        modules.into_iter().flatten().any(|module| {
            let matrix = name.strip_prefix(module);
            let spelled = |projection| matrix == Some(self.projection(projection));
            Projection::ALL.into_iter().any(spelled)
        })
    }

    fn stack_part(&self, name: &str) -> Option<Part> {
        let matrix = name.strip_prefix(self.experts)?;
        let spelled = |projection| {
            let whole = self.projection(projection);
            whole.strip_suffix(".weight") == Some(matrix)
        };
        let projection = Projection::ALL.into_iter().find(|&it| spelled(it))?;
        Some(match projection {
            Projection::Gate | Projection::Up => Part::StackedGateUp,
            Projection::Down => Part::StackedDown,
        })
    }

    fn expert_part(&self, name: &str) -> Option<Part> {
        let (expert, matrix) = split_index(name.strip_prefix(self.experts)?)?;
        let (matrix, scales) = match matrix.strip_suffix(SCALE_SUFFIX) {
            Some(matrix) => (matrix, true),
            None => (matrix, false),
        };
        let projection = Projection::ALL
            .into_iter()
            .find(|&projection| self.projection(projection) == matrix)?;
        Some(if scales {
            Part::ExpertScale { expert, projection }
        } else {
            Part::Expert { expert, projection }
        })
    }
}

/// Splits `12.rest` into `(12, "rest")`.
pub(super) fn split_index(name: &str) -> Option<(usize, &str)> {
    let (index, rest) = name.split_once('.')?;
    // `parse` alone would also accept `+1` and `01`, which name other tensors.
    let number: usize = index.parse().ok()?;
    (number.to_string() == index).then_some((number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::family::FAMILIES;

    #[test]
    fn every_family_recognises_the_names_it_spells() {
        for family in FAMILIES {
            let names = family.names();
            for (name, part) in [
                (names.router, Part::Router),
                (names.stacked_gate_up, Part::StackedGateUp),
                (names.stacked_down, Part::StackedDown),
                (names.attention_norm, Part::Shared),
            ] {
                assert_eq!(
                    names.role(&names.in_block(7, name)),
                    Role::Block { layer: 7, part }
                );
            }
            for projection in Projection::ALL {
                let part = Part::Expert {
                    expert: 12,
                    projection,
                };
                let name = names.expert(3, 12, projection);
                assert_eq!(names.role(&name), Role::Block { layer: 3, part });
                let part = Part::ExpertScale {
                    expert: 12,
                    projection,
                };
                let name = format!("{name}{SCALE_SUFFIX}");
                assert_eq!(names.role(&name), Role::Block { layer: 3, part });
            }
            if let Some(bias) = names.router_bias {
                let part = Part::Router;
                let name = names.in_block(7, bias);
                assert_eq!(names.role(&name), Role::Block { layer: 7, part });
            }
            for name in [
                names.embedding,
                names.final_norm,
                names.head,
                "model.layers.x.y",
                "model.layers.+1.y",
            ] {
                assert_eq!(names.role(name), Role::Global);
            }
        }
    }
}
