//! The resident memory of a served model, predicted.
//!
//! ```text
//! program      pages of the program itself     \ measured on this machine,
//! engine       tokenizer, runtime, threads     / see overhead
//! weights      as the engine holds them          Held
//! positions    tables of rotary positions
//! cache        keys and values                   cache
//! work         what a step needs                 working
//! ```
//!
//! The prediction is for so many sequences of so many tokens at the same time, at
//! the worst moment of their lives. It is no strict bound: what the allocator adds
//! to every block is not counted, up to a page of each large one, which a model of
//! thousands of matrices shows (docs/fit.md). It is compared with the
//! resident set size of the serving process (`VmRSS`), once the model is
//! loaded. While it loads, pages of the checkpoint's files are mapped too; they
//! are clean, the system takes them back when it needs them, and they are gone
//! when loading ends.
//!
//! Owns arithmetic and one measurement. What to do with the memory that there
//! is, [`crate::solve`] decides.

mod cache;
mod longest;
pub mod overhead;
mod resident;
mod table;
mod working;

use router_stats::family::{Keep, Topology};
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

pub use longest::longest;
pub use overhead::Overhead;
pub use resident::Resident;
pub use table::{terms, Term};

use crate::surgery::{Held, UqffDevice};

/// What is served at the same time at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traffic {
    /// Sequences: `--max-seqs`.
    pub sequences: usize,
    /// Tokens of each, prompt and answer together: `--max-seq-len`.
    pub tokens: usize,
}

/// Where a model is served, and to whom.
#[derive(Debug, Clone, Copy)]
pub struct Serving<'a> {
    /// Structure of the original model.
    pub topology: &'a Topology,
    /// What is served at most.
    pub traffic: Traffic,
    /// Where.
    pub device: UqffDevice,
    /// What the engine computes in.
    pub float: Dtype,
    /// What the engine takes without a model.
    pub overhead: Overhead,
    /// Threads that load layers at the same time.
    pub threads: usize,
}

/// Bytes of memory, term by term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Pages of the program's file.
    pub program: u64,
    /// Tokenizer, runtime and threads.
    pub engine: u64,
    /// Weights.
    pub weights: u64,
    /// Tables of rotary positions.
    pub positions: u64,
    /// Keys and values of all sequences.
    pub cache: u64,
    /// A step over all prompts together.
    pub prompt: u64,
    /// A step of all sequences together, with the second cache that it may
    /// make.
    pub step: u64,
    /// What loading needs beside the weights.
    pub loading: u64,
    /// Tokens of the longest prompt whose logits, all of them, fit in what the
    /// rest is for; such a prompt runs alone.
    pub scored: usize,
}

impl Memory {
    /// Of a model of which `held` is held and `keep` is left.
    pub fn of(serving: &Serving<'_>, held: &Held, keep: &Keep) -> Self {
        let Serving {
            topology,
            traffic,
            device,
            ..
        } = *serving;
        let size = serving.float.bitsize() as u64 / 8;
        let tokens = cache::room(traffic.tokens).min(topology.max_positions.max(traffic.tokens));
        let sequences = traffic.sequences;
        let cache = sequences as u64 * cache::of_sequence(topology, keep, device, tokens, size);
        let copies = match device {
            UqffDevice::Cpu => cache,
            UqffDevice::Gpu => 0,
        };
        // Gate, up or down projections of a layer are transposed by copying.
        let layers = serving.threads.min(keep.layers.len()) as u64;
        let mut memory = Self {
            program: serving.overhead.program,
            engine: serving.overhead.engine,
            weights: held.bytes(keep),
            positions: (topology.attention.rotary.dim * tokens) as u64 * size,
            cache,
            prompt: working::prompt(topology, sequences, tokens, size),
            step: copies + working::token(topology, sequences),
            loading: layers * held.largest_experts(keep) / 3,
            scored: 0,
        };
        let room = memory.peak() - memory.idle();
        let scored = |tokens: &usize| {
            let cache = cache::of_sequence(topology, keep, device, *tokens, size);
            cache + working::scored(topology, *tokens, size) <= room
        };
        let lengths: Vec<usize> = (1..=tokens).collect();
        memory.scored = lengths.partition_point(scored);
        memory
    }

    /// What is there before the first request.
    pub fn idle(&self) -> u64 {
        self.program + self.engine + self.weights + self.positions
    }

    /// The most that is expected at any time.
    pub fn peak(&self) -> u64 {
        self.idle() + self.loading.max(self.cache + self.work())
    }

    /// What a step needs at most beside the cache.
    pub fn work(&self) -> u64 {
        self.prompt.max(self.step)
    }

    /// The part of the [peak](Self::peak) that belongs to no file.
    pub fn anonymous(&self) -> u64 {
        self.peak() - self.program
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture::{model, Stored};
    use crate::surgery::Layout;

    #[test]
    fn the_peak_is_the_worst_moment() {
        let fixture = model(Stored::PerExpert);
        let topology = &fixture.topology;
        let serving = |sequences, tokens| Serving {
            topology,
            traffic: Traffic { sequences, tokens },
            device: UqffDevice::Cpu,
            float: Dtype::F32,
            overhead: Overhead {
                program: 50,
                engine: 10,
            },
            threads: 2,
        };
        let held = Held::new(
            &fixture.checkpoint,
            fixture.family,
            topology,
            Layout::Engine,
            Dtype::F32,
            false,
        )
        .unwrap();
        let keep = Keep::all(topology);
        let one = Memory::of(&serving(1, 100), &held, &keep);
        assert_eq!(one.idle(), 60 + held.bytes(&keep) + one.positions);
        assert_eq!(one.peak(), one.idle() + one.cache + one.work());
        assert_eq!(one.anonymous(), one.peak() - 50);
        let more = Memory::of(&serving(4, 100), &held, &keep);
        assert_eq!(more.cache, 4 * one.cache);
        assert_eq!(more.weights, one.weights);
        assert!(more.peak() > one.peak());
    }
}
