//! Blocks of GGML → finite `f32` values, as candle computes them.

use std::borrow::Cow;

use candle_core::quantized::GgmlDType;
use rayon::prelude::*;

use super::widen::TASK;
use crate::Result;

/// Bytes that every address of a block is a multiple of: they hold f16.
const ALIGNMENT: usize = 2;

/// Whether candle turns such blocks into numbers. The others are what it
/// multiplies with, and no file has them.
pub(super) fn is_read(blocks: GgmlDType) -> bool {
    !matches!(blocks, GgmlDType::Q8_1 | GgmlDType::Q8K)
}

/// Converts whole blocks into `out`, which has one element for each number;
/// the index and value of the first that is not finite, if there is one.
///
/// # Errors
/// Those of candle.
pub(super) fn read(
    blocks: GgmlDType,
    data: &[u8],
    out: &mut [f32],
) -> Result<Option<(usize, f32)>> {
    // Blocks divide a task: they have 32 or 256 numbers.
    let bytes = TASK / blocks.block_size() * blocks.type_size();
    out.par_chunks_mut(TASK)
        .zip(data.par_chunks(bytes))
        .try_for_each(|(out, data)| convert(blocks, data, out))?;
    let bad = out.iter().position(|value| !value.is_finite());
    Ok(bad.map(|index| (index, out[index])))
}

fn convert(blocks: GgmlDType, data: &[u8], out: &mut [f32]) -> Result<()> {
    // A file may ask for no alignment.
    let mut aligned = Vec::new();
    let data = if data.as_ptr().addr().is_multiple_of(ALIGNMENT) {
        data
    } else {
        aligned.resize(data.len().div_ceil(ALIGNMENT), 0u16);
        let copy: &mut [u8] = bytemuck::cast_slice_mut(&mut aligned);
        copy[..data.len()].copy_from_slice(data);
        &copy[..data.len()]
    };
    let values = blocks
        .from_data(Cow::Borrowed(data))
        .dequantize(out.len())?;
    out.copy_from_slice(values.as_slice::<f32>()?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::quantized::QTensor;
    use candle_core::{Device, Tensor};

    use super::*;

    const ALL: [GgmlDType; 10] = [
        GgmlDType::Q4_0,
        GgmlDType::Q4_1,
        GgmlDType::Q5_0,
        GgmlDType::Q5_1,
        GgmlDType::Q8_0,
        GgmlDType::Q2K,
        GgmlDType::Q3K,
        GgmlDType::Q4K,
        GgmlDType::Q5K,
        GgmlDType::Q6K,
    ];

    #[test]
    fn numbers_are_candle_s_at_any_address_and_length() {
        for blocks in ALL {
            for elements in [256, TASK + 512] {
                let values: Vec<f32> = (0..elements).map(|it| (it as f32).sin()).collect();
                let values = Tensor::new(values, &Device::Cpu).unwrap();
                let stored = QTensor::quantize(&values, blocks).unwrap();
                let expected = stored.dequantize(&Device::Cpu).unwrap();
                let expected = expected.to_vec1::<f32>().unwrap();
                let data = stored.data().unwrap();
                for skipped in 0..2 {
                    let mut bytes = vec![0; skipped];
                    bytes.extend_from_slice(&data);
                    let mut out = vec![0.0; elements];
                    assert_eq!(read(blocks, &bytes[skipped..], &mut out).unwrap(), None);
                    assert_eq!(out, expected, "{blocks:?}");
                }
            }
        }
    }

    #[test]
    fn a_scale_that_is_not_finite_is_found() {
        let mut data = vec![0; 3 * 34];
        data[34..36].copy_from_slice(&half::f16::INFINITY.to_le_bytes());
        data[36] = 1;
        let found = read(GgmlDType::Q8_0, &data, &mut [0.0; 96]).unwrap();
        assert_eq!(found, Some((32, f32::INFINITY)));
    }
}
