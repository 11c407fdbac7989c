//! Operations on the rows of [n, w] f32 tensors.
//!
//! On the CPU each is one parallel, vectorised pass over slices; on other
//! devices the same result is composed from tensor operations. Tests hold the
//! two equal.

use candle_core::{CpuStorage, InplaceOp2, Layout, Storage, Tensor, D};
use rayon::prelude::*;

use super::simd;
use crate::Result;

/// Rows a parallel task takes at least.
const ROWS_PER_TASK: usize = 64;

/// Runs `f` on the contiguous f32 values of CPU tensors; `None` on other devices.
pub(crate) fn with_slices<const N: usize, R>(
    tensors: [&Tensor; N],
    f: impl FnOnce([&[f32]; N]) -> R,
) -> Result<Option<R>> {
    if tensors.iter().any(|tensor| !tensor.device().is_cpu()) {
        return Ok(None);
    }
    let tensors: Vec<Tensor> = tensors
        .iter()
        .map(|tensor| tensor.contiguous())
        .collect::<candle_core::Result<_>>()?;
    let guards: Vec<_> = tensors.iter().map(Tensor::storage_and_layout).collect();
    let mut slices: [&[f32]; N] = [&[]; N];
    for (slice, (storage, layout)) in slices.iter_mut().zip(&guards) {
        let Storage::Cpu(values) = &**storage else {
            return Ok(None);
        };
        *slice = &values.as_slice::<f32>()?[layout.start_offset()..][..layout.shape().elem_count()];
    }
    Ok(Some(f(slices)))
}

/// One value per row, computed in parallel.
fn per_row<R: Send>(values: &[f32], width: usize, f: impl Fn(&[f32]) -> R + Sync) -> Vec<R> {
    values
        .par_chunks_exact(width)
        .with_min_len(ROWS_PER_TASK)
        .map(|row| {
            simd::dispatch(
                #[inline(always)]
                || f(row),
            )
        })
        .collect()
}

/// SwiGLU: silu(gate) ∘ up of rows [gate | up], [n, 2I] → [n, I].
pub(super) fn swiglu(gate_up: &Tensor) -> Result<Tensor> {
    let (rows, twice) = gate_up.dims2()?;
    let width = twice / 2;
    let on_cpu = with_slices([gate_up], |[values]| {
        let mut out = vec![0f32; rows * width];
        out.par_chunks_exact_mut(width)
            .zip(values.par_chunks_exact(twice))
            .with_min_len(ROWS_PER_TASK)
            .for_each(|(out, row)| {
                let (gate, up) = row.split_at(width);
                simd::dispatch(
                    #[inline(always)]
                    || {
                        for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
                            *out = simd::silu(gate) * up;
                        }
                    },
                );
            });
        out
    })?;
    match on_cpu {
        Some(out) => Ok(Tensor::from_vec(out, (rows, width), gate_up.device())?),
        None => {
            let gate = gate_up.narrow(D::Minus1, 0, width)?;
            let up = gate_up.narrow(D::Minus1, width, width)?;
            Ok((gate.silu()? * up)?)
        }
    }
}

/// Rows of `values` [N, w] by index, [n, w].
pub(crate) fn gather(values: &Tensor, rows: &[u32]) -> Result<Tensor> {
    let (_, width) = values.dims2()?;
    let on_cpu = with_slices([values], |[values]| {
        let mut out = vec![0f32; rows.len() * width];
        out.par_chunks_exact_mut(width)
            .zip(rows)
            .with_min_len(ROWS_PER_TASK)
            .for_each(|(out, &row)| {
                out.copy_from_slice(&values[row as usize * width..][..width]);
            });
        out
    })?;
    match on_cpu {
        Some(out) => Ok(Tensor::from_vec(out, (rows.len(), width), values.device())?),
        None => Ok(values.index_select(&Tensor::new(rows, values.device())?, 0)?),
    }
}

/// target[rows[i]] += gates[i] · values[i]; `rows` ascending without repetition.
pub(super) fn scatter_add(
    target: Tensor,
    rows: &[u32],
    gates: &[f32],
    values: &Tensor,
) -> Result<Tensor> {
    if target.device().is_cpu() {
        target.inplace_op2(&values.contiguous()?, &ScatterAdd { rows, gates })?;
        return Ok(target);
    }
    let gates = Tensor::new(gates, target.device())?.unsqueeze(1)?;
    let rows = Tensor::new(rows, target.device())?;
    Ok(target.index_add(&rows, &values.broadcast_mul(&gates)?, 0)?)
}

