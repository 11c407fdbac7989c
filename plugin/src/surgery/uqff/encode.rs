//! The bytes of an artifact, as mistral.rs 0.8.1 reads them (UQFF 0.2.0), and
//! conversions between numbers.
//!
//! ```text
//! as they are   version u32, 1 u8, has bias u8, tensor, bias as tensor
//! blocks        version u32, 0 u8, bytes u32, has bias u8, type u32, shape, blocks, bias as tensor
//! tensor        bytes u32, type u32, shape, numbers
//! shape         dimensions u32, each u32
//! ```

use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use half::{bf16, f16};
use router_stats::gguf;
use safetensors::Dtype;

use super::{Artifact, UqffWeights};
use crate::Result;

/// Major, minor and patch version, a byte each.
const VERSION: u32 = 2 << 8;

/// What a matrix as it is, and one of blocks, is called.
const FLOAT: u8 = 1;
const BLOCKS: u8 = 0;

/// How the numbers of one artifact are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::surgery) enum Form {
    /// As they are, in this type.
    Float(Dtype),
    /// In blocks along the rows.
    Blocks(GgmlDType),
}

impl Form {
    /// The form of a matrix of this shape where `weights` are wanted.
    pub(super) fn new(weights: UqffWeights, float: Dtype, shape: &[usize]) -> Self {
        let width = shape.last().copied().unwrap_or(1);
        match weights.blocks(width) {
            None => Self::Float(float),
            Some(blocks) => Self::Blocks(blocks),
        }
    }

    /// The form of a matrix that is not quantised among those that are as
    /// `weights` says.
    pub(super) fn exact(weights: UqffWeights, float: Dtype) -> Self {
        match weights.quantization() {
            None => Self::Float(float),
            Some(_) => Self::Blocks(GgmlDType::F32),
        }
    }

    /// Bytes of so many numbers.
    pub(in crate::surgery) fn bytes(self, elements: usize) -> usize {
        match self {
            Self::Float(dtype) => elements * (dtype.bitsize() / 8),
            Self::Blocks(blocks) => elements / blocks.block_size() * blocks.type_size(),
        }
    }

    /// What a bias is stored as.
    fn bias(self) -> Dtype {
        match self {
            Self::Float(dtype) => dtype,
            Self::Blocks(_) => Dtype::F32,
        }
    }

    /// Little-endian numbers of type `from` → these. They are whole rows.
    ///
    /// # Errors
    /// If they cannot be quantised.
    pub(in crate::surgery) fn encode(self, numbers: &[u8], from: Dtype) -> Result<Vec<u8>> {
        match self {
            Self::Float(to) => Ok(convert(numbers, from, to)),
            Self::Blocks(blocks) => {
                let values = read(numbers, from);
                let count = values.len();
                let quantised = Tensor::from_vec(values, count, &Device::Cpu)
                    .and_then(|values| QTensor::quantize(&values, blocks)?.data().map(Vec::from))
                    .map_err(router_stats::Error::from)?;
                Ok(quantised)
            }
        }
    }
}

/// Bytes of an artifact, or `None` if it is too large.
pub(super) fn size(artifact: &Artifact) -> Option<usize> {
    let data = artifact.form.bytes(artifact.shape.iter().product());
    u32::try_from(data).ok()?;
    let bias = artifact.bias.as_ref().map_or(0, |bias| {
        let elements: usize = bias.shape.iter().product();
        let bytes = elements * (artifact.form.bias().bitsize() / 8);
        tensor(artifact.form.bias(), &bias.shape).len() + bytes
    });
    Some(prefix(artifact).len() + data + bias)
}

/// What comes before the numbers.
pub(in crate::surgery) fn prefix(artifact: &Artifact) -> Vec<u8> {
    let mut bytes = VERSION.to_le_bytes().to_vec();
    let has_bias = u8::from(artifact.bias.is_some());
    let data = artifact.form.bytes(artifact.shape.iter().product());
    match artifact.form {
        Form::Float(dtype) => {
            bytes.extend([FLOAT, has_bias]);
            bytes.extend(tensor(dtype, &artifact.shape));
        }
        Form::Blocks(blocks) => {
            bytes.push(BLOCKS);
            bytes.extend((data as u32).to_le_bytes());
            bytes.push(has_bias);
            bytes.extend(gguf::code(blocks).to_le_bytes());
            bytes.extend(shape(&artifact.shape));
        }
    }
    bytes
}

/// What comes before a bias, and the form of its numbers.
pub(in crate::surgery) fn bias_prefix(artifact: &Artifact, dims: &[usize]) -> (Vec<u8>, Form) {
    let dtype = artifact.form.bias();
    (tensor(dtype, dims), Form::Float(dtype))
}

/// What comes before the numbers of a tensor.
fn tensor(dtype: Dtype, dims: &[usize]) -> Vec<u8> {
    let data = dims.iter().product::<usize>() * (dtype.bitsize() / 8);
    let code: u32 = match dtype {
        Dtype::F16 => 4,
        Dtype::BF16 => 5,
        _ => 6,
    };
    let mut bytes = (data as u32).to_le_bytes().to_vec();
    bytes.extend(code.to_le_bytes());
    bytes.extend(shape(dims));
    bytes
}

fn shape(dims: &[usize]) -> Vec<u8> {
    std::iter::once(dims.len())
        .chain(dims.iter().copied())
        .flat_map(|number| (number as u32).to_le_bytes())
        .collect()
}

/// Little-endian numbers of one type → another, to the nearest.
pub(in crate::surgery) fn convert(numbers: &[u8], from: Dtype, to: Dtype) -> Vec<u8> {
    if from == to {
        return numbers.to_vec();
    }
    write(&read(numbers, from), to)
}

/// bf16, f16 or f32 → f32.
pub(in crate::surgery) fn read(numbers: &[u8], from: Dtype) -> Vec<f32> {
    let halves = numbers.as_chunks::<2>().0.iter();
    match from {
        Dtype::BF16 => halves.map(|it| bf16::from_le_bytes(*it).to_f32()).collect(),
        Dtype::F16 => halves.map(|it| f16::from_le_bytes(*it).to_f32()).collect(),
        _ => {
            let singles = numbers.as_chunks::<4>().0.iter();
            singles.map(|it| f32::from_le_bytes(*it)).collect()
        }
    }
}

/// f32 → bf16, f16, f32, or bytes of blocks.
pub(in crate::surgery) fn write(values: &[f32], to: Dtype) -> Vec<u8> {
    let values = values.iter().copied();
    match to {
        Dtype::BF16 => values
            .flat_map(|it| bf16::from_f32(it).to_le_bytes())
            .collect(),
        Dtype::F16 => values
            .flat_map(|it| f16::from_f32(it).to_le_bytes())
            .collect(),
        Dtype::U8 => values.map(|it| it as u8).collect(),
        _ => values.flat_map(f32::to_le_bytes).collect(),
    }
}
