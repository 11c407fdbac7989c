//! A GGUF file is the checkpoint that holds its numbers: bit for bit here, and
//! in the engine, which is given its blocks as they are.

use candle_core::quantized::GgmlDType;
use candle_core::Tensor;
use mistralrs_prune::surgery::{Layout, Uqff, UqffWeights};
use prune_tests::{at_most, demo, gguf, logits, open, ragged, worst, Golden};
use router_stats::calibration::Sequences;
use router_stats::forward::Model;

use crate::cut::{measure, Cut};
use crate::engine::Engine;
use crate::uneven::{artifacts, relative, served, uneven, wide_but};

/// A wide model with experts in every layer, as llama.cpp has them.
fn routed(place: &tempfile::TempDir, golden: &str) -> Model {
    wide_but(place, golden, |config| {
        if config.get("mlp_only_layers").is_some() {
            config["mlp_only_layers"] = serde_json::json!([]);
            config["decoder_sparse_step"] = 1.into();
        }
        if config.get("attention_bias").is_some() {
            config["attention_bias"] = false.into();
        }
    })
}

/// `model` as a file, opened.
fn stored(
    model: &Model,
    place: &tempfile::TempDir,
    element: impl Fn(&str) -> Option<GgmlDType>,
) -> Model {
    let path = place.path().join("model.gguf");
    gguf::write(model, &path, element);
    open(&path)
}

#[test]
fn numbers_that_are_not_in_blocks_are_the_checkpoint_s() {
    for model in [open(&demo()), Golden::open("mixtral").model] {
        let place = tempfile::tempdir().unwrap();
        let sequences = ragged(&[33, 5], model.topology().vocab as u32, 1);
        let file = stored(&model, &place, |_| None);
        let found = logits(&file, &sequences, None);
        let difference = worst(&found, &logits(&model, &sequences, None));
        at_most(1e-5, difference, model.family().model_type());
        let [file, model] = [&file, &model].map(|it| measure(it, &sequences).tables);
        assert_eq!(
            file.keys().collect::<Vec<_>>(),
            model.keys().collect::<Vec<_>>()
        );
        for (name, table) in &file {
            assert_eq!(table.values, model[name].values, "{name}");
        }
    }
}

#[test]
fn blocks_are_the_model_whose_weights_were_rounded_before() {
    use router_stats::forward::Quantization;
    let place = tempfile::tempdir().unwrap();
    for golden in ["qwen3_moe", "mixtral"] {
        let model = routed(&place, golden);
        let sequences = ragged(&[33, 5], model.topology().vocab as u32, 1);
        for (quantization, blocks) in [
            (Quantization::Q4_0, GgmlDType::Q4_0),
            (Quantization::Q5K, GgmlDType::Q5K),
            (Quantization::Q2K, GgmlDType::Q2K),
        ] {
            let names = model.family().names();
            let file = stored(&model, &place, |name| {
                names.is_projection(name).then_some(blocks)
            });
            let rounded = model.quantized(quantization).unwrap();
            let ours = logits(&file, &sequences, None);
            let difference = worst(&ours, &logits(&rounded, &sequences, None));
            at_most(1e-5, difference, &format!("{golden} as {quantization}"));
        }
    }
}

/// The artifacts of a model.
fn written(model: &Model, weights: UqffWeights) -> Vec<Vec<u8>> {
    let uqff = Uqff {
        weights,
        ..Uqff::default()
    };
    let parent = Cut::uqff(model, Layout::Uqff(uqff));
    artifacts(&parent.path().join("cut"))
        .0
        .into_values()
        .collect()
}

/// Quantising a model for the engine makes the same blocks as quantising it for
/// GGUF and taking these; so only rows of blocks are moved.
#[test]
fn the_engine_is_given_the_blocks_of_the_file() {
    let place = tempfile::tempdir().unwrap();
    for golden in ["qwen3_moe", "mixtral"] {
        let model = routed(&place, golden);
        let names = model.family().names();
        for (weights, blocks) in [
            (UqffWeights::Q8_0, GgmlDType::Q8_0),
            (UqffWeights::Q4K, GgmlDType::Q4K),
            (UqffWeights::Q6K, GgmlDType::Q6K),
        ] {
            let file = stored(&model, &place, |name| {
                (names.is_projection(name) || name == names.head).then_some(blocks)
            });
            let expected = written(&model, weights);
            let found = written(&file, UqffWeights::Float);
            assert_eq!(found.len(), expected.len());
            // Routers of Mixtral are artifacts of their own, in f32 both times
            // but spelled otherwise.
            let unlike = found.iter().zip(&expected).filter(|(a, b)| a != b).count();
            let routers = match golden {
                "mixtral" => model.topology().layers(),
                _ => 0,
            };
            assert_eq!(unlike, routers, "{golden} as {}", weights.name());
        }
    }
}

/// The engine's logits of the whole file.
fn whole(file: &Model, sequences: &Sequences) -> Tensor {
    let uqff = Uqff::default();
    let cut = Cut::uqff(file, Layout::Uqff(uqff));
    let engine = Engine::load_uqff(&cut.path().join("cut"), &uqff.first_file());
    let of_sequence = |index| engine.logits(sequences.sequence(index));
    Tensor::cat(
        &(0..sequences.len()).map(of_sequence).collect::<Vec<_>>(),
        0,
    )
    .unwrap()
}

/// The engine rounds activations to 8 bits where weights are in blocks.
#[test]
fn the_engine_computes_what_the_file_does() {
    let place = tempfile::tempdir().unwrap();
    // Rows of the demo model are 192 numbers; its head is its embedding.
    for (model, blocks, limit) in [
        (open(&demo()), GgmlDType::Q8_0, 0.03),
        (routed(&place, "qwen3_moe"), GgmlDType::Q4K, 0.2),
        (routed(&place, "mixtral"), GgmlDType::Q6K, 0.4),
    ] {
        let what = format!("{} as {blocks:?}", model.family().model_type());
        let sequences = ragged(&[64, 33, 1], model.topology().vocab as u32, 1);
        let names = model.family().names();
        let floats = stored(&model, &place, |_| None);
        let theirs = whole(&floats, &sequences);
        at_most(
            1e-4,
            worst(&theirs, &logits(&model, &sequences, None)),
            &what,
        );
        let file = stored(&model, &place, |name| {
            let outside = [names.head, names.embedding].contains(&name);
            (names.is_projection(name) || outside).then_some(blocks)
        });
        let theirs = whole(&file, &sequences);
        at_most(
            limit,
            relative(&theirs, &logits(&file, &sequences, None)),
            &what,
        );
        let plan = uneven(&file, &sequences);
        let theirs = served(&file, &sequences, &plan, Uqff::default());
        let ours = logits(&file, &sequences, Some(plan.keep()));
        at_most(limit, relative(&theirs, &ours), &format!("uneven {what}"));
    }
}
