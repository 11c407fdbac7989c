//! What a step of the engine needs beside weights and cache.
//!
//! Counted from mistral.rs 0.8.1's forward pass on the CPU: the tensors that
//! are alive at the same time where most are. Prompts of one length that arrive
//! together run as one batch, in one step, whatever their number, and a prompt
//! is not divided. Rows are their tokens, all together.

use router_stats::family::{MlpSpec, MoeSpec, Projections, Topology};

/// How much more than its even share of the tokens the busiest expert of a
/// layer is taken to get.
const BUSIEST: f64 = 2.0;

/// Bytes for each token of a batch that no tensor shows: the rows of gate values
/// and of expert ids become vectors of their own (`MoEExperts::forward_slow`).
const ROW_VECTORS: u64 = 2 * (24 + 32);

/// Copies of a sequence's logits while its next token is chosen: logits, their
/// f32, probabilities, and what is sorted (`sampler.rs`).
const LOGITS: u64 = 4;

/// Bytes of a step over `sequences` prompts of `tokens` tokens each, in numbers
/// of `size` bytes.
pub(super) fn prompt(topology: &Topology, sequences: usize, tokens: usize, size: u64) -> u64 {
    let rows = (sequences * tokens) as u64;
    let square = (tokens * tokens) as u64;
    let hidden = topology.hidden as u64;
    let (query, key, value, latent) = widths(&topology.attention.projections, topology);
    // The stream and what its norm makes of it are there throughout.
    let kept = 2 * hidden + key + value + latent;
    // `RmsNorm` and the rotation copy a view that is not contiguous.
    let normed = rows * size * (kept + 3 * query) + square * size;
    // `run_flash_attn_cpu` has its own copy of the mask, in f32.
    let attended = rows * size * (kept + 2 * query) + square * (size + 4);
    let mlp = topology.mlps.iter().map(|mlp| match mlp {
        MlpSpec::Dense { intermediate } => rows * size * (3 * hidden + 3 * *intermediate as u64),
        MlpSpec::Moe(moe) => experts(moe, hidden, rows, size),
    });
    let mlp = mlp.max().unwrap_or(0) + square * size;
    // `CausalMasker`: bytes twice, then three times the numbers.
    let masked = rows * size * hidden + square * (2 + 2 * size);
    normed.max(attended).max(mlp).max(masked) + sequences as u64 * logits(topology)
}

/// Bytes of a step that gives `sequences` sequences a token each.
pub(super) fn token(topology: &Topology, sequences: usize) -> u64 {
    sequences as u64 * logits(topology)
}

/// Bytes of a step over one prompt of so many tokens, all of whose logits are
/// wanted: they are there twice.
pub(super) fn scored(topology: &Topology, tokens: usize, size: u64) -> u64 {
    prompt(topology, 1, tokens, size) + 2 * 4 * (tokens * topology.vocab) as u64
}

/// Bytes to choose the next token of a sequence.
fn logits(topology: &Topology) -> u64 {
    LOGITS * 4 * topology.vocab as u64
}

/// `MoEExperts::forward_slow`: the sum so far and the next one, routing, and
/// the rows of one expert.
fn experts(moe: &MoeSpec, hidden: u64, rows: u64, size: u64) -> u64 {
    let (experts, inner) = (moe.experts as u64, moe.intermediate as u64);
    let share = (BUSIEST * moe.router.top_k as f64 / experts as f64).min(1.0);
    let busiest = (rows as f64 * share).ceil() as u64;
    let shared = moe
        .shared
        .map_or(0, |it| hidden + 3 * it.intermediate as u64);
    let stream = rows * size * (4 * hidden + shared);
    let routing = rows * (4 * 4 * experts + ROW_VECTORS);
    stream + routing + busiest * size * (3 * hidden + 4 * inner)
}

/// Numbers of one token's queries, keys and values, and of the latents that
/// they come from.
fn widths(projections: &Projections, topology: &Topology) -> (u64, u64, u64, u64) {
    let rotary = topology.attention.rotary.dim;
    let (query, key, value, latent) = match projections {
        Projections::Grouped(it) => {
            let key = it.kv_heads * it.head_dim;
            (it.heads * it.head_dim, key, key, 0)
        }
        Projections::Latent(it) => {
            let query = it.heads * (it.nope_dim + rotary);
            let expanded = it.heads * (it.nope_dim + it.value_dim);
            (query, query, query, it.kv_rank + rotary + expanded)
        }
    };
    (query as u64, key as u64, value as u64, latent as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture::{model, Stored};

    #[test]
    fn prompts_take_more_the_longer_and_the_more_they_are() {
        let topology = model(Stored::PerExpert).topology;
        let bytes = |sequences, tokens| prompt(&topology, sequences, tokens, 4);
        assert!(bytes(2, 100) > bytes(1, 100));
        // The mask grows with the square.
        assert!(bytes(1, 4000) > 3 * bytes(1, 2000));
        assert_eq!(token(&topology, 3), 3 * 4 * 4 * 16);
    }
}
