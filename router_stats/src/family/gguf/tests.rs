use serde_json::{json, Value as Json};

use super::*;
use crate::family::{detect, Expected, Part, Role};

/// A small model of each family that llama.cpp has.
fn models() -> Vec<(&'static str, Json)> {
    vec![
        (
            "qwen3moe",
            json!({
                "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe",
                "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 96,
                "moe_intermediate_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
                "num_key_value_heads": 2, "head_dim": 32, "num_experts": 8,
                "num_experts_per_tok": 2, "norm_topk_prob": true, "vocab_size": 256,
                "rope_theta": 1e6, "rms_norm_eps": 1e-6, "tie_word_embeddings": true,
                "max_position_embeddings": 512
            }),
        ),
        (
            "llama",
            json!({
                "architectures": ["MixtralForCausalLM"], "model_type": "mixtral",
                "hidden_act": "silu", "hidden_size": 64, "intermediate_size": 96,
                "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
                "num_local_experts": 8, "num_experts_per_tok": 2, "vocab_size": 256,
                "rope_theta": 1e6, "rms_norm_eps": 1e-5, "max_position_embeddings": 512
            }),
        ),
        (
            "minimax-m2",
            json!({
                "architectures": ["MiniMaxM2ForCausalLM"], "model_type": "minimax_m2",
                "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
                "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
                "rotary_dim": 16, "num_local_experts": 8, "num_experts_per_tok": 2,
                "vocab_size": 256, "max_position_embeddings": 512
            }),
        ),
        (
            "glm4moe",
            json!({
                "architectures": ["Glm4MoeForCausalLM"], "model_type": "glm4_moe",
                "hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 32,
                "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
                "head_dim": 16, "n_routed_experts": 8, "n_shared_experts": 2,
                "num_experts_per_tok": 2, "routed_scaling_factor": 1.5, "attention_bias": true,
                "use_qk_norm": true, "vocab_size": 256, "max_position_embeddings": 512
            }),
        ),
        (
            "qwen2moe",
            json!({
                "architectures": ["Qwen2MoeForCausalLM"], "model_type": "qwen2_moe",
                "hidden_size": 64, "intermediate_size": 96, "moe_intermediate_size": 32,
                "shared_expert_intermediate_size": 48, "num_hidden_layers": 2,
                "num_attention_heads": 4, "num_key_value_heads": 2, "num_experts": 8,
                "num_experts_per_tok": 2, "vocab_size": 256, "max_position_embeddings": 512
            }),
        ),
        (
            "olmoe",
            json!({
                "architectures": ["OlmoeForCausalLM"], "model_type": "olmoe", "hidden_size": 64,
                "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
                "num_experts": 8, "num_experts_per_tok": 2, "vocab_size": 256,
                "max_position_embeddings": 512
            }),
        ),
    ]
}

fn read(config: &Json) -> (&'static dyn Family, Topology) {
    let config = Config::new("config.json", config.clone()).unwrap();
    let family = detect(&config).unwrap();
    (family, family.topology(&config).unwrap())
}

/// Metadata of a file of this model.
fn metadata(gguf: &Gguf, topology: &Topology) -> Metadata {
    let mut metadata = Metadata::new((gguf.keys)(topology));
    metadata.set(ARCHITECTURE, gguf.architecture);
    metadata
}

#[test]
fn every_family_of_llama_cpp_is_here() {
    let tested: Vec<_> = models().iter().map(|(name, _)| *name).collect();
    assert!(known().all(|gguf| tested.contains(&gguf.architecture)));
}

#[test]
fn keys_say_the_whole_structure() {
    for (architecture, config) in models() {
        let (family, topology) = read(&config);
        let gguf = family.gguf().unwrap();
        assert_eq!(gguf.architecture, architecture);
        assert_eq!((gguf.refuses)(&topology), None);
        let metadata = metadata(gguf, &topology);
        let names = family.names();
        let tensors = topology.tensors(names);
        let shape = |name: &str| {
            let called =
                |tensor: &&Expected| gguf.theirs(names, &tensor.name).as_deref() == Some(name);
            tensors.iter().find(called).map(|tensor| &tensor.shape[..])
        };
        let (found, config) = config_of(Path::new("a.gguf"), &metadata, shape).unwrap();
        assert_eq!(found.architecture, architecture);
        assert_eq!(detect(&config).unwrap().model_type(), family.model_type());
        assert_eq!(family.topology(&config).unwrap(), topology);
    }
}

#[test]
fn names_go_both_ways() {
    for (_, config) in models() {
        let (family, topology) = read(&config);
        let (gguf, names) = (family.gguf().unwrap(), family.names());
        for expected in topology.tensors(names) {
            let ours = expected.name;
            if let Role::Block {
                layer,
                part: Part::Expert { projection, .. },
            } = names.role(&ours)
            {
                let theirs = gguf.experts(layer, projection);
                let stored = Stored::Experts { layer, projection };
                assert_eq!(gguf.ours(names, &theirs), Some(stored));
                assert_eq!(gguf.theirs(names, &ours), None);
            } else {
                let theirs = gguf.theirs(names, &ours);
                let theirs = theirs.unwrap_or_else(|| panic!("{ours}"));
                assert_eq!(gguf.ours(names, &theirs), Some(Stored::Tensor(ours)));
            }
        }
        assert_eq!(gguf.ours(names, "rope_freqs.weight"), None);
        assert_eq!(gguf.ours(names, "blk.0.attn_q.scale"), None);
        assert_eq!(gguf.ours(names, "blk.01.attn_q.weight"), None);
    }
}

