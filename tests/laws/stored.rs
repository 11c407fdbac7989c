//! Plans that keep a different number of experts in every layer, in the numbers
//! that the engine stores: on the CPU its logits are those of the masked forward
//! pass whose weights are rounded so, but for the activations that its kernels
//! round to 8 bits; on a GPU, where there is none to run, the artifacts hold the
//! numbers that the forward pass rounds to.

use candle_core::quantized::ggml_file::qtensor_from_ggml;
use candle_core::quantized::GgmlDType;
use candle_core::{DType, Device, Tensor};
use mistralrs_prune::surgery::{Uqff, UqffDevice, UqffWeights};
use prune_tests::{at_most, demo, logits, open, ragged, Golden};
use router_stats::family::Projection;
use router_stats::forward::{Model, Rounding};

use crate::uneven::{agreement, artifacts, relative, served, uneven, wide, write};

/// The engine's logits of `model` stored as each type are nearer to the rounded
/// forward pass than to the one that is not, and by `limit`, relatively.
#[allow(clippy::print_stdout, reason = "as at_most")]
fn explained(model: &Model, what: &str, limit: f64) {
    let sequences = ragged(&[64, 33, 1], model.topology().vocab as u32, 1);
    let plan = uneven(model, &sequences);
    let keep = Some(plan.keep());
    let exact = logits(model, &sequences, keep);
    for weights in &UqffWeights::ALL[1..] {
        let uqff = Uqff {
            weights: *weights,
            ..Uqff::default()
        };
        let rounding = weights.rounding(model.family(), model.topology(), plan.keep());
        let ours = logits(&model.rounded(rounding.unwrap()), &sequences, keep);
        let theirs = served(model, &sequences, &plan, uqff);
        let (found, without) = (relative(&theirs, &ours), relative(&theirs, &exact));
        let what = format!("{what} as {}", weights.name());
        let same = agreement(&theirs, &ours);
        println!("{what}: {found:.4} of the rounded, {without:.4} of the exact, same best token {same:.3}");
        at_most(limit, found, &what);
        // With 8 bits, weights are rounded no more than activations.
        assert!(*weights == UqffWeights::Q8_0 || found < without, "{what}");
    }
}

#[test]
fn routers_of_their_own_size_beside_rounded_weights() {
    let place = tempfile::tempdir().unwrap();
    explained(&wide(&place, "mixtral"), "a wide Mixtral", 0.2);
}

#[test]
fn biases_beside_rounded_weights() {
    let place = tempfile::tempdir().unwrap();
    explained(&wide(&place, "glm4_moe"), "a wide GLM-4-MoE", 0.2);
}

#[test]
fn a_channel_beside_rounded_weights() {
    explained(&open(&demo()), "the demo model", 0.05);
}

/// What bf16 changes, in the forward pass: the engine's own arithmetic on a GPU
/// rounds activations too, which this does not see.
#[test]
fn weights_in_bf16_are_near() {
    let place = tempfile::tempdir().unwrap();
    for name in ["mixtral", "glm4_moe", "qwen3_moe"] {
        let model = wide(&place, name);
        let sequences = ragged(&[64, 33, 1], model.topology().vocab as u32, 1);
        let plan = uneven(&model, &sequences);
        let keep = Some(plan.keep());
        let ours = logits(&model.rounded(Rounding::Bf16), &sequences, keep);
        let found = relative(&ours, &logits(&model, &sequences, keep));
        at_most(0.1, found, &format!("uneven {name} in bf16"));
        assert!(found > 0.0);
    }
}

/// The numbers of one matrix of an expert, rounded to what an artifact holds.
fn matrix(model: &Model, layer: usize, expert: usize, projection: Projection) -> Vec<f32> {
    let name = model.family().names().expert(layer, expert, projection);
    let moe = model.topology().moe(layer).unwrap();
    let (inner, hidden) = (moe.intermediate, model.topology().hidden);
    let shape = match projection {
        Projection::Gate | Projection::Up => [inner, hidden],
        Projection::Down => [hidden, inner],
    };
    let mut values = vec![0.0; inner * hidden];
    let weight = model.checkpoint().weight(&name, &shape).unwrap();
    weight.read_f32(&mut values).unwrap();
    values
}

