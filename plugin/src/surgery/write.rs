//! Streams the bytes of each tensor from the source's mapped files.
//!
//! At most one expert's matrices are in memory, or, for UQFF and GGUF, one matrix, of
//! which the head is the largest: copies go from the mapping to the file in
//! pieces, and mapped pages are released once written. Does not decide what is
//! written (see [`super::layout`]) or where (see [`super::place`]).

use std::ops::Range;

use router_stats::checkpoint::{transpose, ExpertReader, TensorView};
use router_stats::family::Projection;
use safetensors::Dtype;

use super::gguf::Packed;
use super::layout::{Output, Source, Widened};
use super::uqff::encode::{self, Form};
use super::uqff::Artifact;
use super::values::Padding;
use super::Cut;
use crate::Result;

/// Bytes written between two reports of progress.
const PIECE: usize = 8 << 20;

/// Takes the data of one tensor, piece by piece.
pub(super) trait Take {
    fn data(&mut self, bytes: &[u8]) -> Result<()>;
}

impl Take for Vec<u8> {
    fn data(&mut self, bytes: &[u8]) -> Result<()> {
        self.extend_from_slice(bytes);
        Ok(())
    }
}

/// Where the data comes from.
pub(super) struct Reader<'a> {
    cut: &'a Cut<'a>,
    /// Experts of the layer read last.
    current: Option<(usize, ExpertReader<'a>)>,
    /// One expert's transposed matrices.
    scratch: Vec<u8>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(cut: &'a Cut<'a>) -> Self {
        Self {
            cut,
            current: None,
            scratch: Vec::new(),
        }
    }

    /// Gives all data of `output` to `sink`.
    ///
    /// # Errors
    /// A missing tensor, and those of `sink`.
    pub(super) fn write(&mut self, output: &Output, sink: &mut dyn Take) -> Result<()> {
        match &output.source {
            Source::Copy { tensor } => {
                let view = self.cut.checkpoint.tensor(tensor)?;
                match view.shape.first() {
                    Some(&rows) => copy_rows(&view, 0..rows, sink),
                    None => sink.data(view.data()?),
                }
            }
            Source::Weight { tensor } => {
                let weight = self.cut.checkpoint.weight(tensor, &output.shape)?;
                let mut values = vec![0f32; output.shape.iter().product()];
                weight.read_f32(&mut values)?;
                weight.release();
                sink.data(&encode::write(&values, Dtype::F32))
            }
            Source::Rows { tensor, rows } => {
                let view = self.cut.checkpoint.tensor(tensor)?;
                for run in rows.chunk_by(|a, b| a + 1 == *b) {
                    copy_rows(&view, run[0]..run[0] + run.len(), sink)?;
                }
                Ok(())
            }
            Source::Zeros => {
                let zeros = vec![0; PIECE.min(output.bytes as usize)];
                let mut left = output.bytes as usize;
                while left > 0 {
                    let piece = left.min(zeros.len());
                    sink.data(&zeros[..piece])?;
                    left -= piece;
                }
                Ok(())
            }
            Source::Padded { tensor, padding } => {
                let view = self.cut.checkpoint.tensor(tensor)?;
                pad(&view, *padding, sink)?;
                view.release();
                Ok(())
            }
            Source::Raised { tensor, rows, by } => {
                let view = self.cut.checkpoint.tensor(tensor)?;
                let mut values = vec![0f32; view.elements()];
                view.read_f32(&mut values)?;
                let raised = rows
                    .iter()
                    .flat_map(|&row| (values[row] + by).to_le_bytes());
                sink.data(&raised.collect::<Vec<_>>())
            }
            Source::Scaled { inner, by } => {
                let values = encode::read(&self.collect(inner)?, inner.dtype);
                let scaled: Vec<f32> = values.into_iter().map(|value| value * by).collect();
                sink.data(&encode::write(&scaled, Dtype::F32))
            }
            Source::Widened(widened) => widen(&self.collect(&widened.inner)?, widened, sink),
            Source::Artifact(artifact) => self.artifact(artifact, sink),
            Source::Packed(packed) => self.packed(packed, sink),
            &Source::Matrix {
                layer,
                expert,
                projection,
            } => {
                let bytes = self.experts(layer)?.raw(expert, projection)?;
                sink.data(&bytes)?;
                Ok(self.experts(layer)?.release(expert, projection)?)
            }
            &Source::Numbers {
                layer,
                expert,
                projection,
                ..
            } => {
                let mut values = vec![0f32; output.shape.iter().product()];
                let reader = self.experts(layer)?;
                reader.read_matrix_f32(expert, projection, &mut values)?;
                reader.release(expert, projection)?;
                sink.data(&encode::write(&values, Dtype::F32))
            }
            Source::StackGateUp { layer, experts } => self.stack(
                *layer,
                experts,
                &[Projection::Gate, Projection::Up],
                output,
                sink,
            ),
            Source::StackDown { layer, experts } => {
                self.stack(*layer, experts, &[Projection::Down], output, sink)
            }
        }
    }

    /// All of a tensor's data.
    fn collect(&mut self, output: &Output) -> Result<Vec<u8>> {
        let mut data = Vec::with_capacity(output.bytes as usize);
        self.write(output, &mut data)?;
        Ok(data)
    }

    fn artifact(&mut self, artifact: &Artifact, sink: &mut dyn Take) -> Result<()> {
        sink.data(&encode::prefix(artifact))?;
        let width = artifact.shape.last().copied().unwrap_or(1);
        let matrix = artifact.shape.iter().product::<usize>() / artifact.parts.len().max(1);
        for part in &artifact.parts {
            match part {
                // Blocks as they are.
                Some(part) if part.dtype == Dtype::U8 => self.write(part, sink)?,
                Some(part) => {
                    let data = self.collect(part)?;
                    convert(&data, part.dtype, width, artifact.form, sink)?;
                }
                None => convert(&vec![0; 4 * matrix], Dtype::F32, width, artifact.form, sink)?,
            }
        }
        let Some(bias) = &artifact.bias else {
            return Ok(());
        };
        let (prefix, form) = encode::bias_prefix(artifact, &bias.shape);
        sink.data(&prefix)?;
        sink.data(&form.encode(&self.collect(bias)?, bias.dtype)?)
    }

    fn packed(&mut self, packed: &Packed, sink: &mut dyn Take) -> Result<()> {
        for part in &packed.parts {
            match packed.form {
                Some(form) if form != Form::Float(part.dtype) => {
                    let data = self.collect(part)?;
                    convert(&data, part.dtype, packed.width, form, sink)?;
                }
                _ => self.write(part, sink)?,
            }
        }
        sink.data(&vec![0; packed.padding])
    }

    /// For each expert, its matrices [R, C] transposed and side by side:
    /// [C, n·R].
    fn stack(
        &mut self,
        layer: usize,
        experts: &[usize],
        projections: &[Projection],
        output: &Output,
        sink: &mut dyn Take,
    ) -> Result<()> {
        let columns = output.shape[1];
        // Experts are BF16, F16 or F32.
        let turn = match output.dtype {
            Dtype::F32 => beside::<4>,
            _ => beside::<2>,
        };
        let mut scratch = std::mem::take(&mut self.scratch);
        for &expert in experts {
            for (index, &projection) in projections.iter().enumerate() {
                let matrix = self.experts(layer)?.raw(expert, projection)?;
                scratch.resize(matrix.len() * projections.len(), 0);
                turn(&matrix, columns, index, projections.len(), &mut scratch);
                self.experts(layer)?.release(expert, projection)?;
            }
            sink.data(&scratch)?;
        }
        self.scratch = scratch;
        Ok(())
    }

    fn experts(&mut self, layer: usize) -> Result<&ExpertReader<'a>> {
        let cut = self.cut;
        let reader = match self.current.take() {
            Some((current, reader)) if current == layer => reader,
            _ => {
                let Some(moe) = cut.topology.moe(layer) else {
                    unreachable!("layout reads experts of MoE layers only")
                };
                ExpertReader::open(
                    cut.checkpoint,
                    cut.family.names(),
                    layer,
                    moe,
                    cut.topology.hidden,
                )?
            }
        };
        Ok(&self.current.insert((layer, reader)).1)
    }
}

