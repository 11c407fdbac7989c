//! Whether a tensor is one that pruning knows what to do with.
//!
//! Every tensor of the source must be accounted for: outside the blocks it is
//! carried over; inside a block it is independent of the experts, or the
//! router, or an expert's. Anything else — a block that `config.json` does not
//! count, a tensor of the router that the family does not have, experts in a
//! dense layer — would be wrong after pruning whether it were carried or
//! dropped, and is an error.

use router_stats::checkpoint::{self, ExpertReader};
use router_stats::family::{Names, Part};

use super::Cut;
use crate::{Error, Result};

/// Fails unless pruning knows what to do with a tensor inside a block.
///
/// # Errors
/// [`Error::Unclassified`]
pub(super) fn check_part(cut: &Cut<'_>, name: &str, layer: usize, part: Part) -> Result<()> {
    let names = cut.family.names();
    let layers = cut.topology.layers();
    if layer >= layers {
        return unclassified(
            cut,
            name,
            format!("one of the {layers} blocks that config.json counts"),
        );
    }
    match (part, cut.topology.moe(layer)) {
        (Part::Shared, _)
            if belongs_to_experts(names, &name[names.in_block(layer, "").len()..]) =>
        {
            unclassified(
                cut,
                name,
                "a weight of the router or of one expert".to_owned(),
            )
        }
        (Part::Shared, _) => Ok(()),
        (_, None) => unclassified(
            cut,
            name,
            format!("no experts in layer {layer}, which is dense"),
        ),
        (Part::Expert { expert, .. } | Part::ExpertScale { expert, .. }, Some(moe))
            if expert >= moe.experts =>
        {
            unclassified(
                cut,
                name,
                format!("one of the {} experts that config.json counts", moe.experts),
            )
        }
        _ => Ok(()),
    }
}

/// Whether a name inside a block, which is none of the known parts, is still
/// in the router's or the experts' module.
fn belongs_to_experts(names: &Names, name: &str) -> bool {
    let router = names.router.strip_suffix("weight").unwrap_or(names.router);
    name.starts_with(router) || name.starts_with(names.experts)
}

/// Fails if a layer holds its experts twice, in both layouts.
///
/// # Errors
/// [`Error::Unclassified`]
pub(super) fn check_one_layout(
    cut: &Cut<'_>,
    tensors: &[(&str, Part)],
    reader: &ExpertReader<'_>,
) -> Result<()> {
    let per_expert = reader.layout() == checkpoint::Layout::PerExpert;
    let stray = tensors.iter().find(|(_, part)| match part {
        Part::Shared | Part::Router => false,
        Part::Expert { .. } | Part::ExpertScale { .. } => !per_expert,
        Part::StackedGateUp | Part::StackedDown => per_expert,
    });
    match stray {
        None => Ok(()),
        Some((name, _)) => {
            unclassified(cut, name, "the experts of a layer in one layout".to_owned())
        }
    }
}

fn unclassified(cut: &Cut<'_>, tensor: &str, expected: String) -> Result<()> {
    Err(Error::Unclassified {
        path: cut.checkpoint.dir().to_path_buf(),
        tensor: tensor.to_owned(),
        expected,
    })
}
