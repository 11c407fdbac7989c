//! Rotary positions, with the norms over heads that some families put before
//! them.

use candle_core::Tensor;
use rayon::prelude::*;

use super::batch::Batch;
use super::rows::with_slices;
use super::simd;
use crate::family::Pairs;
use crate::Result;

/// Rows a parallel task takes at least.
const ROWS_PER_TASK: usize = 16;

/// Which dimensions of a head turn; the others keep still.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    /// Width of a head, d.
    pub head: usize,
    /// First dimension that turns.
    pub first: usize,
    /// How many do, an even number.
    pub dim: usize,
    /// Which of them turn together.
    pub pairs: Pairs,
}

/// Normalises every head of `x` [N, heads·d] by `norm` [d] if there is one,
/// then turns its pairs (a, b) into (a·cos − b·sin, b·cos + a·sin), each in its
/// place.
pub(super) fn rotate(
    x: &Tensor,
    norm: Option<&Tensor>,
    eps: f32,
    turn: Turn,
    batch: &Batch,
) -> Result<Tensor> {
    let (cos, sin) = (&batch.cos, &batch.sin);
    let on_cpu = with_slices(
        [x, norm.unwrap_or(cos), cos, sin],
        |[x, weight, cos, sin]| {
            rotate_slices(
                x,
                norm.map(|_| (weight, eps)),
                turn,
                x.len() / batch.rows(),
                cos,
                sin,
            )
        },
    )?;
    match on_cpu {
        Some(out) => Ok(Tensor::from_vec(out, x.shape(), x.device())?),
        None => rotate_tensors(x, norm, eps, turn, batch),
    }
}

