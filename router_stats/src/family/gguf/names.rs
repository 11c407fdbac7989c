//! Names of tensors, ours and llama.cpp's.

use super::{stack, Gguf};
use crate::family::names::split_index;
use crate::family::{Names, Part, Projection, Role};

/// Modules of grouped-query attention.
pub(in crate::family) const ATTENTION: &[(&str, &str)] = &[
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
];

/// Norms of queries and keys.
pub(in crate::family) const QK_NORMS: &[(&str, &str)] = &[
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
];

/// Norms before attention and the feed-forward part.
pub(in crate::family) const NORMS: &[(&str, &str)] = &[
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
];

/// Matrices of dense layers.
pub(in crate::family) const DENSE: &[(&str, &str)] = &[
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// What every block's names begin with, up to the layer index.
const BLOCKS: &str = "blk.";

/// Module of the bias for the choice of experts.
const ROUTER_BIAS: &str = "exp_probs_b.bias";

/// Module of the router.
const ROUTER: &str = "ffn_gate_inp.weight";

/// What a tensor of a file is to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// One tensor, called so.
    Tensor(String),
    /// One matrix of every expert of a layer, [E, I, H] or [E, H, I].
    Experts {
        /// Index of the block.
        layer: usize,
        /// Which matrix.
        projection: Projection,
    },
    /// One matrix of one expert, as old files of Mixtral have it.
    Expert {
        /// Index of the block.
        layer: usize,
        /// Index of the expert.
        expert: usize,
        /// Which matrix.
        projection: Projection,
    },
}

impl Gguf {
    /// What the tensor that `names` calls `ours` is called in a file; `None` for
    /// those that a file does not have as one tensor: experts, which are
    /// [stacked](Self::experts), and block scales.
    pub fn theirs(&self, names: &Names, ours: &str) -> Option<String> {
        let (layer, inside) = match names.role(ours) {
            Role::Global => return globals(names, ours),
            Role::Block { layer, part } => match part {
                Part::Shared | Part::Router => (layer, names.inside(ours)?),
                _ => return None,
            },
        };
        let theirs = if inside == names.router {
            ROUTER.to_owned()
        } else if names.router_bias == Some(inside) {
            ROUTER_BIAS.to_owned()
        } else {
            let (module, kind) = inside.rsplit_once('.')?;
            let mut modules = self.modules.iter().copied().flatten();
            let (_, theirs) = modules.find(|(ours, _)| *ours == module)?;
            format!("{theirs}.{kind}")
        };
        Some(format!("{BLOCKS}{layer}.{theirs}"))
    }

    /// The name of one projection of all experts of a layer.
    pub fn experts(&self, layer: usize, projection: Projection) -> String {
        format!("{BLOCKS}{layer}.{}_exps.weight", stack(projection))
    }

    /// What the tensor that a file calls `theirs` is; `None` if the family has
    /// no such tensor.
    pub fn ours(&self, names: &Names, theirs: &str) -> Option<Stored> {
        let Some((layer, inside)) = theirs.strip_prefix(BLOCKS).and_then(split_index) else {
            let ours = [names.embedding, names.final_norm, names.head].map(str::to_owned);
            let biases = ours.each_ref().map(|name| Names::bias_of(name));
            let mut all = ours.into_iter().chain(biases);
            let ours = all.find(|ours| globals(names, ours).as_deref() == Some(theirs))?;
            return Some(Stored::Tensor(ours));
        };
        if inside == ROUTER {
            return Some(Stored::Tensor(names.in_block(layer, names.router)));
        }
        if inside == ROUTER_BIAS {
            return Some(Stored::Tensor(names.in_block(layer, names.router_bias?)));
        }
        for projection in Projection::ALL {
            let Some(rest) = inside.strip_prefix(stack(projection)) else {
                continue;
            };
            if rest == "_exps.weight" {
                return Some(Stored::Experts { layer, projection });
            }
            if let Some((expert, "weight")) = rest.strip_prefix('.').and_then(split_index) {
                return Some(Stored::Expert {
                    layer,
                    expert,
                    projection,
                });
            }
        }
        let (module, kind) = inside.rsplit_once('.')?;
        let mut modules = self.modules.iter().copied().flatten();
        let (ours, _) = modules.find(|(_, theirs)| *theirs == module)?;
        let known = ["weight", "bias"].contains(&kind);
        known.then(|| Stored::Tensor(names.in_block(layer, &format!("{ours}.{kind}"))))
    }
}

/// llama.cpp's name of what is outside the blocks.
fn globals(names: &Names, ours: &str) -> Option<String> {
    for (known, theirs) in [
        (names.embedding, "token_embd."),
        (names.final_norm, "output_norm."),
        (names.head, "output."),
    ] {
        if ours == known {
            return Some(format!("{theirs}weight"));
        }
        if ours == Names::bias_of(known) {
            return Some(format!("{theirs}bias"));
        }
    }
    None
}
