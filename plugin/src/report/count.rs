//! Routing load of a model as it is and as a plan leaves it, counted.

use router_stats::calibration::Sequences;
use router_stats::family::Keep;
use router_stats::forward::{Event, Model};
use router_stats::progress::{Progress, Update};

use crate::Result;

/// Share of tokens that each expert gets, on one text: `[L][E]`. Layers
/// without experts have none, nor have layers that went or lost them.
#[derive(Debug, Clone, PartialEq)]
pub struct Counted {
    /// Tokens of the text.
    pub tokens: u64,
    /// In the model as it is.
    pub before: Vec<Vec<f64>>,
    /// In what `keep` leaves of it, by original index.
    pub after: Vec<Vec<f64>>,
}

/// Runs `sequences` through `model` twice, the second time with what `keep`
/// drops masked, and counts where tokens are routed.
///
/// # Errors
/// Those of the forward pass; `Interrupted` if the user asks to stop.
pub fn count(
    model: &Model,
    keep: &Keep,
    sequences: &Sequences,
    batch_tokens: usize,
    progress: &dyn Progress,
) -> Result<Counted> {
    let everything = Keep::all(model.topology());
    let run = |keep: &Keep, stage| shares(model, keep, sequences, batch_tokens, stage, progress);
    Ok(Counted {
        tokens: sequences.tokens.len() as u64,
        before: run(&everything, "Counting before")?,
        after: run(keep, "Counting after")?,
    })
}

fn shares(
    model: &Model,
    keep: &Keep,
    sequences: &Sequences,
    batch_tokens: usize,
    stage: &str,
    progress: &dyn Progress,
) -> Result<Vec<Vec<f64>>> {
    keep.check(model.topology())?;
    let tokens = sequences.tokens.len();
    let embedding = model.embedding()?;
    let mut batches = Vec::new();
    for range in sequences.batches(batch_tokens) {
        let hidden = model.embed(&embedding, sequences, range.clone())?;
        batches.push((model.batch(sequences, range)?, hidden));
    }
    drop(embedding);
    let mut shares = vec![Vec::new(); model.topology().layers()];
    let mut done = 0;
    for (index, &layer) in keep.layers.iter().enumerate() {
        let block = model.block_of(keep, layer)?;
        let mask = keep.mask(model.topology(), layer);
        let mask = mask.contains(&false).then_some(mask.as_slice());
        let experts = keep
            .moe(model.topology(), layer)
            .map_or(0, |moe| moe.experts);
        let mut counts = vec![0_u64; experts];
        for (batch, hidden) in &mut batches {
            *hidden = block.forward(hidden, batch, mask, &mut |event| {
                if let Event::Routing { routes } = event {
                    for &expert in &routes.experts {
                        counts[expert as usize] += 1;
                    }
                }
                Ok(())
            })?;
            done += batch.rows() as u64;
            progress.step(&Update {
                stage,
                detail: &format!("layer {}/{}", index + 1, keep.layers.len()),
                unit: "tok",
                done: done / keep.layers.len() as u64,
                total: tokens as u64,
            })?;
        }
        shares[layer] = counts
            .into_iter()
            .map(|count| count as f64 / tokens.max(1) as f64)
            .collect();
    }
    Ok(shares)
}