fn rotate_slices(
    x: &[f32],
    norm: Option<(&[f32], f32)>,
    turn: Turn,
    width: usize,
    cos: &[f32],
    sin: &[f32],
) -> Vec<f32> {
    let half = turn.dim / 2;
    let mut out = x.to_vec();
    out.par_chunks_exact_mut(width)
        .zip(cos.par_chunks_exact(half).zip(sin.par_chunks_exact(half)))
        .with_min_len(ROWS_PER_TASK)
        .for_each(|(row, (cos, sin))| {
            simd::dispatch(
                #[inline(always)]
                || {
                    for head in row.chunks_exact_mut(turn.head) {
                        if let Some((weight, eps)) = norm {
                            let scale =
                                1.0 / (simd::dot(head, head) / turn.head as f32 + eps).sqrt();
                            head.iter_mut()
                                .zip(weight)
                                .for_each(|(x, &weight)| *x *= scale * weight);
                        }
                        let turned = &mut head[turn.first..][..turn.dim];
                        match turn.pairs {
                            Pairs::Halves => {
                                let (a, b) = turned.split_at_mut(half);
                                for (((a, b), &cos), &sin) in a.iter_mut().zip(b).zip(cos).zip(sin)
                                {
                                    (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                                }
                            }
                            Pairs::Adjacent => {
                                let pairs = turned.as_chunks_mut::<2>().0;
                                for (([a, b], &cos), &sin) in pairs.iter_mut().zip(cos).zip(sin) {
                                    (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                                }
                            }
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
    turn: Turn,
    batch: &Batch,
) -> Result<Tensor> {
    let Turn {
        head,
        first,
        dim,
        pairs,
    } = turn;
    let (rows, width) = x.dims2()?;
    let heads = width / head;
    let mut x = x.reshape((rows, heads, head))?;
    if let Some(norm) = norm {
        x = candle_nn::ops::rms_norm(&x, norm, eps)?;
    }
    // Pairs that are adjacent are brought into halves and back.
    let swapped = |x: &Tensor, (n, m): (usize, usize)| {
        let x = x.reshape((rows, heads, n, m))?.transpose(2, 3)?;
        x.reshape((1, rows, heads, dim))
    };
    let mut turned = x
        .narrow(2, first, dim)?
        .contiguous()?
        .reshape((1, rows, heads, dim))?;
    if pairs == Pairs::Adjacent {
        turned = swapped(&turned, (dim / 2, 2))?;
    }
    turned = candle_nn::rotary_emb::rope_thd(&turned, &batch.cos, &batch.sin)?;
    if pairs == Pairs::Adjacent {
        turned = swapped(&turned, (2, dim / 2))?;
    }
    let turned = turned.reshape((rows, heads, dim))?;
    let (before, after) = (x.narrow(2, 0, first)?, first + dim);
    let after = x.narrow(2, after, head - after)?;
    Ok(Tensor::cat(&[before, turned, after], 2)?.reshape((rows, width))?)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::calibration::Sequences;
    use crate::family::{AttentionSpec, GroupedQuery, RotarySpec};
    use crate::forward::testing::worst;

    fn batch(dim: usize) -> Batch {
        let sequences = Sequences {
            tokens: vec![0; 40],
            starts: vec![0, 13, 40],
            domains: vec![0, 0],
            document: vec![0, 0],
            names: vec!["text".to_owned()],
            weights: vec![1.0],
            documents: vec![1],
            seq_len: 27,
            seed: 0,
            hash: String::new(),
        };
        let spec = AttentionSpec::grouped(
            GroupedQuery::plain(3, 3, 10),
            RotarySpec::plain(dim, 100.0),
            vec![None],
        );
        Batch::new(&sequences, 0..2, &spec, &Device::Cpu).unwrap()
    }

    #[test]
    fn slices_and_tensors_agree() {
        let values: Vec<f32> = (0..1200).map(|i| (i as f32 * 3.7).sin()).collect();
        let x = Tensor::from_vec(values, (40, 30), &Device::Cpu).unwrap();
        let norm = Tensor::arange(1f32, 11.0, &Device::Cpu).unwrap();
        for (first, dim) in [(0, 10), (0, 4), (6, 4), (3, 6), (8, 2)] {
            let batch = batch(dim);
            for pairs in [Pairs::Halves, Pairs::Adjacent] {
                let turn = Turn {
                    head: 10,
                    first,
                    dim,
                    pairs,
                };
                for norm in [None, Some(&norm)] {
                    let a = rotate(&x, norm, 1e-6, turn, &batch).unwrap();
                    let b = rotate_tensors(&x, norm, 1e-6, turn, &batch).unwrap();
                    let worst = worst(&a, &b);
                    assert!(worst < 1e-5, "{turn:?}: {worst}");
                }
            }
        }
    }

    #[test]
    fn pairs_turn_where_they_are_and_the_rest_keeps_still() {
        // The row at position 2 of the second sequence, one head of 10.
        let x = Tensor::arange(0f32, 400.0, &Device::Cpu).unwrap();
        let x = x.reshape((40, 10)).unwrap();
        let (row, position) = (15, 2f64);
        let before: Vec<f64> = (0..10).map(|i| f64::from(row * 10 + i)).collect();
        for (pairs, places) in [
            (Pairs::Halves, [(3, 5), (4, 6)]),
            (Pairs::Adjacent, [(3, 4), (5, 6)]),
        ] {
            let turn = Turn {
                head: 10,
                first: 3,
                dim: 4,
                pairs,
            };
            let mut expected = before.clone();
            // θ = 100 and four dimensions: frequencies 1 and 1/10.
            for ((a, b), frequency) in places.into_iter().zip([1.0, 0.1]) {
                let (sin, cos) = (position * frequency).sin_cos();
                expected[a] = before[a] * cos - before[b] * sin;
                expected[b] = before[b] * cos + before[a] * sin;
            }
            let turned = rotate(&x, None, 0.0, turn, &batch(4)).unwrap();
            let turned = turned.get(row as usize).unwrap().to_vec1::<f32>().unwrap();
            for (found, expected) in turned.iter().zip(expected) {
                assert!((f64::from(*found) - expected).abs() < 1e-3, "{turned:?}");
            }
        }
    }
}
