//! Sublayers that a layer loses.

use serde::{Deserialize, Serialize};

/// Which sublayers of a block go: each adds to the residual stream, which then
/// passes it by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Skip {
    /// Its attention, with the norm before it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub attention: bool,
    /// Its experts or dense MLP, with the norm before them.
    #[serde(default, skip_serializing_if = "is_false")]
    pub mlp: bool,
}

impl Skip {
    /// Whether nothing goes.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// Whether nothing is left of the block.
    pub fn both(self) -> bool {
        self.attention && self.mlp
    }
}

fn is_false(flag: &bool) -> bool {
    !flag
}
