//! The experts of one layer, whichever way they are stored.
//!
//! Checkpoints spell experts in four ways, and only this file knows them:
//!
//! | layout | gate, up | down |
//! |---|---|---|
//! | per expert | `experts.{e}.*` [I, H] each | [H, I] |
//! | stacked | `gate_up_proj` [E, 2I, H] | `down_proj` [E, H, I] |
//! | stacked, transposed | `gate_up_proj` [E, H, 2I] | `down_proj` [E, I, H] |
//! | three stacks | `gate_proj`, `up_proj` [E, I, H] | `down_proj` [E, H, I] |
//!
//! Three stacks are what GGUF has; their elements may differ from one to the
//! next, and may be in blocks.
//! Each of an fp8 expert's matrices has block scales beside it (see [`Weight`]);
//! stacks of fp8 are not read.
//!
//! In stacked tensors the gate half comes before the up half. The orientation
//! follows from the shapes; where H = 2I makes `gate_up_proj` ambiguous,
//! `down_proj` decides, and the other way round where H = I.

use std::borrow::Cow;

use safetensors::Dtype;

use super::{transpose, Checkpoint, Element, Rows, TensorView, Weight};
use crate::family::{MoeSpec, Names, Projection};
use crate::{Error, Result};

/// How a layer's experts are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// Three tensors for every expert.
    PerExpert,
    /// Two tensors for all experts.
    Stacked {
        /// Whether matrices are stored input-major, [H, 2I] and [I, H].
        transposed: bool,
    },
    /// One tensor for each projection of all experts.
    Stacks,
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::PerExpert => "per expert",
            Self::Stacked { transposed: false } => "stacked",
            Self::Stacked { transposed: true } => "stacked, transposed",
            Self::Stacks => "stacked, projections apart",
        })
    }
}

/// Reads the experts of one layer.
#[derive(Debug, Clone)]
pub struct ExpertReader<'a> {
    layer: usize,
    experts: usize,
    intermediate: usize,
    hidden: usize,
    layout: Layout,
    /// Per expert: gate, up and down of every expert; stacked: gate_up, down;
    /// three stacks: gate, up, down.
    tensors: Vec<Weight<'a>>,
}

