//! A tiny Qwen3-MoE checkpoint, statistics for it, and a plan: four layers, of
//! which the second is dense, six experts, top-2, hidden width 8.

use std::collections::BTreeMap;

use router_stats::checkpoint::Checkpoint;
use router_stats::family::{detect, Family, Projection, Topology};
use router_stats::stats::{DomainProvenance, Merge, Provenance, Stats, Table};
use safetensors::tensor::TensorView;
use safetensors::Dtype;
use serde_json::json;

use super::{plan, ExpertBudget, PlanOptions, ValidPlan};

const LAYERS: usize = 4;
const DENSE_LAYER: usize = 1;
const EXPERTS: usize = 6;
const HIDDEN: usize = 8;
const INTERMEDIATE: usize = 4;
const DENSE_INTERMEDIATE: usize = 12;

/// Mean cosine across each block in [`stats`].
pub(crate) const COSINES: [f64; LAYERS] = [0.5, 0.75, 0.875, 0.625];
/// Angle by which each block turns the stream in [`stats`], always in the same
/// direction, in units of π.
const TURNS: [f64; LAYERS] = [0.2, 0.05, 0.1, 0.15];

/// How the checkpoint stores its experts.
#[derive(Clone, Copy)]
pub(crate) enum Stored {
    PerExpert,
    Stacked,
}

/// A checkpoint on disk; it goes when this is dropped.
pub(crate) struct Fixture {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) family: &'static dyn Family,
    pub(crate) topology: Topology,
    _directory: tempfile::TempDir,
}

/// Writes and opens the checkpoint.
pub(crate) fn model(stored: Stored) -> Fixture {
    let directory = tempfile::tempdir().unwrap();
    let config = json!({
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 4,
        "hidden_size": HIDDEN,
        "intermediate_size": DENSE_INTERMEDIATE,
        "moe_intermediate_size": INTERMEDIATE,
        "num_experts": EXPERTS,
        "num_experts_per_tok": 2,
        "norm_topk_prob": true,
        "mlp_only_layers": [DENSE_LAYER],
        "vocab_size": 16,
        "tie_word_embeddings": false,
    });
    std::fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
    let tensors = tensors(stored);
    let data: Vec<u8> = vec![0; 2 * 16 * HIDDEN * HIDDEN];
    let views = tensors.iter().map(|(name, shape)| {
        let bytes = 2 * shape.iter().product::<usize>();
        (
            name,
            TensorView::new(Dtype::BF16, shape.clone(), &data[..bytes]).unwrap(),
        )
    });
    safetensors::serialize_to_file(views, None, &directory.path().join("model.safetensors"))
        .unwrap();
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    let family = detect(checkpoint.config()).unwrap();
    let topology = family.topology(checkpoint.config()).unwrap();
    Fixture {
        checkpoint,
        family,
        topology,
        _directory: directory,
    }
}

fn tensors(stored: Stored) -> Vec<(String, Vec<usize>)> {
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![16, HIDDEN]),
        ("model.norm.weight".to_owned(), vec![HIDDEN]),
        ("lm_head.weight".to_owned(), vec![16, HIDDEN]),
    ];
    for layer in 0..LAYERS {
        let mut block = |name: &str, shape: &[usize]| {
            tensors.push((format!("model.layers.{layer}.{name}"), shape.to_vec()));
        };
        for (name, shape) in [
            ("input_layernorm.weight", [HIDDEN].as_slice()),
            ("post_attention_layernorm.weight", &[HIDDEN]),
            ("self_attn.q_proj.weight", &[8, HIDDEN]),
            ("self_attn.k_proj.weight", &[4, HIDDEN]),
            ("self_attn.v_proj.weight", &[4, HIDDEN]),
            ("self_attn.o_proj.weight", &[HIDDEN, 8]),
            ("self_attn.q_norm.weight", &[4]),
            ("self_attn.k_norm.weight", &[4]),
        ] {
            block(name, shape);
        }
        if layer == DENSE_LAYER {
            block("mlp.gate_proj.weight", &[DENSE_INTERMEDIATE, HIDDEN]);
            block("mlp.up_proj.weight", &[DENSE_INTERMEDIATE, HIDDEN]);
            block("mlp.down_proj.weight", &[HIDDEN, DENSE_INTERMEDIATE]);
            continue;
        }
        block("mlp.gate.weight", &[EXPERTS, HIDDEN]);
        match stored {
            Stored::PerExpert => {
                for expert in 0..EXPERTS {
                    for projection in Projection::ALL {
                        let (name, shape) = match projection {
                            Projection::Gate => ("gate_proj", [INTERMEDIATE, HIDDEN]),
                            Projection::Up => ("up_proj", [INTERMEDIATE, HIDDEN]),
                            Projection::Down => ("down_proj", [HIDDEN, INTERMEDIATE]),
                        };
                        block(&format!("mlp.experts.{expert}.{name}.weight"), &shape);
                    }
                }
            }
            Stored::Stacked => {
                block(
                    "mlp.experts.gate_up_proj",
                    &[EXPERTS, HIDDEN, 2 * INTERMEDIATE],
                );
                block("mlp.experts.down_proj", &[EXPERTS, INTERMEDIATE, HIDDEN]);
            }
        }
    }
    tensors
}

