//! The width of value heads in latent attention.
//!
//! On the CPU the engine takes the width of values from that of queries. Where
//! values are narrower, its copy has zeros after each head's values and the
//! columns of the output projection that meet them, which changes nothing.
//! fp8 weights are left as they are: rows of one block share a scale.

use router_stats::checkpoint::Checkpoint;
use router_stats::family::{Family, Latent, Projections, Topology};
use serde_json::Value;

use super::{fp8, Cut};

/// The field of `config.json` that holds the width of values.
const FIELD: &str = "v_head_dim";

/// The matrices that the width of values is a part of.
const MATRICES: [&str; 2] = ["kv_b_proj", "o_proj"];

/// Zeros between the rows or columns of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Padding {
    /// 0 for rows, 1 for columns.
    pub(super) axis: usize,
    /// Rows or columns that stay together.
    pub(super) width: usize,
    /// How many they become.
    pub(super) padded: usize,
}

/// What the matrix called `inside` in its block must gain.
pub(super) fn padding(cut: &Cut<'_>, inside: &str) -> Option<Padding> {
    let (latent, wide) = widened(cut)?;
    match inside.strip_prefix(cut.family.names().attention)? {
        "kv_b_proj.weight" => Some(Padding {
            axis: 0,
            width: latent.nope_dim + latent.value_dim,
            padded: latent.nope_dim + wide,
        }),
        "o_proj.weight" => Some(Padding {
            axis: 1,
            width: latent.value_dim,
            padded: wide,
        }),
        _ => None,
    }
}

/// Says in `config` how wide values are in the result.
pub(super) fn spell(cut: &Cut<'_>, config: &mut Value) {
    if let Some((_, wide)) = widened(cut) {
        config[FIELD] = wide.into();
    }
}

/// Whether values are narrower than queries in fp8, so that the engine cannot
/// run the model on the CPU.
pub(super) fn narrow_fp8(
    checkpoint: &Checkpoint,
    family: &dyn Family,
    topology: &Topology,
) -> bool {
    narrow(topology).is_some() && fp8::in_attention(checkpoint, family, topology, &MATRICES)
}

/// The attention whose values have to become wider, and how wide.
fn widened<'a>(cut: &Cut<'a>) -> Option<(&'a Latent, usize)> {
    if cut.layout.is_for_engine() && !narrow_fp8(cut.checkpoint, cut.family, cut.topology) {
        narrow(cut.topology)
    } else {
        None
    }
}

/// The attention whose values are narrower than queries, and the width of
/// those.
fn narrow(topology: &Topology) -> Option<(&Latent, usize)> {
    let attention = &topology.attention;
    let Projections::Latent(latent) = &attention.projections else {
        return None;
    };
    let wide = latent.nope_dim + attention.rotary.dim;
    (latent.value_dim < wide).then_some((latent, wide))
}
