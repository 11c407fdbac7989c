use std::sync::Arc;

use candle_core::Device;
use safetensors::Dtype;
use serde_json::json;

use super::*;
use crate::checkpoint::testing;
use crate::family::detect;

/// Weights of a block outside its feed-forward part: four projections, two
/// head norms, two block norms.
const ATTENTION: u64 = PROJECTIONS + 4 + 4 + 8 + 8;
/// Those of its projections.
const PROJECTIONS: u64 = 64 + 32 + 32 + 64;
/// Weights of the dense feed-forward part.
const DENSE: u64 = 3 * 8 * 12;
/// Weights of an expert.
const EXPERT: u64 = 3 * 8 * 4;
/// Weights of embedding or head.
const EMBEDDING: u64 = 16 * 8;

/// How the checkpoint stores its experts.
#[derive(Clone, Copy, PartialEq)]
enum Stored {
    PerExpert,
    Stacked,
}

/// A bf16 Qwen3-MoE checkpoint: four layers, of which the second is dense, six
/// experts, top-2, hidden width 8; a tied head is stored all the same.
struct Fixture {
    _directory: tempfile::TempDir,
    checkpoint: Checkpoint,
    family: &'static dyn Family,
    topology: Topology,
}

fn fixture(stored: Stored, tied_head: bool) -> Fixture {
    let config = json!({
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 4,
        "hidden_size": 8,
        "intermediate_size": 12,
        "moe_intermediate_size": 4,
        "num_experts": 6,
        "num_experts_per_tok": 2,
        "norm_topk_prob": true,
        "mlp_only_layers": [1],
        "vocab_size": 16,
        "tie_word_embeddings": tied_head,
    });
    let directory = tempfile::tempdir().unwrap();
    testing::write(directory.path(), &config.to_string(), &[]);
    let open = || Checkpoint::open(directory.path()).unwrap();
    let checkpoint = open();
    let family = detect(checkpoint.config()).unwrap();
    let names = family.names();
    let topology = family.topology(checkpoint.config()).unwrap();
    let mut shapes: Vec<(String, Vec<usize>)> = match stored {
        Stored::PerExpert => topology.tensors(names),
        Stored::Stacked => topology.tensors_beside_experts(names),
    }
    .into_iter()
    .map(|tensor| (tensor.name, tensor.shape))
    .collect();
    if stored == Stored::Stacked {
        for layer in [0, 2, 3] {
            shapes.push((names.in_block(layer, names.stacked_gate_up), vec![6, 8, 8]));
            shapes.push((names.in_block(layer, names.stacked_down), vec![6, 4, 8]));
        }
    }
    if tied_head {
        shapes.push((names.head.to_owned(), vec![16, 8]));
    }
    let tensors: Vec<_> = shapes
        .iter()
        .map(|(name, shape)| {
            testing::tensor(name, Dtype::BF16, shape, &vec![0.0; shape.iter().product()])
        })
        .collect();
    testing::write(directory.path(), &config.to_string(), &tensors);
    Fixture {
        checkpoint: open(),
        family,
        topology,
        _directory: directory,
    }
}

fn size(fixture: &Fixture, keep: &Keep) -> Size {
    Size::of(&fixture.checkpoint, fixture.family, &fixture.topology, keep).unwrap()
}

fn quantized(fixture: &Fixture, keep: &Keep, quantization: Quantization) -> Size {
    let (checkpoint, family) = (&fixture.checkpoint, fixture.family);
    Size::quantized(
        checkpoint,
        family,
        &fixture.topology,
        keep,
        Some(quantization),
    )
    .unwrap()
}

#[test]
fn everything_is_the_whole_checkpoint() {
    let fixture = fixture(Stored::PerExpert, false);
    let all = size(&fixture, &Keep::all(&fixture.topology));
    assert_eq!(all.bytes, fixture.checkpoint.bytes());
    assert_eq!(all.bytes, 2 * all.parameters);
    assert_eq!(all.experts_per_layer, [6, 0, 6, 6]);
    assert_eq!(all.parameters - all.active_parameters, 3 * (6 - 2) * EXPERT);
}