#[test]
fn artifacts_for_a_gpu_hold_bf16() {
    let golden = Golden::open("mixtral");
    let model = &golden.model;
    let plan = uneven(model, &golden.sequences());
    let uqff = Uqff {
        weights: UqffWeights::Float,
        device: UqffDevice::Gpu,
    };
    let written = write(model, &plan, uqff);
    let (artifacts, _) = artifacts(&written.path().join("cut"));
    // The head, then of the first layer attention, router and experts.
    let mut next = 1 + 4 + 1;
    let mut worst = 0f32;
    for &expert in &plan.keep().experts[0] {
        for projection in [Projection::Gate, Projection::Down, Projection::Up] {
            let exact = matrix(model, 0, expert, projection);
            let bytes = &artifacts[&next];
            let stored = bytes[bytes.len() - 2 * exact.len()..].chunks_exact(2);
            // The upper half of an f32.
            let stored = stored.map(|it| f32::from_bits(u32::from_le_bytes([0, 0, it[0], it[1]])));
            let stored: Vec<f32> = stored.collect();
            let rounded = Tensor::from_slice(&exact, exact.len(), &Device::Cpu).unwrap();
            let rounded = rounded
                .to_dtype(DType::BF16)
                .and_then(|it| it.to_dtype(DType::F32));
            assert_eq!(stored, rounded.unwrap().to_vec1::<f32>().unwrap());
            for (stored, exact) in stored.iter().zip(&exact) {
                worst = worst.max((stored - exact).abs() / exact.abs().max(1e-3));
            }
            next += 1;
        }
    }
    at_most(1.0 / 256.0, f64::from(worst), "bf16 of a weight");
}

/// Where there is no GPU to run them: the stacked artifacts of the other two
/// routes hold, for every expert that stays, the blocks of the forward pass.
#[test]
fn stacked_artifacts_for_a_gpu_hold_the_same_blocks() {
    let place = tempfile::tempdir().unwrap();
    let model = wide(&place, "glm4_moe");
    let sequences = ragged(&[33], model.topology().vocab as u32, 1);
    let plan = uneven(&model, &sequences);
    let uqff = Uqff {
        weights: UqffWeights::Q8_0,
        device: UqffDevice::Gpu,
    };
    let written = write(&model, &plan, uqff);
    let (artifacts, _) = artifacts(&written.path().join("cut"));
    let layer = (0..).find(|&layer| model.topology().moe(layer).is_some());
    let layer = layer.unwrap();
    let moe = model.topology().moe(layer).unwrap();
    let (inner, hidden) = (moe.intermediate, model.topology().hidden);
    // The head, then seven for each dense layer before, and attention.
    let gate = &artifacts[&(1 + 7 * layer + 4)];
    let kept = &plan.keep().experts[layer];
    let size = inner * hidden / 32 * GgmlDType::Q8_0.type_size();
    let places = (gate.len() - gate.len() % size) / size;
    let data = &gate[gate.len() - places * size..];
    let stacked = qtensor_from_ggml(
        GgmlDType::Q8_0,
        data,
        vec![places, inner, hidden],
        &Device::Cpu,
    );
    let stacked = stacked.unwrap().dequantize(&Device::Cpu).unwrap();
    assert!(places >= kept.len());
    for (place, &expert) in kept.iter().enumerate() {
        let stored = stacked.get(place).unwrap().flatten_all().unwrap();
        let mut rounded = matrix(&model, layer, expert, Projection::Gate);
        let quantization = uqff.weights.quantization().unwrap();
        quantization.round(&mut rounded).unwrap();
        assert_eq!(stored.to_vec1::<f32>().unwrap(), rounded, "expert {expert}");
    }
}
