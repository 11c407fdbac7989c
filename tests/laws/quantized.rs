//! A quantised model is the checkpoint whose projections were rounded before
//! they were stored, bit for bit, and what the engine makes of it but for the
//! activations that the engine rounds.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{Device, Tensor};
use mistralrs_core::IsqType;
use mistralrs_prune::surgery::Layout;
use prune_tests::{at_most, logits, open, worst, Golden};
use router_stats::checkpoint::ExpertReader;
use router_stats::family::{Part, Projection, Role};
use router_stats::forward::{Model, Quantization};

use crate::cut::Cut;
use crate::engine::Engine;

/// Writes the model, in f32 and with experts one by one, with the matrices
/// that `which` picks, by name and shape, rounded, and opens it.
fn rounded(
    model: &Model,
    quantization: Quantization,
    which: impl Fn(&str, &[usize]) -> bool,
    directory: &Path,
) -> Model {
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
        if which(&tensor.name, &tensor.shape) {
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
                let name = names.expert(layer, expert, projection);
                if which(&name, &shape) {
                    quantization.round(&mut values).unwrap();
                }
                store(name, &shape, values);
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
            let which = |name: &str, _: &[usize]| model.family().names().is_projection(name);
            let directory = folder.path().join("rounded");
            let rounded = rounded(model, quantization, which, &directory);
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

/// In-situ quantisation rounds the same blocks to the same values where rows
/// are whole blocks, and activations to 8 bits; so most tokens differ little,
/// and some are routed to other experts. Beside projections it rounds the head
/// and Mixtral's router. Experts that are stacked it passes over: should that
/// fail, the engine has been repaired.
#[test]
fn the_engine_rounds_the_same_way() {
    for (name, stacked) in [("mixtral", false), ("qwen3_moe", true)] {
        let golden = Golden::open(name);
        let (model, sequences) = (&golden.model, golden.sequences());
        let names = model.family().names();
        let rounds = |name: &str, shape: &[usize], experts: bool| {
            let part = match names.role(name) {
                Role::Block { part, .. } => Some(part),
                Role::Global => None,
            };
            let expert = matches!(part, Some(Part::Expert { .. }));
            let router = name.ends_with("block_sparse_moe.gate.weight");
            let projection = names.is_projection(name) && (experts || !expert);
            let whole = shape.last().is_some_and(|row| row.is_multiple_of(32));
            whole && (projection || router || name == names.head)
        };
        let cut = Cut::convert(model, Layout::Engine);
        for (quantization, isq) in [
            (Quantization::Q4_0, IsqType::Q4_0),
            (Quantization::Q5_0, IsqType::Q5_0),
        ] {
            let engine = Engine::load_quantized(&cut.directory(), isq);
            let theirs = (0..sequences.len()).map(|index| engine.logits(sequences.sequence(index)));
            let theirs = Tensor::cat(&theirs.collect::<Vec<_>>(), 0).unwrap();
            let whole = median(&theirs, &logits(model, &sequences, None));
            let unexplained = |experts: bool| {
                let which = |name: &str, shape: &[usize]| rounds(name, shape, experts);
                let folder = tempfile::tempdir().unwrap();
                let directory = folder.path().join("rounded");
                let rounded = rounded(model, quantization, which, &directory);
                median(&theirs, &logits(&rounded, &sequences, None)) / whole
            };
            let what = format!("what rounding {name} to {quantization} does not explain");
            at_most(0.2, unexplained(!stacked), &what);
            assert!(unexplained(stacked) > 0.2, "{what}");
        }
    }
}

/// Median over tokens of the distance between their logits, [N, V] each.
fn median(left: &Tensor, right: &Tensor) -> f64 {
    let squares = (left - right).unwrap().sqr().unwrap().sum(1).unwrap();
    let mut squares = squares.to_vec1::<f32>().unwrap();
    squares.sort_by(f32::total_cmp);
    f64::from(squares[squares.len() / 2]).sqrt()
}