#[test]
fn removed_experts_take_their_weights_and_router_rows_along() {
    let fixture = fixture(Stored::PerExpert, false);
    let all = Keep::all(&fixture.topology);
    let mut keep = all.clone();
    for layer in [0, 2, 3] {
        keep.experts[layer] = vec![1, 2, 5];
    }
    let (before, after) = (size(&fixture, &all), size(&fixture, &keep));
    let row = 8;
    assert_eq!(before.parameters - after.parameters, 3 * 3 * (EXPERT + row));
    assert_eq!(
        before.active_parameters - after.active_parameters,
        3 * 3 * row
    );
    assert_eq!(after.bytes, 2 * after.parameters);
    assert_eq!(after.experts_per_layer, [3, 0, 3, 3]);
}

#[test]
fn stacked_experts_weigh_the_same() {
    let per_expert = fixture(Stored::PerExpert, false);
    let stacked = fixture(Stored::Stacked, false);
    let mut keep = Keep::all(&per_expert.topology);
    assert_eq!(size(&per_expert, &keep), size(&stacked, &keep));
    keep.layers = vec![0, 1, 3];
    keep.experts = vec![vec![0, 5], vec![], vec![], vec![2, 3]];
    assert_eq!(size(&per_expert, &keep), size(&stacked, &keep));
}

#[test]
fn a_dropped_layer_is_gone() {
    let fixture = fixture(Stored::PerExpert, false);
    let mut keep = Keep::all(&fixture.topology);
    let before = size(&fixture, &keep);
    keep.layers = vec![0, 2, 3];
    let after = size(&fixture, &keep);
    assert_eq!(before.parameters - after.parameters, ATTENTION + DENSE);
    assert_eq!(after.experts_per_layer, [6, 6, 6]);
    assert_eq!(after.layers, 3);
}

#[test]
fn a_dropped_sublayer_is_gone() {
    let fixture = fixture(Stored::PerExpert, false);
    let all = Keep::all(&fixture.topology);
    let before = size(&fixture, &all);
    let mut keep = all.clone();
    keep.skipped[3].attention = true;
    let after = size(&fixture, &keep);
    // The norm before the experts stays with them.
    assert_eq!(before.parameters - after.parameters, ATTENTION - 8);
    assert_eq!(before.bytes - after.bytes, 2 * (ATTENTION - 8));
    assert_eq!(
        (after.layers, &after.experts_per_layer),
        (4, &before.experts_per_layer)
    );
}

#[test]
fn zeros_stand_in_the_place_of_experts() {
    for stored in [Stored::PerExpert, Stored::Stacked] {
        let fixture = fixture(stored, false);
        let all = Keep::all(&fixture.topology);
        let before = size(&fixture, &all);
        let mut keep = all.clone();
        keep.skipped[2].mlp = true;
        let after = size(&fixture, &keep);
        // As wide as the dense layer; the router goes too, the norm stays.
        let gone = 6 * (EXPERT + 8) - DENSE;
        assert_eq!(before.parameters - after.parameters, gone);
        assert_eq!(before.bytes - after.bytes, 2 * gone);
        assert_eq!(after.experts_per_layer, [6, 0, 0, 6]);
        let active = (2 * EXPERT + 6 * 8) as i64 - DENSE as i64;
        let found = before.active_parameters as i64 - after.active_parameters as i64;
        assert_eq!(found, active);
        let q8 = |keep| quantized(&fixture, keep, Quantization::Q8_0).bytes;
        let projections = (6 * EXPERT - DENSE) / 32 * 34;
        assert_eq!(q8(&all) - q8(&keep), projections + 2 * 6 * 8);
        // Without the dense layer, they are narrow.
        keep.skipped[1].mlp = true;
        let narrow = size(&fixture, &keep);
        assert_eq!(
            after.parameters - narrow.parameters + 2 * 3 * 8 * 32,
            2 * DENSE
        );
    }
}