/// Where one matrix lies.
enum Stored<'a> {
    /// In a tensor of its own.
    Whole(Weight<'a>),
    /// In consecutive rows of a stack.
    Rows(Rows<'a>),
    /// In columns of one expert's input-major matrix.
    Columns(Columns<'a>),
}

/// Columns of an input-major matrix in a stack.
struct Columns<'a> {
    rows: Rows<'a>,
    tensor: TensorView<'a>,
    /// Element of `tensor` that `rows` begins with.
    start: usize,
    /// Columns of the stored matrix, and the first that belongs to this one.
    window: (usize, usize),
}

impl<'a> ExpertReader<'a> {
    /// Finds the experts of `layer` and checks that all are there, of the right
    /// shape and of one dtype that can be computed with, or in blocks, and that
    /// fp8 matrices have their scales. Stacked fp8 experts are not read. H is `hidden`.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Shape`], [`Error::Dtype`],
    /// [`Error::MixedDtypes`] or [`Error::Quantization`].
    pub fn open(
        checkpoint: &'a Checkpoint,
        names: &'static Names,
        layer: usize,
        spec: &MoeSpec,
        hidden: usize,
    ) -> Result<Self> {
        let (experts, intermediate) = (spec.experts, spec.intermediate);
        let stacked = checkpoint.contains(&names.in_block(layer, names.stacked_gate_up));
        let (layout, tensors) = if stacked {
            open_stacked(checkpoint, names, layer, spec, hidden)?
        } else if checkpoint.contains(&names.in_block(layer, &names.stack(Projection::Gate))) {
            let tensors = open_stacks(checkpoint, names, layer, spec, hidden)?;
            (Layout::Stacks, tensors)
        } else {
            (
                Layout::PerExpert,
                open_each(checkpoint, names, layer, spec, hidden)?,
            )
        };
        let Some(first) = tensors.first() else {
            let what = format!("experts of layer {layer}");
            return Err(structure(what, "at least one".to_owned(), "0".to_owned()));
        };
        let element = first.tensor().element;
        let mut others = tensors.iter().map(Weight::tensor);
        let blocks = others
            .clone()
            .any(|tensor| tensor.element.plain().is_none());
        if let Some(other) = others.find(|tensor| !blocks && tensor.element != element) {
            return Err(Error::MixedDtypes {
                path: other.file().to_path_buf(),
                tensor: other.name.to_owned(),
                expected: element.to_string(),
                found: other.element.to_string(),
            });
        }
        Ok(Self {
            layer,
            experts,
            intermediate,
            hidden,
            layout,
            tensors,
        })
    }

    /// How the experts are stored.
    pub fn layout(&self) -> Layout {
        self.layout
    }

    /// Element type of a projection of the first expert: bf16, f16, f32, fp8
    /// with block scales, or blocks. Unless in blocks, all of a layer's experts
    /// have the same.
    pub fn element(&self, projection: Projection) -> Element {
        self.tensors[self.position(0, projection)].tensor().element
    }

    /// The type of a projection's elements one by one.
    ///
    /// # Errors
    /// [`Error::Dtype`] if they are stored in blocks.
    pub fn plain(&self, projection: Projection) -> Result<Dtype> {
        self.tensors[self.position(0, projection)].tensor().plain()
    }

    /// Bytes of one matrix, row-major [I, H] (gate, up) or [H, I] (down), in
    /// the stored dtype: borrowed if it is stored so, else a transposed copy.
    /// Block scales are a tensor of their own and not among them.
    ///
    /// # Errors
    /// [`Error::Structure`] if there is no such expert; [`Error::NotHere`].
    pub fn raw(&self, expert: usize, projection: Projection) -> Result<Cow<'a, [u8]>> {
        Ok(match self.stored(expert, projection)? {
            Stored::Whole(weight) => Cow::Borrowed(weight.tensor().data()?),
            Stored::Rows(rows) => Cow::Borrowed(rows.data()?),
            Stored::Columns(columns) => Cow::Owned(self.output_major(&columns, projection)?),
        })
    }

    /// One expert as f32, fp8 multiplied by its block scales, checked to be
    /// finite: gate and up [2I, H] into `gate_up`, down [H, I] into `down`.
    /// Releases the pages it has read.
    ///
    /// # Errors
    /// [`Error::NonFinite`], which names the element as it is stored;
    /// [`Error::Scale`];
    /// [`Error::Structure`] if there is no such expert or a buffer has another
    /// length.
    pub fn read_f32(&self, expert: usize, gate_up: &mut [f32], down: &mut [f32]) -> Result<()> {
        let matrix = self.intermediate * self.hidden;
        if (gate_up.len(), down.len()) != (2 * matrix, matrix) {
            let expected = format!("{} and {matrix} elements", 2 * matrix);
            let found = format!("{} and {}", gate_up.len(), down.len());
            return Err(structure(
                "buffers for an expert".to_owned(),
                expected,
                found,
            ));
        }
        let (gate, up) = gate_up.split_at_mut(matrix);
        for (projection, out) in Projection::ALL.into_iter().zip([gate, up, down]) {
            self.read_matrix_f32(expert, projection, out)?;
        }
        for projection in Projection::ALL {
            self.release(expert, projection)?;
        }
        Ok(())
    }

    /// One matrix as f32, row-major [I, H], or [H, I] for down, checked to be
    /// finite.
    ///
    /// # Errors
    /// Those of [`read_f32`](Self::read_f32); [`Error::Shape`] if `out` has
    /// another length.
    pub fn read_matrix_f32(
        &self,
        expert: usize,
        projection: Projection,
        out: &mut [f32],
    ) -> Result<()> {
        match self.stored(expert, projection)? {
            Stored::Whole(weight) => weight.read_f32(out),
            Stored::Rows(rows) => rows.read_f32(out),
            Stored::Columns(columns) => self.read_columns(&columns, projection, out),
        }
    }

    /// The tensor that holds one matrix, alone or among others.
    ///
    /// # Errors
    /// [`Error::Structure`] if there is no such expert.
    pub fn tensor(&self, expert: usize, projection: Projection) -> Result<TensorView<'a>> {
        Ok(self.weight(expert, projection)?.tensor())
    }

    /// Lets the system take back the pages that one matrix was read from, as
    /// [`TensorView::release`] does.
    ///
    /// # Errors
    /// [`Error::Structure`] if there is no such expert.
    pub fn release(&self, expert: usize, projection: Projection) -> Result<()> {
        match self.stored(expert, projection)? {
            Stored::Whole(weight) => weight.release(),
            Stored::Rows(rows) | Stored::Columns(Columns { rows, .. }) => rows.release(),
        }
        Ok(())
    }

    fn read_columns(
        &self,
        stored: &Columns<'_>,
        projection: Projection,
        out: &mut [f32],
    ) -> Result<()> {
        let data = self.output_major(stored, projection)?;
        let columns = self.extent(projection).1;
        let float = stored.tensor.float()?;
        float.widen(&data, out).map_err(|(index, value)| {
            let (row, column) = (index / columns, index % columns);
            let (stride, first) = stored.window;
            let index = stored.start + column * stride + first + row;
            stored.tensor.not_finite(index, value)
        })
    }

    /// Rows and columns of a matrix.
    fn extent(&self, projection: Projection) -> (usize, usize) {
        match projection {
            Projection::Gate | Projection::Up => (self.intermediate, self.hidden),
            Projection::Down => (self.hidden, self.intermediate),
        }
    }

    fn stored(&self, expert: usize, projection: Projection) -> Result<Stored<'a>> {
        let weight = self.weight(expert, projection)?;
        let tensor = weight.tensor();
        let transposed = match self.layout {
            Layout::PerExpert => return Ok(Stored::Whole(weight)),
            Layout::Stacks => return Ok(Stored::Rows(tensor.rows(expert..expert + 1))),
            Layout::Stacked { transposed } => transposed,
        };
        let rows = tensor.rows(expert..expert + 1);
        let second = usize::from(projection == Projection::Up);
        if transposed {
            return Ok(Stored::Columns(Columns {
                rows,
                tensor,
                start: expert * tensor.shape[1] * tensor.shape[2],
                window: (tensor.shape[2], second * self.intermediate),
            }));
        }
        let halves = if projection == Projection::Down { 1 } else { 2 };
        Ok(Stored::Rows(rows.part(second, halves)))
    }

    /// What holds a matrix.
    fn weight(&self, expert: usize, projection: Projection) -> Result<Weight<'a>> {
        if expert >= self.experts {
            return Err(structure(
                format!("expert of layer {}", self.layer),
                format!("an index below {}", self.experts),
                expert.to_string(),
            ));
        }
        Ok(self.tensors[self.position(expert, projection)])
    }

    /// Which of the tensors holds a matrix.
    fn position(&self, expert: usize, projection: Projection) -> usize {
        match self.layout {
            Layout::PerExpert => expert * 3 + projection as usize,
            Layout::Stacks => projection as usize,
            Layout::Stacked { .. } => usize::from(projection == Projection::Down),
        }
    }

    /// Copies the window of an input-major matrix that holds `projection`.
    fn output_major(&self, stored: &Columns<'_>, projection: Projection) -> Result<Vec<u8>> {
        let (extent, data) = (self.extent(projection), stored.rows.data()?);
        Ok(match stored.tensor.float()?.size() {
            4 => mirror::<4>(data, stored.window, extent),
            _ => mirror::<2>(data, stored.window, extent),
        })
    }
}