/// Statistics of two domains, `code` (100 tokens) and `math` (300 tokens), that
/// route differently but agree on reap: in layer ℓ expert j scores
/// (5j + ℓ) mod 6 + 1.
pub(crate) fn stats(fingerprint: &str) -> Stats {
    let mut tables = BTreeMap::new();
    let mut table = |name: &str, shape: &[usize], merge: Merge, value: &dyn Fn(&[usize]) -> f64| {
        let values = (0..shape.iter().product())
            .map(|mut flat: usize| {
                let mut index = vec![0; shape.len()];
                for (axis, &n) in shape.iter().enumerate().rev() {
                    index[axis] = flat % n;
                    flat /= n;
                }
                value(&index)
            })
            .collect();
        tables.insert(
            name.to_owned(),
            Table {
                shape: shape.to_vec(),
                values,
                merge,
            },
        );
    };
    let tokens = |domain: usize| [100.0, 300.0][domain];
    let count = |at: &[usize]| {
        let [domain, layer, expert] = [at[0], at[1], at[2]];
        if layer == DENSE_LAYER {
            0.0
        } else {
            (10 * (1 + (expert + 2 * layer + 3 * domain) % 6)) as f64
        }
    };
    let gain = |at: &[usize]| ((5 * at[2] + at[1]) % 6 + 1) as f64;
    let experts = [2, LAYERS, EXPERTS];
    table("tokens", &[2], Merge::Sum, &|at| tokens(at[0]));
    table("sequences", &[2], Merge::Sum, &|_| 1.0);
    table("routing.count", &experts, Merge::Sum, &count);
    table("routing.gate", &experts, Merge::Sum, &|at| 0.5 * count(at));
    table("routing.gate_sq", &experts, Merge::Sum, &|at| {
        0.25 * count(at)
    });
    table("routing.soft_gate", &experts, Merge::Sum, &|at| {
        0.4 * count(at)
    });
    table("expert.norm", &experts, Merge::Sum, &|at| {
        2.0 * gain(at) * count(at)
    });
    table("expert.norm_sq", &experts, Merge::Sum, &|at| {
        4.0 * gain(at) * gain(at) * count(at)
    });
    table("expert.gated_norm", &experts, Merge::Sum, &|at| {
        gain(at) * count(at)
    });
    table("expert.gated_norm_sq", &experts, Merge::Sum, &|at| {
        gain(at) * gain(at) * count(at)
    });
    table("expert.max", &experts, Merge::Max, &gain);
    table("block.cos", &[2, LAYERS, 3], Merge::Sum, &|at| {
        tokens(at[0]) * COSINES[at[1]]
    });
    let depths = [2, LAYERS + 1, LAYERS + 1];
    table("span.angle", &depths, Merge::Sum, &|at| {
        let turned = TURNS.get(at[1]..at[2].max(at[1]));
        turned.unwrap_or_default().iter().sum::<f64>()
    });
    let domain = |name: &str, tokens: u64| DomainProvenance {
        name: name.to_owned(),
        weight: 1.0,
        tokens,
        sequences: 1,
        documents: 1,
    };
    Stats {
        provenance: Provenance {
            model: "tiny".to_owned(),
            fingerprint: fingerprint.to_owned(),
            family: "qwen3_moe".to_owned(),
            corpus: "c0ffee".to_owned(),
            domains: vec![domain("code", 100), domain("math", 300)],
            seq_len: 512,
            batch_tokens: 8192,
            seed: 0,
            experts: (0..LAYERS)
                .map(|layer| if layer == DENSE_LAYER { 0 } else { EXPERTS })
                .collect(),
            top_k: 2,
            hidden: HIDDEN,
            shards: vec![[0, 1]],
            created_by: "router-stats 0.1.0".to_owned(),
        },
        tables,
    }
}

/// The default plan at half the experts.
pub(crate) fn half() -> ValidPlan {
    let fixture = model(Stored::PerExpert);
    let options = PlanOptions {
        experts: Some(ExpertBudget::Fraction(0.5)),
        ..PlanOptions::default()
    };
    let stats = stats(&fixture.checkpoint.fingerprint().unwrap());
    plan(
        &stats,
        &fixture.checkpoint,
        fixture.family,
        &fixture.topology,
        &options,
    )
    .unwrap()
}