#[test]
fn fewer_experts_a_token_are_active() {
    let fixture = fixture(Stored::PerExpert, false);
    let all = Keep::all(&fixture.topology);
    let one = Keep {
        top_k: Some(1),
        ..all.clone()
    };
    let (two, one) = (size(&fixture, &all), size(&fixture, &one));
    assert_eq!(two.parameters, one.parameters);
    assert_eq!(two.active_parameters - one.active_parameters, 3 * EXPERT);
}

#[test]
fn a_tied_head_that_is_stored_has_bytes_but_no_parameters() {
    let tied = fixture(Stored::PerExpert, true);
    let untied = fixture(Stored::PerExpert, false);
    let keep = Keep::all(&tied.topology);
    let (tied, untied) = (size(&tied, &keep), size(&untied, &keep));
    assert_eq!(tied.bytes, untied.bytes);
    assert_eq!(untied.parameters - tied.parameters, EMBEDDING);
}

#[test]
fn only_projections_are_quantised() {
    for stored in [Stored::PerExpert, Stored::Stacked] {
        let fixture = fixture(stored, false);
        let mut keep = Keep::all(&fixture.topology);
        let before = size(&fixture, &keep);
        let after = quantized(&fixture, &keep, Quantization::Q8_0);
        // 34 bytes for 32 weights instead of 64.
        let rounded = 4 * PROJECTIONS + DENSE + 3 * 6 * EXPERT;
        assert_eq!(before.bytes - after.bytes, rounded / 32 * (64 - 34));
        assert_eq!(
            Size {
                bytes: before.bytes,
                ..after
            },
            before
        );

        keep.layers = vec![0, 1, 3];
        keep.experts = vec![vec![0, 5], vec![], vec![], vec![2, 3, 4]];
        let before = size(&fixture, &keep);
        let after = quantized(&fixture, &keep, Quantization::Q4_0);
        let rounded = 3 * PROJECTIONS + DENSE + (2 + 3) * EXPERT;
        assert_eq!(before.bytes - after.bytes, rounded / 32 * (64 - 18));
    }
}

#[test]
fn quantised_fp8_has_no_scales() {
    let fixture = fixture(Stored::PerExpert, false);
    let names = fixture.family.names();
    let mut config = fixture.checkpoint.config().value().clone();
    config["quantization_config"] = json!({
        "quant_method": "fp8", "weight_block_size": [8, 8],
    });
    let mut tensors = Vec::new();
    for tensor in fixture.topology.tensors(names) {
        let mut dtype = Dtype::BF16;
        if names.is_projection(&tensor.name) {
            dtype = Dtype::F8_E4M3;
            let shape: Vec<usize> = tensor.shape.iter().map(|n| n.div_ceil(8)).collect();
            let scales = vec![1.0; shape.iter().product()];
            let name = format!("{}{SCALE_SUFFIX}", tensor.name);
            tensors.push(testing::tensor(&name, Dtype::F32, &shape, &scales));
        }
        let bytes = vec![0; tensor.shape.iter().product::<usize>() * dtype.bitsize() / 8];
        tensors.push((tensor.name, dtype, tensor.shape, bytes));
    }
    let directory = tempfile::tempdir().unwrap();
    testing::write(directory.path(), &config.to_string(), &tensors);
    let fp8 = Arc::new(Checkpoint::open(directory.path()).unwrap());
    crate::forward::Model::open(fp8.clone(), &Device::Cpu).unwrap();
    let keep = Keep::all(&fixture.topology);
    let of = |checkpoint, quantization| {
        Size::quantized(
            checkpoint,
            fixture.family,
            &fixture.topology,
            &keep,
            quantization,
        )
        .unwrap()
    };
    assert_eq!(of(&fp8, None).bytes, fp8.bytes());
    let q8 = Some(Quantization::Q8_0);
    assert_eq!(of(&fp8, q8), of(&fixture.checkpoint, q8));
}
