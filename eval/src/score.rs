//! From final hidden states to summed outcomes per sequence.
//!
//! Logits exist for a chunk of rows at a time, of one model or of two; they
//! are never held for all tokens.

use std::ops::Range;

use candle_core::{DType, Tensor};
use rayon::prelude::*;
use router_stats::calibration::Sequences;
use router_stats::forward::Head;
use router_stats::progress::{Progress, Update};

use crate::distribution::{Distribution, Prediction};
use crate::evaluate::Variant;
use crate::evaluator::EVALUATORS;
use crate::{Error, Result};

/// Bytes of one model's logits that are formed at once.
const CHUNK_BYTES: usize = 64 << 20;

/// One number per evaluator.
pub(crate) type Outcomes = [f64; EVALUATORS.len()];

/// What a model's logits are formed of.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a> {
    pub(crate) variant: &'a Variant<'a>,
    pub(crate) head: &'a Head,
    /// Final-norm hidden states [tokens, H] of every batch.
    pub(crate) hidden: &'a [Tensor],
}

/// Summed outcomes, per sequence.
pub(crate) struct Sums {
    /// Of the reference; zero where an outcome compares two models.
    pub(crate) reference: Vec<Outcomes>,
    /// Of the variant; those of the reference if there is none.
    pub(crate) variant: Vec<Outcomes>,
}

/// Tokens done before this pass, and in all passes.
#[derive(Clone, Copy)]
pub(crate) struct Meter<'a> {
    pub(crate) progress: &'a dyn Progress,
    pub(crate) done: u64,
    pub(crate) total: u64,
}

/// Sums the outcomes of every predicted token of every sequence. The last
/// token of a sequence predicts nothing.
pub(crate) fn score(
    reference: Run<'_>,
    variant: Option<Run<'_>>,
    sequences: &Sequences,
    batches: &[Range<usize>],
    meter: Meter<'_>,
) -> Result<Sums> {
    let vocab = reference.variant.model.topology().vocab;
    let chunk = (CHUNK_BYTES / size_of::<f32>() / vocab).max(1);
    let mut sums = Sums {
        reference: vec![Outcomes::default(); sequences.len()],
        variant: vec![Outcomes::default(); sequences.len()],
    };
    let detail = &variant.unwrap_or(reference).variant.name;
    let mut done = meter.done;
    for (index, batch) in batches.iter().enumerate() {
        let rows = rows(sequences, batch.clone());
        for (number, rows) in rows.chunks(chunk).enumerate() {
            let start = number * chunk;
            let mut p = logits(reference, index, start, rows.len())?;
            let mut q = variant
                .map(|run| logits(run, index, start, rows.len()))
                .transpose()?;
            let outcomes = outcomes(&mut p, q.as_deref_mut(), rows).map_err(|failure| {
                let run = variant.filter(|_| failure.variant).unwrap_or(reference);
                Error::NonFinite {
                    model: run.variant.name.clone(),
                    sequence: failure.row.sequence,
                    position: failure.row.position,
                }
            })?;
            for (row, (of_reference, of_variant)) in rows.iter().zip(outcomes) {
                add(&mut sums.reference[row.sequence], &of_reference);
                add(&mut sums.variant[row.sequence], &of_variant);
            }
            done += rows.len() as u64;
            meter.progress.step(&Update {
                stage: "Comparing",
                detail,
                unit: "tok",
                done,
                total: meter.total,
            })?;
        }
    }
    Ok(sums)
}

/// A token, and the one that follows it in its sequence.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Row {
    sequence: usize,
    position: usize,
    target: Option<u32>,
}

/// The tokens of a batch in order.
fn rows(sequences: &Sequences, batch: Range<usize>) -> Vec<Row> {
    batch
        .flat_map(|sequence| {
            let tokens = sequences.sequence(sequence);
            (0..tokens.len()).map(move |position| Row {
                sequence,
                position,
                target: tokens.get(position + 1).copied(),
            })
        })
        .collect()
}

