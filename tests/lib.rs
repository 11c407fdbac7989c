//! Golden checkpoints and how results are compared with them.
//!
//! Owns opening what `tests/golden` and `models/demo` hold and measuring
//! differences. What must hold is said by the laws in `laws/`; the command
//! line is tested by `cli/`.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot read its files has failed"
)]

pub mod gguf;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use router_stats::calibration::Sequences;
use router_stats::checkpoint::Checkpoint;
use router_stats::family::Keep;
use router_stats::forward::Model;
use router_stats::progress::Silent;

/// Directories under `golden`, one or more for every family.
pub const CHECKPOINTS: [&str; 13] = [
    "qwen3_moe",
    "qwen3_vl_moe",
    "qwen2_moe",
    "mixtral",
    "phimoe",
    "olmoe",
    "minimax_m2",
    "deepseek_v2",
    "deepseek_v2_lite",
    "deepseek_v3",
    "kimi_k2",
    "glm4_moe",
    "glm4_moe_lite",
];

/// Tokens of a batch where one batch is to hold everything.
pub const ONE_BATCH: usize = 1 << 20;

/// A golden checkpoint and what Hugging Face transformers computes for it.
pub struct Golden {
    /// Name of its directory.
    pub name: &'static str,
    /// Ready to run on the CPU.
    pub model: Model,
    /// `golden.safetensors`, see `tests/golden/README.md`.
    pub tensors: HashMap<String, Tensor>,
}

impl Golden {
    /// All golden checkpoints.
    pub fn all() -> impl Iterator<Item = Self> {
        CHECKPOINTS.into_iter().map(Self::open)
    }

    /// The golden checkpoint in the directory `name`.
    pub fn open(name: &'static str) -> Self {
        Self {
            name,
            model: open(&directory(name)),
            tensors: tensors(name, "golden"),
        }
    }

    /// Another file of its directory: `stats` is `stats.safetensors`.
    pub fn file(&self, stem: &str) -> HashMap<String, Tensor> {
        tensors(self.name, stem)
    }

    /// The golden tokens, sequence i in domain i mod 2.
    pub fn sequences(&self) -> Sequences {
        let tokens: Vec<Vec<i64>> = self.tensors["input_ids"].to_vec2().unwrap();
        let tokens = tokens
            .into_iter()
            .map(|tokens| tokens.into_iter().map(|token| token as u32).collect());
        sequences(&tokens.collect::<Vec<_>>(), 2)
    }

    /// What stays in `golden_pruned.safetensors`.
    pub fn kept(&self) -> Keep {
        let pruned = self.file("golden_pruned");
        let mut keep = Keep::all(self.model.topology());
        for (layer, kept) in keep.experts.iter_mut().enumerate() {
            if let Some(golden) = pruned.get(&format!("layers.{layer}.kept")) {
                let golden: Vec<i64> = golden.to_vec1().unwrap();
                *kept = golden.into_iter().map(|expert| expert as usize).collect();
            }
        }
        keep
    }

    /// Number of decoder layers.
    pub fn layers(&self) -> usize {
        self.model.topology().layers()
    }
}

/// The directory of a golden checkpoint.
pub fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(name)
}

/// The directory of the demo model.
pub fn demo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo")
}

/// Opens a checkpoint on the CPU.
pub fn open(directory: &Path) -> Model {
    let checkpoint = Arc::new(Checkpoint::open(directory).unwrap());
    Model::open(checkpoint, &Device::Cpu).unwrap()
}

/// Token sequences of two or more lengths, sequence i in domain i mod `domains`
/// and of a document of its own.
pub fn sequences(tokens: &[Vec<u32>], domains: u16) -> Sequences {
    let mut starts = vec![0];
    starts.extend(tokens.iter().scan(0, |end, tokens| {
        *end += tokens.len();
        Some(*end)
    }));
    Sequences {
        tokens: tokens.concat(),
        starts,
        domains: (0..domains).cycle().take(tokens.len()).collect(),
        document: (0..tokens.len() as u32).collect(),
        names: (0..domains)
            .map(|domain| format!("domain {domain}"))
            .collect(),
        weights: vec![1.0; usize::from(domains)],
        documents: vec![1; usize::from(domains)],
        seq_len: tokens.iter().map(Vec::len).max().unwrap_or(0),
        seed: 0,
        hash: format!("{tokens:?}"),
    }
}

/// Sequences of these lengths, of tokens that look random and never change.
pub fn ragged(lengths: &[usize], vocabulary: u32, domains: u16) -> Sequences {
    let mut state = 1u32;
    let mut token = || {
        // Numerical Recipes' linear congruential generator; high bits are best.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) % vocabulary
    };
    let tokens: Vec<Vec<u32>> = lengths
        .iter()
        .map(|&length| (0..length).map(|_| token()).collect())
        .collect();
    sequences(&tokens, domains)
}

/// Logits [N, V] of all tokens in order, with what `keep` drops masked.
pub fn logits(model: &Model, sequences: &Sequences, keep: Option<&Keep>) -> Tensor {
    let hidden = model
        .hidden_states(sequences, keep, ONE_BATCH, &Silent)
        .unwrap();
    let head = model.head().unwrap();
    model
        .logits(&head, &Tensor::cat(&hidden, 0).unwrap())
        .unwrap()
}

/// The largest difference between two tensors of as many elements; infinite if
/// any is not a number.
pub fn worst(left: &Tensor, right: &Tensor) -> f64 {
    let values = |tensor: &Tensor| -> Vec<f64> {
        let tensor = tensor.to_dtype(DType::F64).unwrap();
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    };
    let (left, right) = (values(left), values(right));
    assert_eq!(left.len(), right.len(), "elements to compare");
    left.iter()
        .zip(right)
        .map(|(left, right)| (left - right).abs())
        .map(|difference| {
            if difference.is_nan() {
                f64::INFINITY
            } else {
                difference
            }
        })
        .fold(0.0, f64::max)
}

/// Fails if a difference is above its limit; says what it was with
/// `--nocapture`.
#[allow(clippy::print_stdout, reason = "only tests call it")]
pub fn at_most(limit: f64, difference: f64, what: &str) {
    println!("{what}: {difference:.1e} of {limit:.0e}");
    assert!(
        difference <= limit,
        "{what}: expected at most {limit:e}, found {difference:e}"
    );
}

fn tensors(name: &str, stem: &str) -> HashMap<String, Tensor> {
    let path = directory(name).join(stem).with_extension("safetensors");
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}