struct ScatterAdd<'a> {
    rows: &'a [u32],
    gates: &'a [f32],
}

impl InplaceOp2 for ScatterAdd<'_> {
    fn name(&self) -> &'static str {
        "scatter-add"
    }

    fn cpu_fwd(
        &self,
        target: &mut CpuStorage,
        target_layout: &Layout,
        values: &CpuStorage,
        values_layout: &Layout,
    ) -> candle_core::Result<()> {
        let (CpuStorage::F32(target), CpuStorage::F32(values)) = (target, values) else {
            candle_core::bail!("scatter-add expects f32");
        };
        let width = target_layout.shape().dims2()?.1;
        let target = &mut target[target_layout.start_offset()..];
        let values = &values[values_layout.start_offset()..];
        let Self { rows, gates } = *self;
        // Rows ascend, so pieces of them touch separate pieces of the target.
        let mut tasks = Vec::new();
        let (mut rest, mut first) = (target, 0);
        for (index, rows) in rows.chunks(ROWS_PER_TASK).enumerate() {
            let end = rows[rows.len() - 1] as usize + 1;
            let (piece, after) = rest.split_at_mut((end - first) * width);
            let from = index * ROWS_PER_TASK;
            tasks.push((first, rows, &gates[from..], &values[from * width..], piece));
            (rest, first) = (after, end);
        }
        tasks
            .into_par_iter()
            .for_each(|(first, rows, gates, values, piece)| {
                simd::dispatch(
                    #[inline(always)]
                    || {
                        for ((&row, &gate), value) in
                            rows.iter().zip(gates).zip(values.chunks_exact(width))
                        {
                            let sum = &mut piece[(row as usize - first) * width..][..width];
                            for (sum, &value) in sum.iter_mut().zip(value) {
                                *sum = gate.mul_add(value, *sum);
                            }
                        }
                    },
                );
            });
        Ok(())
    }
}

/// target + other.
pub(super) fn add(target: Tensor, other: &Tensor) -> Result<Tensor> {
    if target.device().is_cpu() {
        target.inplace_op2(&other.contiguous()?, &Add)?;
        return Ok(target);
    }
    Ok((target + other)?)
}

struct Add;

impl InplaceOp2 for Add {
    fn name(&self) -> &'static str {
        "add"
    }

    fn cpu_fwd(
        &self,
        target: &mut CpuStorage,
        target_layout: &Layout,
        other: &CpuStorage,
        other_layout: &Layout,
    ) -> candle_core::Result<()> {
        /// Elements a parallel task takes.
        const ELEMENTS: usize = 1 << 14;
        let (CpuStorage::F32(target), CpuStorage::F32(other)) = (target, other) else {
            candle_core::bail!("add expects f32");
        };
        let target =
            &mut target[target_layout.start_offset()..][..target_layout.shape().elem_count()];
        let other = &other[other_layout.start_offset()..];
        target
            .par_chunks_mut(ELEMENTS)
            .zip(other.par_chunks(ELEMENTS))
            .for_each(|(target, other)| {
                simd::dispatch(
                    #[inline(always)]
                    || {
                        target
                            .iter_mut()
                            .zip(other)
                            .for_each(|(target, &other)| *target += other);
                    },
                );
            });
        Ok(())
    }
}

/// RMS norm: row · weight / √(mean(row²) + ε), [n, w] (Zhang and Sennrich,
/// arXiv 1910.07467).
pub(super) fn rms_norm(values: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
    let (_, width) = values.dims2()?;
    let on_cpu = with_slices([values, weight], |[values, weight]| {
        let mut out = vec![0f32; values.len()];
        out.par_chunks_exact_mut(width)
            .zip(values.par_chunks_exact(width))
            .with_min_len(ROWS_PER_TASK)
            .for_each(|(out, row)| {
                simd::dispatch(
                    #[inline(always)]
                    || simd::rms_norm(row, weight, eps, out),
                );
            });
        out
    })?;
    match on_cpu {
        Some(out) => Ok(Tensor::from_vec(out, values.shape(), values.device())?),
        None => Ok(candle_nn::ops::rms_norm(values, weight, eps)?),
    }
}

