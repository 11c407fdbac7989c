//! Rotary positions, with the norms over heads that some families put before
//! them.

use candle_core::Tensor;
use rayon::prelude::*;

use super::batch::Batch;
use super::rows::with_slices;
use super::simd;
use crate::Result;

/// Rows a parallel task takes at least.
const ROWS_PER_TASK: usize = 16;

/// Normalises every head of `x` [N, heads·d] by `norm` [d] if there is one,
/// then turns its halves (a, b) into (a·cos − b·sin, b·cos + a·sin).
pub(super) fn rotate(
    x: &Tensor,
    norm: Option<&Tensor>,
    eps: f32,
    dim: usize,
    batch: &Batch,
) -> Result<Tensor> {
    let (cos, sin) = (&batch.cos, &batch.sin);
    let on_cpu = with_slices(
        [x, norm.unwrap_or(cos), cos, sin],
        |[x, weight, cos, sin]| {
            rotate_slices(
                x,
                norm.map(|_| (weight, eps)),
                dim,
                x.len() / batch.rows(),
                cos,
                sin,
            )
        },
    )?;
    match on_cpu {
        Some(out) => Ok(Tensor::from_vec(out, x.shape(), x.device())?),
        None => rotate_tensors(x, norm, eps, dim, batch),
    }
}

fn rotate_slices(
    x: &[f32],
    norm: Option<(&[f32], f32)>,
    dim: usize,
    width: usize,
    cos: &[f32],
    sin: &[f32],
) -> Vec<f32> {
    let half = dim / 2;
    let mut out = x.to_vec();
    out.par_chunks_exact_mut(width)
        .zip(cos.par_chunks_exact(half).zip(sin.par_chunks_exact(half)))
        .with_min_len(ROWS_PER_TASK)
        .for_each(|(row, (cos, sin))| {
            simd::dispatch(
                #[inline(always)]
                || {
                    for head in row.chunks_exact_mut(dim) {
                        if let Some((weight, eps)) = norm {
                            let scale = 1.0 / (simd::dot(head, head) / dim as f32 + eps).sqrt();
                            head.iter_mut()
                                .zip(weight)
                                .for_each(|(x, &weight)| *x *= scale * weight);
                        }
                        let (a, b) = head.split_at_mut(half);
                        for (((a, b), &cos), &sin) in a.iter_mut().zip(b).zip(cos).zip(sin) {
                            (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                        }
                    }
                },
            );
        });
    out
}

fn rotate_tensors(
    x: &Tensor,
    norm: Option<&Tensor>,
    eps: f32,
    dim: usize,
    batch: &Batch,
) -> Result<Tensor> {
    let (rows, width) = x.dims2()?;
    let mut heads = x.reshape((1, rows, width / dim, dim))?;
    if let Some(norm) = norm {
        heads = candle_nn::ops::rms_norm(&heads, norm, eps)?;
    }
    let turned = candle_nn::rotary_emb::rope_thd(&heads, &batch.cos, &batch.sin)?;
    Ok(turned.reshape((rows, width))?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::calibration::Sequences;
    use crate::family::{AttentionSpec, GroupedQuery, RotarySpec};

    #[test]
    fn slices_and_tensors_agree() {
        let sequences = Sequences {
            tokens: vec![0; 40],
            starts: vec![0, 13, 40],
            domains: vec![0, 0],
            names: vec!["text".to_owned()],
            weights: vec![1.0],
            documents: vec![1],
            seq_len: 27,
            seed: 0,
            hash: String::new(),
        };
        let spec = AttentionSpec::grouped(
            GroupedQuery::plain(3, 3, 10),
            RotarySpec::plain(10, 100.0),
            vec![None],
        );
        let batch = Batch::new(&sequences, 0..2, &spec, &Device::Cpu).unwrap();
        let values: Vec<f32> = (0..1200).map(|i| (i as f32 * 3.7).sin()).collect();
        let x = Tensor::from_vec(values, (40, 30), &Device::Cpu).unwrap();
        let norm = Tensor::arange(1f32, 11.0, &Device::Cpu).unwrap();
        for norm in [None, Some(&norm)] {
            let a = rotate(&x, norm, 1e-6, 10, &batch).unwrap();
            let b = rotate_tensors(&x, norm, 1e-6, 10, &batch).unwrap();
            let worst = (a - b)
                .unwrap()
                .abs()
                .unwrap()
                .max_all()
                .unwrap()
                .to_scalar::<f32>()
                .unwrap();
            assert!(worst < 1e-5, "{worst}");
        }
    }
}
