//! A model with rounded weights, on a tiny Qwen3-MoE checkpoint: one dense
//! layer, one with eight experts.

use safetensors::Dtype;
use serde_json::{json, Value};

use super::*;
use crate::checkpoint::testing;
use crate::family::Skip;
use crate::progress::Silent;

const TOKENS: [u32; 12] = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8];

fn config() -> Value {
    json!({
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "hidden_size": 32,
        "intermediate_size": 40,
        "moe_intermediate_size": 24,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "norm_topk_prob": true,
        "mlp_only_layers": [0],
        "vocab_size": 16,
    })
}

/// Opens a checkpoint of [`config`] with reproducible weights, which `change`
/// sees with their names before they are stored.
fn model(
    config: &Value,
    change: impl Fn(&str, &mut Vec<f32>),
) -> (tempfile::TempDir, Result<Model>) {
    let dir = tempfile::tempdir().unwrap();
    testing::write(dir.path(), &config.to_string(), &[]);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let family = family::detect(checkpoint.config()).unwrap();
    let topology = family.topology(checkpoint.config()).unwrap();
    let tensors: Vec<_> = topology
        .tensors(family.names())
        .into_iter()
        .enumerate()
        .map(|(seed, tensor)| {
            let mut values: Vec<f32> = (1..=tensor.shape.iter().product::<usize>())
                .map(|i| 0.3 * (0.37 * (i * i) as f64 + seed as f64).sin() as f32)
                .collect();
            change(&tensor.name, &mut values);
            testing::tensor(&tensor.name, Dtype::F32, &tensor.shape, &values)
        })
        .collect();
    testing::write(dir.path(), &config.to_string(), &tensors);
    let checkpoint = Arc::new(Checkpoint::open(dir.path()).unwrap());
    (dir, Model::open(checkpoint, &Device::Cpu))
}

fn hidden(model: &Model, keep: Option<&Keep>) -> Vec<Vec<f32>> {
    let sequences = Sequences {
        tokens: TOKENS.to_vec(),
        starts: vec![0, TOKENS.len()],
        domains: vec![0],
        document: vec![0],
        names: vec!["text".to_owned()],
        weights: vec![1.0],
        documents: vec![1],
        seq_len: TOKENS.len(),
        seed: 0,
        hash: String::new(),
    };
    let hidden = model.hidden_states(&sequences, keep, 64, &Silent).unwrap();
    hidden[0].to_vec2().unwrap()
}

#[test]
fn a_quantised_model_is_one_whose_weights_were_rounded_before() {
    let (_original, original) = model(&config(), |_, _| {});
    let original = original.unwrap();
    let names = original.family().names();
    let mut keep = Keep::all(original.topology());
    keep.experts[1] = vec![0, 2, 3, 6];
    for quantization in Quantization::ALL {
        let quantized = original.quantized(quantization).unwrap();
        assert_eq!(quantized.quantization(), Some(quantization));
        let (_rounded, rounded) = model(&config(), |name, values| {
            if names.is_projection(name) {
                quantization.round(values).unwrap();
            }
        });
        let rounded = rounded.unwrap();
        for keep in [None, Some(&keep)] {
            let found = hidden(&quantized, keep);
            assert_eq!(found, hidden(&rounded, keep), "{quantization}");
            assert_ne!(found, hidden(&original, keep), "{quantization}");
        }
    }
    assert_eq!(original.quantization(), None);
}

#[test]
fn matrices_that_are_not_whole_blocks_are_refused_by_name() {
    let mut config = config();
    config["moe_intermediate_size"] = 12.into();
    let (_dir, model) = model(&config, |_, _| {});
    let model = model.unwrap();
    let error = model.quantized(Quantization::Q4K).err().unwrap();
    let text = error.to_string();
    let expected = "tensor `model.layers.1.mlp.experts.0.gate_proj.weight`: cannot be q4k: \
                    expected a multiple of 256 elements, found shape [12, 32]";
    assert!(text.contains(expected), "{text}");
    assert!(error.hint().is_some());
    // Blocks of 32 fit.
    model.quantized(Quantization::Q4_0).unwrap();
}

#[test]
fn weights_beyond_the_scales_are_refused_by_name() {
    let large = "model.layers.0.mlp.up_proj.weight";
    let (_dir, model) = model(&config(), |name, values| {
        if name == large {
            values[7] = 1e30;
        }
    });
    let model = model.unwrap().quantized(Quantization::Q8_0).unwrap();
    let error = model.block(0).err().unwrap().to_string();
    let expected =
        format!("tensor `{large}`: cannot be q8_0: expected weights that f16 scales hold");
    assert!(error.contains(&expected), "{error}");
    model.block(1).unwrap();
}

/// Opens the model with `value` in the tensors of `layer` whose names contain one
/// of `parts`.
fn changed(layer: usize, parts: &[&str], value: f32) -> (tempfile::TempDir, Model) {
    let (dir, model) = model(&config(), |name, values| {
        let inside = name.strip_prefix(&format!("model.layers.{layer}."));
        if inside.is_some_and(|inside| parts.iter().any(|part| inside.contains(part))) {
            values.fill(value);
        }
    });
    (dir, model.unwrap())
}

#[test]
fn a_skipped_sublayer_adds_nothing_and_is_not_read() {
    for (skip, parts, last) in [
        ((true, false), ["self_attn.", "input_layernorm"], "o_proj."),
        ((false, true), ["mlp.", "post_attention_"], "down_proj."),
    ] {
        let (attention, mlp) = skip;
        // Layer 0 is dense.
        let (_zeros, zeros) = changed(0, &[last], 0.0);
        let (_poison, poison) = changed(0, &parts, f32::NAN);
        assert!(poison.block(0).is_err());
        let mut keep = Keep::all(poison.topology());
        keep.skipped[0] = Skip { attention, mlp };
        let found = hidden(&poison, Some(&keep));
        assert_eq!(found, hidden(&zeros, None), "{skip:?}");
        let (_whole, whole) = changed(0, &[], 0.0);
        assert_ne!(found, hidden(&whole, None));
    }
}

#[test]
fn fewer_experts_a_token_are_a_model_that_says_so() {
    let (_two, two) = model(&config(), |_, _| {});
    let two = two.unwrap();
    let mut config = config();
    config["num_experts_per_tok"] = 1.into();
    let (_one, one) = model(&config, |_, _| {});
    let keep = Keep {
        top_k: Some(1),
        ..Keep::all(two.topology())
    };
    assert_eq!(hidden(&two, Some(&keep)), hidden(&one.unwrap(), None));
    assert_ne!(hidden(&two, Some(&keep)), hidden(&two, None));
}