#[test]
fn names_are_those_of_llama_cpp() {
    let (family, _) = read(&models()[1].1);
    let (gguf, names) = (family.gguf().unwrap(), family.names());
    for (ours, theirs) in [
        ("model.embed_tokens.weight", "token_embd.weight"),
        ("model.norm.weight", "output_norm.weight"),
        ("lm_head.weight", "output.weight"),
        (
            "model.layers.2.self_attn.o_proj.weight",
            "blk.2.attn_output.weight",
        ),
        (
            "model.layers.2.post_attention_layernorm.weight",
            "blk.2.ffn_norm.weight",
        ),
        (
            "model.layers.2.block_sparse_moe.gate.weight",
            "blk.2.ffn_gate_inp.weight",
        ),
    ] {
        assert_eq!(gguf.theirs(names, ours).as_deref(), Some(theirs));
    }
    assert_eq!(
        gguf.experts(3, Projection::Down),
        "blk.3.ffn_down_exps.weight"
    );
    let old = Stored::Expert {
        layer: 3,
        expert: 7,
        projection: Projection::Up,
    };
    assert_eq!(gguf.ours(names, "blk.3.ffn_up.7.weight"), Some(old));
}

#[test]
fn a_key_that_cannot_be_used_is_named() {
    let (family, topology) = read(&models()[0].1);
    let gguf = family.gguf().unwrap();
    let whole = metadata(gguf, &topology);
    let refused = |metadata: &Metadata| {
        let shape = |_: &str| Some(&[256, 64][..]);
        match config_of(Path::new("a.gguf"), metadata, shape).unwrap_err() {
            Error::Config { field, .. } => field,
            Error::UnknownFamily { found, .. } => found,
            other => panic!("{other}"),
        }
    };
    for key in [
        "block_count",
        "expert_count",
        "attention.head_count",
        "context_length",
    ] {
        let key = gguf.key(key);
        let mut metadata = whole.clone();
        metadata.remove(&key);
        assert_eq!(refused(&metadata), key);
        metadata.set(&key, "many");
        assert_eq!(refused(&metadata), key);
    }
    let mut metadata = whole.clone();
    metadata.set(ARCHITECTURE, "gemma3");
    assert_eq!(refused(&metadata), "gemma3");
    // Files may have one number for each layer.
    let per_layer = |counts: &[u32]| {
        let mut metadata = whole.clone();
        let counts = Value::Array(crate::gguf::Array::U32(counts.to_vec()));
        metadata.set(gguf.key("attention.head_count_kv"), counts);
        metadata
    };
    assert_eq!(
        refused(&per_layer(&[2, 2, 4])),
        "qwen3moe.attention.head_count_kv"
    );
    let config = gguf
        .config(&per_layer(&[2; 3]), |_| Some(&[256, 64][..]))
        .unwrap();
    assert_eq!(config["num_key_value_heads"], 2);
}

#[test]
fn scaled_positions_are_said_and_left_to_the_family() {
    let (family, topology) = read(&models()[0].1);
    let gguf = family.gguf().unwrap();
    let mut metadata = metadata(gguf, &topology);
    metadata.set(gguf.key("rope.scaling.type"), "yarn");
    metadata.set(gguf.key("rope.scaling.factor"), 4.0f32);
    metadata.set(gguf.key("rope.scaling.original_context_length"), 128u32);
    let config = gguf.config(&metadata, |_| Some(&[256, 64][..])).unwrap();
    let expected = json!({
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 128
    });
    assert_eq!(config["rope_scaling"], expected);
    assert!(family
        .topology(&Config::new("a.gguf", config).unwrap())
        .is_err());
}

#[test]
fn what_llama_cpp_would_compute_otherwise_is_refused() {
    let refused = |model: usize, changes: &[(&str, Json)]| {
        let mut config = models()[model].1.clone();
        for (key, value) in changes {
            config[*key] = value.clone();
        }
        let (family, topology) = read(&config);
        (family.gguf().unwrap().refuses)(&topology).unwrap()
    };
    assert!(refused(0, &[("norm_topk_prob", json!(false))]).contains("renormalises"));
    assert!(refused(0, &[("attention_bias", json!(true))]).contains("biases"));
    assert!(refused(0, &[("mlp_only_layers", json!([1]))]).contains("dense"));
    assert!(refused(1, &[("sliding_window", json!(128))]).contains("windows"));
    assert!(refused(2, &[("tie_word_embeddings", json!(true))]).contains("tied"));
    assert!(refused(3, &[("n_shared_experts", json!(0))]).contains("shared"));
    assert!(refused(3, &[("n_group", json!(4)), ("topk_group", json!(2))]).contains("groups"));
    assert!(refused(4, &[("norm_topk_prob", json!(true))]).contains("renormalises"));
    assert!(refused(4, &[("head_dim", json!(32))]).contains("width of heads"));
    assert!(refused(5, &[("clip_qkv", json!(8.0))]).contains("clips"));
    assert!(refused(5, &[("num_key_value_heads", json!(2))]).contains("key-value heads"));
}