/// Transposes a matrix of N-byte elements into place `index` of `count` beside
/// each other.
fn beside<const N: usize>(
    matrix: &[u8],
    columns: usize,
    index: usize,
    count: usize,
    out: &mut [u8],
) {
    let (source, _) = matrix.as_chunks::<N>();
    let (target, _) = out.as_chunks_mut::<N>();
    let rows = source.len() / columns;
    transpose(
        source,
        columns,
        &mut target[index * rows..],
        count * rows,
        columns,
    );
}

/// Writes a matrix with zeros between its rows or columns.
fn pad(view: &TensorView<'_>, padding: Padding, sink: &mut dyn Take) -> Result<()> {
    let unit = match padding.axis {
        0 => view.bytes() / view.shape[0],
        _ => view.plain()?.bitsize() / 8,
    };
    let zeros = vec![0; (padding.padded - padding.width) * unit];
    let mut piece = Vec::new();
    for kept in view.data()?.chunks(padding.width * unit) {
        piece.extend_from_slice(kept);
        piece.extend_from_slice(&zeros);
        if piece.len() >= PIECE {
            sink.data(&piece)?;
            piece.clear();
        }
    }
    sink.data(&piece)
}

/// Writes `data` of type `from`, rows of `width` numbers, as `form` says, in
/// pieces of about [`PIECE`] bytes.
fn convert(data: &[u8], from: Dtype, width: usize, form: Form, sink: &mut dyn Take) -> Result<()> {
    let row = (width * (from.bitsize() / 8)).max(1);
    for piece in data.chunks((PIECE / row).max(1) * row) {
        sink.data(&form.encode(piece, from)?)?;
    }
    Ok(())
}

/// Writes a matrix with rows and columns added.
fn widen(data: &[u8], widened: &Widened, sink: &mut dyn Take) -> Result<()> {
    let dtype = widened.inner.dtype;
    let [after, added] =
        [&widened.after, &widened.added].map(|values| encode::write(values, dtype));
    let kept = widened.rows.iter().filter(|&&kept| kept).count();
    let mut rows = data.chunks((data.len() / kept.max(1)).max(1));
    let mut piece = Vec::new();
    for &kept in &widened.rows {
        match kept.then(|| rows.next()).flatten() {
            Some(row) => {
                piece.extend_from_slice(row);
                piece.extend_from_slice(&after);
            }
            None => piece.extend_from_slice(&added),
        }
        if piece.len() >= PIECE {
            sink.data(&piece)?;
            piece.clear();
        }
    }
    sink.data(&piece)
}

/// Writes rows of a tensor in pieces of about [`PIECE`] bytes.
fn copy_rows(view: &TensorView<'_>, rows: Range<usize>, sink: &mut dyn Take) -> Result<()> {
    let row = view.bytes() / view.shape[0].max(1);
    let step = (PIECE / row.max(1)).max(1);
    for start in rows.clone().step_by(step) {
        let piece = view.rows(start..rows.end.min(start + step));
        sink.data(piece.data()?)?;
        piece.release();
    }
    Ok(())
}
