//! Blocks that the source has already: they become artifacts as they are.

use candle_core::quantized::GgmlDType;
use router_stats::checkpoint::Element;
use safetensors::Dtype;

use super::super::layout::{Output, Source, Widened};
use super::super::Cut;
use crate::Result;

/// The blocks of the matrices that `parts` are, and the parts as bytes of them;
/// `None` if they are no blocks, or not all of one type.
///
/// # Errors
/// [`MissingTensor`](router_stats::Error::MissingTensor)
pub(super) fn parts(
    cut: &Cut<'_>,
    parts: &[Option<Output>],
) -> Result<Option<(GgmlDType, Vec<Option<Output>>)>> {
    let mut common = None;
    let mut stored = Vec::with_capacity(parts.len());
    for part in parts {
        let Some(part) = part else {
            stored.push(None);
            continue;
        };
        match matrix(cut, part)? {
            Some((blocks, part)) if common.is_none_or(|it| it == blocks) => {
                common = Some(blocks);
                stored.push(Some(part));
            }
            _ => return Ok(None),
        }
    }
    Ok(common.map(|blocks| (blocks, stored)))
}

/// A matrix whose numbers would come from blocks, as bytes of these.
fn matrix(cut: &Cut<'_>, output: &Output) -> Result<Option<(GgmlDType, Output)>> {
    let (blocks, source) = match &output.source {
        Source::Weight { tensor } => {
            let view = cut.checkpoint.tensor(tensor)?;
            let Element::Blocks(blocks) = view.element else {
                return Ok(None);
            };
            let rows = (0..output.shape[0]).map(|row| view.stored_row(row));
            let source = Source::Rows {
                tensor: tensor.clone(),
                rows: rows.collect(),
            };
            (blocks, source)
        }
        &Source::Numbers {
            layer,
            expert,
            projection,
            blocks,
        } => {
            let source = Source::Matrix {
                layer,
                expert,
                projection,
            };
            (blocks, source)
        }
        Source::Widened(widened) => return self::widened(cut, output, widened),
        _ => return Ok(None),
    };
    let bytes = bytes(blocks, &output.shape);
    Ok(bytes.map(|bytes| (blocks, as_bytes(output, bytes, source))))
}

/// A matrix with rows or columns added, which are whole blocks of zeros: bytes
/// that are 0. A head that is the embedding has another number in one of its
/// columns, by which nothing is multiplied.
fn widened(
    cut: &Cut<'_>,
    output: &Output,
    widened: &Widened,
) -> Result<Option<(GgmlDType, Output)>> {
    let Some((blocks, inner)) = matrix(cut, &widened.inner)? else {
        return Ok(None);
    };
    let sizes = (
        bytes(blocks, &[widened.after.len()]),
        bytes(blocks, &[widened.added.len()]),
        bytes(blocks, &output.shape),
    );
    let (Some(after), Some(added), Some(all)) = sizes else {
        return Ok(None);
    };
    let source = Source::Widened(Box::new(Widened {
        inner,
        rows: widened.rows.clone(),
        after: vec![0.0; after],
        added: vec![0.0; added],
    }));
    Ok(Some((blocks, as_bytes(output, all, source))))
}

/// Bytes of a matrix; `None` if its rows are not whole blocks.
fn bytes(blocks: GgmlDType, shape: &[usize]) -> Option<usize> {
    router_stats::gguf::bytes(blocks, shape)
}

fn as_bytes(output: &Output, bytes: usize, source: Source) -> Output {
    Output {
        name: output.name.clone(),
        dtype: Dtype::U8,
        shape: output.shape.clone(),
        bytes: bytes as u64,
        source,
    }
}
