//! A checkpoint of many layers and experts, all tiny, with statistics.

use std::collections::BTreeMap;

use router_stats::checkpoint::Checkpoint;
use router_stats::family::{detect, Config, Family, Topology};
use router_stats::stats::{DomainProvenance, Merge, Provenance, Stats, Table};
use safetensors::tensor::TensorView;
use safetensors::Dtype;
use serde_json::json;

pub(super) struct Large {
    pub(super) checkpoint: Checkpoint,
    pub(super) family: &'static dyn Family,
    pub(super) topology: Topology,
    pub(super) stats: Stats,
    _directory: tempfile::TempDir,
}

pub(super) fn model(layers: usize, experts: usize) -> Large {
    let directory = tempfile::tempdir().unwrap();
    let config = json!({
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe",
        "num_hidden_layers": layers, "num_attention_heads": 2, "num_key_value_heads": 1,
        "head_dim": 4, "hidden_size": 8, "intermediate_size": 12, "moe_intermediate_size": 4,
        "num_experts": experts, "num_experts_per_tok": 8, "norm_topk_prob": true,
        "vocab_size": 16, "tie_word_embeddings": false,
    });
    std::fs::write(directory.path().join("config.json"), config.to_string()).unwrap();
    let config = Config::new("config.json", config).unwrap();
    let family = detect(&config).unwrap();
    let topology = family.topology(&config).unwrap();
    let data = vec![0; 2 * experts * 16 * 8];
    let tensors = topology.tensors(family.names());
    let views = tensors.iter().map(|tensor| {
        let bytes = 2 * tensor.shape.iter().product::<usize>();
        let view = TensorView::new(Dtype::BF16, tensor.shape.clone(), &data[..bytes]);
        (&tensor.name, view.unwrap())
    });
    let path = directory.path().join("model.safetensors");
    safetensors::serialize_to_file(views, None, &path).unwrap();
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    let stats = stats(&checkpoint, layers, experts);
    Large {
        checkpoint,
        family,
        topology,
        stats,
        _directory: directory,
    }
}

/// One domain of 1000 tokens, in which every expert does something else.
fn stats(checkpoint: &Checkpoint, layers: usize, experts: usize) -> Stats {
    let mut tables = BTreeMap::new();
    let mut table = |name: &str, shape: Vec<usize>, merge, value: &dyn Fn(usize) -> f64| {
        let values = (0..shape.iter().product()).map(value).collect();
        let table = Table {
            shape,
            values,
            merge,
        };
        tables.insert(name.to_owned(), table);
    };
    let varied = |index: usize| 1.0 + (index * 2_654_435_761 % 1000) as f64;
    table("tokens", vec![1], Merge::Sum, &|_| 1000.0);
    table("sequences", vec![1], Merge::Sum, &|_| 2.0);
    for name in [
        "routing.count",
        "routing.gate",
        "routing.gate_sq",
        "routing.soft_gate",
        "expert.norm",
        "expert.norm_sq",
        "expert.gated_norm",
        "expert.gated_norm_sq",
    ] {
        table(name, vec![1, layers, experts], Merge::Sum, &varied);
    }
    table("expert.max", vec![1, layers, experts], Merge::Max, &|_| 1.0);
    table("block.cos", vec![1, layers, 3], Merge::Sum, &|index| {
        700.0 + (index % 97) as f64
    });
    let spans = vec![1, layers + 1, layers + 1];
    table("span.angle", spans, Merge::Sum, &|_| 0.1);
    Stats {
        provenance: Provenance {
            model: "large".to_owned(),
            fingerprint: checkpoint.fingerprint().unwrap(),
            family: "qwen3_moe".to_owned(),
            corpus: "c0ffee".to_owned(),
            domains: vec![DomainProvenance {
                name: "text".to_owned(),
                weight: 1.0,
                tokens: 1000,
                sequences: 2,
                documents: 2,
            }],
            seq_len: 512,
            batch_tokens: 8192,
            seed: 0,
            experts: vec![experts; layers],
            top_k: 8,
            hidden: 8,
            shards: vec![[0, 1]],
            created_by: "router-stats 0.1.0".to_owned(),
        },
        tables,
    }
}
