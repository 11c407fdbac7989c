//! A third opinion on Mixtral: candle-transformers' implementation.

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use candle_transformers::models::mixtral;
use prune_tests::{at_most, logits, worst, Golden};

/// Its sliding window is not optional; this one is never left.
const WINDOW: u32 = 4096;

#[test]
fn candle_s_mixtral_has_the_same_last_logits() {
    let golden = Golden::open("mixtral");
    let checkpoint = golden.model.checkpoint();
    let mut config = checkpoint.config().value().clone();
    config["sliding_window"] = WINDOW.into();
    config["use_flash_attn"] = false.into();
    let config: mixtral::Config = serde_json::from_value(config).unwrap();
    let path = checkpoint.dir().join("model.safetensors");
    let tensors = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
    let weights = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);

    let sequences = golden.sequences();
    let ours = logits(&golden.model, &sequences, None);
    let tokens = golden.tensors["input_ids"].to_dtype(DType::U32).unwrap();
    for sequence in 0..sequences.len() {
        // A model keeps the keys and values of what it has seen.
        let mut model = mixtral::Model::new(&config, weights.clone()).unwrap();
        let tokens = tokens.narrow(0, sequence, 1).unwrap();
        let theirs = model.forward(&tokens, 0).unwrap();
        let last = ours.get(sequences.starts[sequence + 1] - 1).unwrap();
        let what = format!("candle's Mixtral, sequence {sequence}");
        at_most(1e-4, worst(&theirs, &last), &what);
    }
}
