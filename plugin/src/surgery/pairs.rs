//! The order of rows that rotary positions see.
//!
//! Where the engine, or llama.cpp, turns other pairs of dimensions than the
//! model does, the rows of the query and key projections are reordered so that both compute
//! the same: q·k does not depend on the order of dimensions. Only grouped-query
//! families need this.

use router_stats::checkpoint::Checkpoint;
use router_stats::family::{Family, Pairs, Projections, Topology};
use safetensors::Dtype;

use super::{fp8, Cut, Layout};
use crate::{Error, Result};

/// Modules of the attention whose rows turn: projections, then norms.
const TURNING: [&str; 4] = ["q_proj", "k_proj", "q_norm", "k_norm"];

/// Whether the engine pairs other dimensions than `checkpoint` does, and rows
/// that would have to be reordered are fp8.
pub(super) fn fp8(checkpoint: &Checkpoint, family: &dyn Family, topology: &Topology) -> bool {
    let engine = family.serving(topology).layout().and_then(|it| it.pairs);
    engine.is_some_and(|pairs| pairs != topology.attention.rotary.pairs)
        && fp8::in_attention(checkpoint, family, topology, &TURNING[..2])
}

/// How the result pairs rotary dimensions, for families where that depends on
/// the layout.
fn wanted(cut: &Cut<'_>) -> Option<Pairs> {
    if let Layout::Gguf(_) = cut.layout {
        return cut.family.gguf().map(|gguf| gguf.pairs);
    }
    let engine = cut.family.serving(cut.topology).layout()?.pairs?;
    Some(match (cut.layout, engine) {
        (Layout::Engine | Layout::Uqff(_), pairs) => pairs,
        (Layout::Hf | Layout::Gguf(_), Pairs::Halves) => Pairs::Adjacent,
        (Layout::Hf | Layout::Gguf(_), Pairs::Adjacent) => Pairs::Halves,
    })
}

/// The order that the rows of a tensor must have in the result, or `None` if
/// they stay. `inside` is its name in the block, `name` the whole name.
///
/// # Errors
/// [`MissingTensor`](router_stats::Error::MissingTensor);
/// [`Error::Unclassified`] for fp8 weights, whose blocks of rows have scales.
pub(super) fn rows(cut: &Cut<'_>, inside: &str, name: &str) -> Result<Option<Vec<usize>>> {
    let rotary = &cut.topology.attention.rotary;
    let Some(pairs) = wanted(cut).filter(|&pairs| pairs != rotary.pairs) else {
        return Ok(None);
    };
    let Projections::Grouped(query) = &cut.topology.attention.projections else {
        return Ok(None);
    };
    let turns = inside
        .strip_prefix(cut.family.names().attention)
        .and_then(|module| module.split_once('.'))
        .is_some_and(|(module, _)| TURNING.contains(&module));
    if !turns {
        return Ok(None);
    }
    let tensor = cut.checkpoint.tensor(name)?;
    if tensor.element == Dtype::F8_E4M3.into() {
        return Err(Error::Unclassified {
            path: cut.checkpoint.dir().to_path_buf(),
            tensor: name.to_owned(),
            expected: "no block scales, as its rows have to be reordered".to_owned(),
        });
    }
    let rows = tensor.shape.first().copied();
    let head = order(pairs, rotary.dim, query.head_dim);
    Ok(Some(
        (0..rows.unwrap_or(0))
            .map(|row| row / query.head_dim * query.head_dim + head[row % query.head_dim])
            .collect(),
    ))
}

/// Which dimension of a head comes to each place, when the first `turning` of
/// `width` become paired as `to` says, from the other way.
fn order(to: Pairs, turning: usize, width: usize) -> Vec<usize> {
    let half = turning / 2;
    (0..width)
        .map(|place| match to {
            _ if place >= turning => place,
            Pairs::Adjacent => place / 2 + place % 2 * half,
            Pairs::Halves => place % half * 2 + place / half,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partners_come_together_and_part_again() {
        assert_eq!(order(Pairs::Adjacent, 6, 8), [0, 3, 1, 4, 2, 5, 6, 7]);
        assert_eq!(order(Pairs::Halves, 6, 8), [0, 2, 4, 1, 3, 5, 6, 7]);
    }
}
