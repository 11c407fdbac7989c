//! A quantised model is the checkpoint whose projections were rounded before
//! they were stored, bit for bit, and what the engine makes of it but for the
//! activations that the engine rounds.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use mistralrs_core::IsqType;
use mistralrs_prune::surgery::Layout;
use prune_tests::{at_most, demo, logits, open, ragged, worst, Golden, ONE_BATCH};
use router_stats::checkpoint::ExpertReader;
use router_stats::family::Projection;
use router_stats::forward::{Model, Quantization};
use router_stats::progress::Silent;

use crate::cut::Cut;
use crate::engine::Engine;

/// Writes the model with its projections rounded, in f32 and with experts one
/// by one, and opens it.
fn rounded(model: &Model, quantization: Quantization, directory: &Path) -> Model {
    let (checkpoint, topology) = (model.checkpoint(), model.topology());
    let names = model.family().names();
    let mut tensors = HashMap::new();
    let mut store = |name: String, shape: &[usize], values: Vec<f32>| {
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
        tensors.insert(name, tensor);
    };
    for tensor in topology.tensors_beside_experts(names) {
        let mut values = vec![0.0; tensor.shape.iter().product()];
        let weight = checkpoint.weight(&tensor.name, &tensor.shape).unwrap();
        weight.read_f32(&mut values).unwrap();
        if names.is_projection(&tensor.name) {
            quantization.round(&mut values).unwrap();
        }
        store(tensor.name, &tensor.shape, values);
    }
    let hidden = topology.hidden;
    for layer in 0..topology.layers() {
        let Some(moe) = topology.moe(layer) else {
            continue;
        };
        let inner = moe.intermediate;
        let reader = ExpertReader::open(checkpoint, names, layer, moe, hidden).unwrap();
        for expert in 0..moe.experts {
            let (mut gate, mut down) = (vec![0.0; 2 * inner * hidden], vec![0.0; inner * hidden]);
            reader.read_f32(expert, &mut gate, &mut down).unwrap();
            let up = gate.split_off(inner * hidden);
            for (projection, mut values) in Projection::ALL.into_iter().zip([gate, up, down]) {
                let shape = match projection {
                    Projection::Gate | Projection::Up => [inner, hidden],
                    Projection::Down => [hidden, inner],
                };
                quantization.round(&mut values).unwrap();
                store(names.expert(layer, expert, projection), &shape, values);
            }
        }
    }
    std::fs::create_dir(directory).unwrap();
    candle_core::safetensors::save(&tensors, directory.join("model.safetensors")).unwrap();
    let config = checkpoint.dir().join("config.json");
    std::fs::copy(config, directory.join("config.json")).unwrap();
    open(directory)
}

#[test]
fn logits_are_those_of_weights_rounded_before() {
    let mut compared = [0; Quantization::ALL.len()];
    for golden in Golden::all() {
        let (model, sequences, keep) = (&golden.model, golden.sequences(), golden.kept());
        let whole = logits(model, &sequences, None);
        for (quantization, compared) in Quantization::ALL.into_iter().zip(&mut compared) {
            // Some golden matrices are smaller than the larger blocks.
            let Ok(quantized) = model.quantized(quantization) else {
                assert_eq!(quantization.block(), 256, "{}", golden.name);
                continue;
            };
            let folder = tempfile::tempdir().unwrap();
            let rounded = rounded(model, quantization, &folder.path().join("rounded"));
            for keep in [None, Some(&keep)] {
                let what = format!("{} {quantization}", golden.name);
                let found = logits(&quantized, &sequences, keep);
                assert_eq!(
                    worst(&found, &logits(&rounded, &sequences, keep)),
                    0.0,
                    "{what}"
                );
                assert!(worst(&found, &whole) > 1e-3, "{what}");
            }
            *compared += 1;
        }
    }
    for (quantization, compared) in Quantization::ALL.into_iter().zip(compared) {
        assert!(compared >= 3, "{quantization}: {compared}");
    }
}

/// The rows of the demo model are whole blocks of 32.
#[test]
fn the_engine_rounds_the_same_way() {
    let model = open(&demo());
    let cut = Cut::convert(&model, Layout::Engine);
    let sequences = ragged(&[64], 4096, 1);
    let whole = logits(&model, &sequences, None);
    for (quantization, isq, limit) in [
        (Quantization::Q4_0, IsqType::Q4_0, 0.2),
        (Quantization::Q5_0, IsqType::Q5_0, 0.4),
    ] {
        let engine = Engine::load_quantized(&cut.directory(), isq);
        let theirs = engine.logits(&sequences.tokens);
        let quantized = model.quantized(quantization).unwrap();
        let hidden = quantized.hidden_states(&sequences, None, ONE_BATCH, &Silent);
        // The engine rounds the head too, which is the embedding.
        let embedding = model.embedding().unwrap();
        let mut head = embedding.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        quantization.round(&mut head).unwrap();
        let head = Tensor::from_vec(head, embedding.shape(), &Device::Cpu).unwrap();
        let ours = hidden.unwrap()[0].matmul(&head.t().unwrap()).unwrap();
        let share = distance(&theirs, &ours) / distance(&theirs, &whole);
        let what = format!("what rounding to {quantization} does not explain");
        at_most(limit, share, &what);
    }
}

/// Root of the sum of squared differences.
fn distance(left: &Tensor, right: &Tensor) -> f64 {
    let squares = (left - right).unwrap().sqr().unwrap().sum_all().unwrap();
    f64::from(squares.to_scalar::<f32>().unwrap()).sqrt()
}
