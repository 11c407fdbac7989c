//! Layers that lose a sublayer.
//!
//! Every loader builds both sublayers of every layer. In the place of a
//! feed-forward part that goes, the result has a dense MLP of zeros, if the
//! family's configuration can call that layer dense
//! ([`stand_in`](router_stats::family::Family::stand_in)), with the norm before
//! it: nothing is added to the residual stream, exactly. It weighs little, and
//! the sizes of a plan count it.
//!
//! No configuration can say that a layer has no attention. An output projection
//! of zeros would compute the same, but the layer would weigh, and cost in time
//! and in cache for keys and values, what it did; a plan says that it is gone. So
//! that is refused.

use router_stats::family::{Family, Keep, Names, Projection, Sublayer, Topology};

use super::layout::{Output, Source};
use super::Cut;
use crate::error::{Error, Result};
use crate::plan::PlanOptions;

/// Why no result lacks attention.
const NO_ATTENTION: &str = "no configuration can say that a layer has no attention, and zeros in \
                            its place would weigh as much";

/// What works where attention was to go.
const INSTEAD_OF_ATTENTION: &str =
    "`eval` measures such a plan; --drop-moe and --drop-layers can be written";

/// What works where the experts of a layer were to go.
const INSTEAD_OF_EXPERTS: &str = "`eval` measures such a plan; --drop-layers can be written";

/// Fails if no result could lack what `keep` takes out of layers that stay; how
/// wide the zeros are in the place of feed-forward parts, if any goes.
///
/// # Errors
/// [`Error::NotWritten`]
pub(super) fn check(
    model: &str,
    family: &dyn Family,
    topology: &Topology,
    keep: &Keep,
) -> Result<Option<usize>> {
    let first = |goes: &dyn Fn(usize) -> bool| keep.layers.iter().copied().find(|&it| goes(it));
    if let Some(layer) = first(&|layer| keep.skip(layer).attention) {
        return Err(not_written(
            model,
            format!("the attention of layer {layer}"),
            NO_ATTENTION,
            INSTEAD_OF_ATTENTION,
        ));
    }
    let Some(layer) = first(&|layer| keep.skip(layer).mlp) else {
        return Ok(None);
    };
    let width = family.stand_in(topology, keep);
    width.map(Some).map_err(|reason| {
        let what = format!("the experts of layer {layer}");
        not_written(model, what, reason, INSTEAD_OF_EXPERTS)
    })
}

/// Fails if what `options` ask for cannot be written whatever is chosen: what
/// can be refused before there are statistics.
///
/// # Errors
/// [`Error::NotWritten`]
pub fn check_asked(
    model: &str,
    family: &dyn Family,
    topology: &Topology,
    options: &PlanOptions,
) -> Result<()> {
    if options.drop_attention.is_some() {
        let what = "attention".to_owned();
        return Err(not_written(model, what, NO_ATTENTION, INSTEAD_OF_ATTENTION));
    }
    let moe = (0..topology.layers()).find(|&layer| topology.moe(layer).is_some());
    let (Some(_), Some(first)) = (options.drop_moe, moe) else {
        return Ok(());
    };
    // If any can go, the first can.
    let mut keep = Keep::all(topology);
    keep.skipped[first].mlp = true;
    let possible = family.stand_in(topology, &keep);
    possible.map(|_| ()).map_err(|reason| {
        let what = "the experts of a layer".to_owned();
        not_written(model, what, reason, INSTEAD_OF_EXPERTS)
    })
}

fn not_written(model: &str, what: String, reason: &'static str, instead: &'static str) -> Error {
    Error::NotWritten {
        model: model.to_owned(),
        what,
        reason,
        instead,
    }
}

/// Whether the tensor `name` of `layer`, which stays, is not in the result.
pub(super) fn goes(cut: &Cut<'_>, layer: usize, name: &str) -> bool {
    let names = cut.family.names();
    cut.keep.skip(layer).mlp
        && names.sublayer(name) == Some(Sublayer::Mlp)
        && !names.is_mlp_norm(name)
}

/// The MLP of zeros of `layer`, which is `index` in the result, if its
/// feed-forward part goes: in the dtype of the norm before it.
///
/// # Errors
/// [`Error::NotWritten`], or [`MissingTensor`](router_stats::Error::MissingTensor)
/// if there is no such norm.
pub(super) fn stand_in(cut: &Cut<'_>, layer: usize, index: usize) -> Result<Vec<Output>> {
    if !cut.keep.skip(layer).mlp {
        return Ok(Vec::new());
    }
    let width = check(&cut.checkpoint.name(), cut.family, cut.topology, cut.keep)?;
    let Some(width) = width else {
        return Ok(Vec::new());
    };
    let (names, hidden) = (cut.family.names(), cut.topology.hidden);
    let norm = cut
        .checkpoint
        .tensor(&names.in_block(layer, names.mlp_norm))?;
    let dtype = norm.plain()?;
    let matrix = |projection| {
        let shape = match projection {
            Projection::Gate | Projection::Up => vec![width, hidden],
            Projection::Down => vec![hidden, width],
        };
        let bytes = (width * hidden * (dtype.bitsize() / 8)) as u64;
        Output {
            name: named(names, index, projection),
            dtype,
            shape,
            bytes,
            source: Source::Zeros,
        }
    };
    Ok(Projection::ALL.map(matrix).to_vec())
}

fn named(names: &Names, index: usize, projection: Projection) -> String {
    let matrix = names.projection(projection);
    names.in_block(index, &format!("{}{matrix}", names.dense))
}