/// The transpose, of `extent`, of columns `first..` of a matrix of N-byte
/// elements and `stride` columns.
fn mirror<const N: usize>(
    data: &[u8],
    (stride, first): (usize, usize),
    (rows, columns): (usize, usize),
) -> Vec<u8> {
    let mut target = vec![[0; N]; rows * columns];
    let source = &data.as_chunks::<N>().0[first..];
    transpose(source, stride, &mut target, columns, rows);
    target.into_flattened()
}

fn open_each<'a>(
    checkpoint: &'a Checkpoint,
    names: &Names,
    layer: usize,
    spec: &MoeSpec,
    hidden: usize,
) -> Result<Vec<Weight<'a>>> {
    let mut tensors = Vec::with_capacity(spec.experts.min(1 << 16) * 3);
    for expert in 0..spec.experts {
        for projection in Projection::ALL {
            let shape = match projection {
                Projection::Gate | Projection::Up => [spec.intermediate, hidden],
                Projection::Down => [hidden, spec.intermediate],
            };
            let name = names.expert(layer, expert, projection);
            tensors.push(checkpoint.weight(&name, &shape)?);
        }
    }
    Ok(tensors)
}

fn open_stacked<'a>(
    checkpoint: &'a Checkpoint,
    names: &Names,
    layer: usize,
    spec: &MoeSpec,
    hidden: usize,
) -> Result<(Layout, Vec<Weight<'a>>)> {
    let (experts, width) = (spec.experts, spec.intermediate);
    // Output-major, then input-major.
    let gate_up_shapes = [[experts, 2 * width, hidden], [experts, hidden, 2 * width]];
    let down_shapes = [[experts, hidden, width], [experts, width, hidden]];
    let gate_up = checkpoint.tensor(&names.in_block(layer, names.stacked_gate_up))?;
    let down_name = names.in_block(layer, names.stacked_down);
    let transposed = if hidden == 2 * width {
        // Only `down_proj` can tell; if it fits neither, the check below says so.
        checkpoint.tensor(&down_name)?.shape == down_shapes[1]
    } else {
        gate_up.shape == gate_up_shapes[1]
    };
    let gate_up = gate_up.expect_shape(&gate_up_shapes[usize::from(transposed)])?;
    let down = checkpoint.tensor_of_shape(&down_name, &down_shapes[usize::from(transposed)])?;
    gate_up.float()?;
    Ok((
        Layout::Stacked { transposed },
        vec![Weight::unscaled(gate_up), Weight::unscaled(down)],
    ))
}

fn open_stacks<'a>(
    checkpoint: &'a Checkpoint,
    names: &Names,
    layer: usize,
    spec: &MoeSpec,
    hidden: usize,
) -> Result<Vec<Weight<'a>>> {
    let mut tensors = Vec::with_capacity(Projection::ALL.len());
    for projection in Projection::ALL {
        let shape = match projection {
            Projection::Gate | Projection::Up => [spec.experts, spec.intermediate, hidden],
            Projection::Down => [spec.experts, hidden, spec.intermediate],
        };
        let name = names.in_block(layer, &names.stack(projection));
        let tensor = checkpoint.tensor_of_shape(&name, &shape)?;
        tensor.check_numbers()?;
        tensors.push(Weight::unscaled(tensor));
    }
    Ok(tensors)
}

fn structure(what: String, expected: String, found: String) -> Error {
    Error::Structure {
        what,
        expected,
        found,
    }
}

#[cfg(test)]
mod tests;