/// ‖row‖₂ and ‖row‖∞ of every row of [n, w].
pub(crate) fn norms(values: &Tensor) -> Result<Vec<(f32, f32)>> {
    let (_, width) = values.dims2()?;
    let on_cpu = with_slices([values], |[values]| {
        per_row(
            values,
            width,
            #[inline(always)]
            |row| (simd::dot(row, row).sqrt(), simd::max_abs(row)),
        )
    })?;
    if let Some(norms) = on_cpu {
        return Ok(norms);
    }
    let l2 = values.sqr()?.sum(D::Minus1)?.sqrt()?.to_vec1::<f32>()?;
    let max = values.abs()?.max(D::Minus1)?.to_vec1::<f32>()?;
    Ok(l2.into_iter().zip(max).collect())
}

/// a·b / (‖a‖‖b‖) from a·b, a·a and b·b; 0 if a row is zero, not a number if
/// one is not finite.
#[inline(always)]
fn cosine([ab, aa, bb]: [f32; 3]) -> f32 {
    let norm = aa.sqrt() * bb.sqrt();
    if norm == 0.0 {
        0.0
    } else if norm.is_finite() {
        (ab / norm).clamp(-1.0, 1.0)
    } else {
        f32::NAN
    }
}

/// Cosine of the angle between matching rows of two [n, w] tensors; 0 if a
/// row is zero, not a number if one is not finite.
pub(crate) fn cosines(a: &Tensor, b: &Tensor) -> Result<Vec<f32>> {
    let (_, width) = a.dims2()?;
    let on_cpu = with_slices([a, b], |[a, b]| {
        a.par_chunks_exact(width)
            .zip(b.par_chunks_exact(width))
            .with_min_len(ROWS_PER_TASK)
            .map(|(a, b)| {
                simd::dispatch(
                    #[inline(always)]
                    || cosine([simd::dot(a, b), simd::dot(a, a), simd::dot(b, b)]),
                )
            })
            .collect()
    })?;
    if let Some(cosines) = on_cpu {
        return Ok(cosines);
    }
    let sums =
        |a: &Tensor, b: &Tensor| -> Result<Vec<f32>> { Ok((a * b)?.sum(D::Minus1)?.to_vec1()?) };
    let (ab, aa, bb) = (sums(a, b)?, sums(a, a)?, sums(b, b)?);
    Ok(ab
        .into_iter()
        .zip(aa)
        .zip(bb)
        .map(|((ab, aa), bb)| cosine([ab, aa, bb]))
        .collect())
}