/// Logits [rows · V] of part of a batch.
fn logits(run: Run<'_>, batch: usize, start: usize, rows: usize) -> Result<Vec<f32>> {
    let hidden = run.hidden[batch].narrow(0, start, rows)?;
    let logits = run.variant.model.logits(run.head, &hidden)?;
    Ok(logits.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

/// Where a distribution was not finite, and whose it was.
#[derive(Debug, PartialEq)]
struct NotFinite {
    row: Row,
    variant: bool,
}

/// Outcomes of the reference alone and of the variant against it, per row.
/// Logits [rows · V] are overwritten.
fn outcomes(
    reference: &mut [f32],
    variant: Option<&mut [f32]>,
    rows: &[Row],
) -> Result<Vec<(Outcomes, Outcomes)>, NotFinite> {
    let vocab = reference.len() / rows.len();
    let variant: Vec<Option<&mut [f32]>> = match variant {
        Some(logits) => logits.chunks_mut(vocab).map(Some).collect(),
        None => rows.iter().map(|_| None).collect(),
    };
    reference
        .par_chunks_mut(vocab)
        .zip(variant)
        .zip(rows)
        .map(|((p, q), row)| {
            let Some(target) = row.target else {
                return Ok(Default::default());
            };
            let target = target as usize;
            let failure = |variant| NotFinite { row: *row, variant };
            let p = Distribution::new(p, target).ok_or_else(|| failure(false))?;
            let alone = of(
                Prediction {
                    target,
                    reference: &p,
                    variant: &p,
                },
                false,
            );
            let Some(q) = q else {
                return Ok((alone, alone));
            };
            let q = Distribution::new(q, target).ok_or_else(|| failure(true))?;
            Ok((
                alone,
                of(
                    Prediction {
                        target,
                        reference: &p,
                        variant: &q,
                    },
                    true,
                ),
            ))
        })
        .collect()
}

/// Outcomes of one prediction; those that compare models only if `compare`.
fn of(prediction: Prediction<'_>, compare: bool) -> Outcomes {
    let mut outcomes = Outcomes::default();
    for (outcome, evaluator) in outcomes.iter_mut().zip(EVALUATORS) {
        if compare || !evaluator.against_reference() {
            *outcome = evaluator.outcome(&prediction);
        }
    }
    outcomes
}

fn add(sums: &mut Outcomes, outcomes: &Outcomes) {
    for (sum, outcome) in sums.iter_mut().zip(outcomes) {
        *sum += outcome;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOCAB: usize = 37;

    fn logits(rows: usize, phase: f32) -> Vec<f32> {
        (0..rows * VOCAB)
            .map(|i| 4.0 * (i as f32 * 0.61 + phase).sin())
            .collect()
    }

    fn row(position: usize, target: Option<u32>) -> Row {
        Row {
            sequence: 0,
            position,
            target,
        }
    }

    #[test]
    fn outcomes_match_naive_ones() {
        let rows = [
            row(0, Some(3)),
            row(1, Some(36)),
            row(2, None),
            row(3, Some(0)),
        ];
        let (p, q) = (logits(4, 0.0), logits(4, 0.4));
        let found = outcomes(&mut p.clone(), Some(&mut q.clone()), &rows).unwrap();
        let softmax = |row: &[f32]| -> Vec<f64> {
            let weights: Vec<f64> = row.iter().map(|&z| f64::from(z).exp()).collect();
            let sum: f64 = weights.iter().sum();
            weights.into_iter().map(|w| w / sum).collect()
        };
        let top = |row: &[f64]| {
            (0..VOCAB)
                .max_by(|&a, &b| row[a].total_cmp(&row[b]))
                .unwrap()
        };
        for (index, (row, (alone, compared))) in rows.iter().zip(found).enumerate() {
            let range = index * VOCAB..(index + 1) * VOCAB;
            let (p, q) = (softmax(&p[range.clone()]), softmax(&q[range]));
            let expected = match row.target {
                None => [[0.0; 4]; 2],
                Some(target) => {
                    let target = target as usize;
                    let overlap = p.iter().zip(&q).map(|(p, q)| p.min(*q)).sum();
                    let divergence = p.iter().zip(&q).map(|(p, q)| p * (p / q).ln()).sum();
                    let agree = f64::from(u8::from(top(&p) == top(&q)));
                    [
                        [-p[target].ln(), 0.0, 0.0, 0.0],
                        [-q[target].ln(), agree, overlap, divergence],
                    ]
                }
            };
            for (found, expected) in [alone, compared].into_iter().zip(expected) {
                assert!(
                    found
                        .iter()
                        .zip(expected)
                        .all(|(f, e)| (f - e).abs() < 1e-6),
                    "{found:?} {expected:?}"
                );
            }
        }
    }

    #[test]
    fn without_a_variant_the_reference_stands_alone() {
        let found = outcomes(&mut logits(1, 0.0), None, &[row(0, Some(5))]).unwrap();
        assert_eq!(found[0].0, found[0].1);
        assert!(found[0].0[0] > 0.0);
    }

    #[test]
    fn a_bad_row_is_named() {
        let rows = [row(4, Some(1)), row(5, Some(2))];
        let (mut p, mut q) = (logits(2, 0.0), logits(2, 0.1));
        q[VOCAB + 9] = f32::NAN;
        let failure = outcomes(&mut p, Some(&mut q), &rows).unwrap_err();
        assert_eq!(
            failure,
            NotFinite {
                row: rows[1],
                variant: true
            }
        );
    }
}