/// Adds every row of `values` [n, w] to the sum of its group, in f64.
/// `sums` is G × w, row-major; `groups` has one entry per row.
pub(crate) fn sum_by_group(values: &Tensor, groups: &[u16], sums: &mut [f64]) -> Result<()> {
    let (_, width) = values.dims2()?;
    let add = |values: &[f32], sums: &mut [f64]| {
        // Column blocks are independent, so each is one task and the order of
        // additions, hence the result, does not depend on the thread count.
        const COLUMNS: usize = 32;
        let blocks: Vec<(usize, Vec<f64>)> = (0..width)
            .step_by(COLUMNS)
            .collect::<Vec<_>>()
            .into_par_iter()
            .map(|column| {
                let columns = COLUMNS.min(width - column);
                let mut block = vec![0f64; sums.len() / width * columns];
                simd::dispatch(
                    #[inline(always)]
                    || {
                        for (row, &group) in values.chunks_exact(width).zip(groups) {
                            let sum = &mut block[usize::from(group) * columns..][..columns];
                            for (sum, &value) in sum.iter_mut().zip(&row[column..][..columns]) {
                                *sum += f64::from(value);
                            }
                        }
                    },
                );
                (column, block)
            })
            .collect();
        for (column, block) in blocks {
            let columns = COLUMNS.min(width - column);
            for (sums, block) in sums
                .chunks_exact_mut(width)
                .zip(block.chunks_exact(columns))
            {
                for (sum, value) in sums[column..].iter_mut().zip(block) {
                    *sum += value;
                }
            }
        }
    };
    if with_slices([values], |[values]| add(values, sums))?.is_none() {
        add(&values.flatten_all()?.to_vec1::<f32>()?, sums);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};

    use super::*;
    use crate::forward::testing::worst;

    fn random(rows: usize, width: usize, seed: f32) -> Tensor {
        let values: Vec<f32> = (0..rows * width)
            .map(|i| ((i as f32 + seed) * 12.9898).sin() * 3.0)
            .collect();
        Tensor::from_vec(values, (rows, width), &Device::Cpu).unwrap()
    }

    fn assert_close(a: &Tensor, b: &Tensor) {
        let worst = worst(a, b);
        assert!(worst < 1e-5, "{worst}");
    }

    #[test]
    fn swiglu_equals_its_tensor_form() {
        let x = random(130, 38, 1.0);
        let tensor_form =
            (x.narrow(1, 0, 19).unwrap().silu().unwrap() * x.narrow(1, 19, 19).unwrap()).unwrap();
        assert_close(&swiglu(&x).unwrap(), &tensor_form);
    }

    #[test]
    fn gather_and_scatter_equal_their_tensor_forms() {
        let (target, values) = (random(9, 5, 2.0), random(3, 5, 3.0));
        let (rows, gates) = ([1u32, 4, 8], [0.5f32, -1.0, 2.0]);
        let index = Tensor::new(&rows, &Device::Cpu).unwrap();
        assert_close(
            &gather(&target, &rows).unwrap(),
            &target.index_select(&index, 0).unwrap(),
        );
        let weighted = values
            .broadcast_mul(
                &Tensor::new(&gates, &Device::Cpu)
                    .unwrap()
                    .unsqueeze(1)
                    .unwrap(),
            )
            .unwrap();
        let tensor_form = target.index_add(&index, &weighted, 0).unwrap();
        assert_close(
            &scatter_add(target.copy().unwrap(), &rows, &gates, &values).unwrap(),
            &tensor_form,
        );
    }

    #[test]
    fn adding_and_normalising_equal_their_tensor_forms() {
        let (a, b) = (random(300, 70, 6.0), random(300, 70, 7.0));
        assert_close(&add(a.copy().unwrap(), &b).unwrap(), &(&a + &b).unwrap());
        let weight = random(1, 70, 8.0).flatten_all().unwrap();
        let tensor_form = candle_nn::ops::rms_norm_slow(&a, &weight, 1e-5).unwrap();
        assert_close(&rms_norm(&a, &weight, 1e-5).unwrap(), &tensor_form);
    }

    #[test]
    fn scattering_reaches_every_row_once() {
        let rows: Vec<u32> = (0..500).filter(|row| row % 3 != 1).collect();
        let target = Tensor::zeros((500, 5), DType::F32, &Device::Cpu).unwrap();
        let values = Tensor::ones((rows.len(), 5), DType::F32, &Device::Cpu).unwrap();
        let gates: Vec<f32> = rows.iter().map(|&row| row as f32).collect();
        let sum = scatter_add(target, &rows, &gates, &values)
            .unwrap()
            .to_vec2::<f32>()
            .unwrap();
        for (row, sum) in sum.iter().enumerate() {
            let expected = if row % 3 == 1 { 0.0 } else { row as f32 };
            assert_eq!(sum, &[expected; 5]);
        }
    }

    #[test]
    fn norms_cosines_and_sums_equal_their_definitions() {
        let (a, b) = (random(70, 33, 4.0), random(70, 33, 5.0));
        let (va, vb) = (a.to_vec2::<f32>().unwrap(), b.to_vec2::<f32>().unwrap());
        let dot = |x: &[f32], y: &[f32]| -> f64 {
            x.iter()
                .zip(y)
                .map(|(&x, &y)| f64::from(x) * f64::from(y))
                .sum()
        };
        for (row, (l2, max)) in va.iter().zip(norms(&a).unwrap()) {
            assert!((f64::from(l2) - dot(row, row).sqrt()).abs() < 1e-4);
            assert_eq!(max, row.iter().fold(0f32, |m, x| m.max(x.abs())));
        }
        for ((x, y), cos) in va.iter().zip(&vb).zip(cosines(&a, &b).unwrap()) {
            let exact = dot(x, y) / (dot(x, x) * dot(y, y)).sqrt();
            assert!((f64::from(cos) - exact).abs() < 1e-5);
        }
        let groups: Vec<u16> = (0..70).map(|i| (i % 3) as u16).collect();
        let mut sums = vec![1f64; 3 * 33];
        sum_by_group(&a, &groups, &mut sums).unwrap();
        for group in 0..3 {
            for column in 0..33 {
                let exact: f64 = (group..70)
                    .step_by(3)
                    .map(|row| f64::from(va[row][column]))
                    .sum();
                assert!((sums[group * 33 + column] - 1.0 - exact).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn a_zero_row_has_no_angle() {
        let zero = Tensor::zeros((1, 4), DType::F32, &Device::Cpu).unwrap();
        assert_eq!(cosines(&zero, &random(1, 4, 0.0)).unwrap(), [0.0]);
        for value in [f32::INFINITY, f32::NAN] {
            let broken = Tensor::full(value, (1, 4), &Device::Cpu).unwrap();
            assert!(cosines(&broken, &random(1, 4, 0.0)).unwrap()[0].is_nan());
        }
    }
}
