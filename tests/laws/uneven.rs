//! Law 4 for plans that keep a different number of experts in every layer: the
//! engine has the logits of the masked forward pass (f32, ≤ 1e-4; quantised,
//! as near as its numbers allow).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use candle_core::{Device, Tensor};
use mistralrs_core::IsqType;
use mistralrs_prune::plan::{PlanOptions, ValidPlan};
use mistralrs_prune::surgery::{self, Layout, SurgeryOptions, Uqff, UqffWeights};
use prune_tests::{at_most, demo, directory, logits, open, ragged, worst, Golden};
use router_stats::calibration::Sequences;
use router_stats::checkpoint::Checkpoint;
use router_stats::family::Keep;
use router_stats::forward::Model;
use router_stats::progress::Silent;

use crate::cut::{decide, half, with_top_k, without_experts, Cut};
use crate::engine::Engine;

/// A plan under which no two neighbouring MoE layers keep equally many.
pub(crate) fn uneven(model: &Model, sequences: &Sequences) -> ValidPlan {
    let whole = decide(model, sequences, &PlanOptions::default());
    let mut plan = whole.plan().clone();
    let topology = model.topology();
    let layers = (0..topology.layers()).filter_map(|layer| Some((layer, topology.moe(layer)?)));
    for (nth, (layer, moe)) in layers.enumerate() {
        let rule = &moe.router;
        let each = moe.experts / rule.group_count();
        let least = rule.floor().div_ceil(rule.group_count());
        // One fewer than all, as few as can be, and back.
        let kept = [each - 1, least][nth % 2].max(least);
        let mut keep = Vec::new();
        for group in rule.group_ranges(moe.experts) {
            let mut chosen: Vec<_> = (0..kept)
                .map(|it| group.start + (it + nth + layer) % each)
                .collect();
            chosen.sort_unstable();
            keep.extend(chosen);
        }
        let layer = &mut plan.layers[layer];
        layer.removed = (0..moe.experts).filter(|it| !keep.contains(it)).collect();
        layer.kept = keep;
    }
    let plan = ValidPlan::new(plan, model.checkpoint(), model.family(), topology).unwrap();
    assert_eq!(plan.keep().uniform_experts(topology), None);
    plan
}

/// What `plan` leaves of `model` as UQFF, in `cut` of a directory.
pub(crate) fn write(model: &Model, plan: &ValidPlan, uqff: Uqff) -> tempfile::TempDir {
    let parent = tempfile::tempdir().unwrap();
    let options = SurgeryOptions {
        layout: Layout::Uqff(uqff),
        // Small enough that even the golden checkpoints take several files.
        max_shard_bytes: 50_000,
        ..SurgeryOptions::default()
    };
    surgery::prune(
        model.checkpoint(),
        model.family(),
        model.topology(),
        plan,
        &parent.path().join("cut"),
        &options,
        &Silent,
    )
    .unwrap();
    parent
}

/// The engine's logits [N, V] of it.
pub(crate) fn served(model: &Model, sequences: &Sequences, plan: &ValidPlan, uqff: Uqff) -> Tensor {
    let parent = write(model, plan, uqff);
    let engine = Engine::load_uqff(&parent.path().join("cut"), &uqff.first_file());
    let of_sequence = |index| engine.logits(sequences.sequence(index));
    let logits: Vec<_> = (0..sequences.len()).map(of_sequence).collect();
    Tensor::cat(&logits, 0).unwrap()
}

fn holds_for(name: &'static str) {
    let golden = Golden::open(name);
    let plan = uneven(&golden.model, &golden.sequences());
    served_alike(&golden, &plan);
}

/// `plan` in the engine has the logits of the masked forward pass.
fn served_alike(golden: &Golden, plan: &ValidPlan) {
    let (model, sequences, name) = (&golden.model, golden.sequences(), golden.name);
    let masked = |keep: Option<&Keep>| logits(model, &sequences, keep);
    let ours = masked(Some(plan.keep()));
    let theirs = served(model, &sequences, plan, Uqff::default());
    let what = format!("uneven {name} in the engine");
    at_most(1e-4, worst(&theirs, &ours), &what);
    // The mask does something: the whole model is farther away.
    assert!(worst(&masked(None), &ours) > 1e-2);
}

#[test]
fn mixtral_s_router_is_an_artifact() {
    holds_for("mixtral");
}

#[test]
fn a_bias_keeps_tokens_from_absent_experts() {
    holds_for("glm4_moe");
    holds_for("glm4_moe_lite");
    holds_for("deepseek_v3");
    // Its weights are fp8.
    holds_for("kimi_k2");
}

#[test]
fn a_channel_keeps_tokens_from_absent_experts() {
    holds_for("qwen3_moe");
}

#[test]
fn layers_without_experts_and_fewer_a_token_are_beside_the_others() {
    for (name, layers) in [("qwen3_moe", [2]), ("glm4_moe", [1])] {
        let golden = Golden::open(name);
        let plan = uneven(&golden.model, &golden.sequences());
        let plan = without_experts(&golden.model, &plan, &layers);
        let plan = with_top_k(&golden.model, &plan, 1);
        served_alike(&golden, &plan);
    }
}

/// A golden checkpoint made wide enough for blocks of 256, with weights that
/// look random and never change.
pub(crate) fn wide(place: &tempfile::TempDir, golden: &str) -> Model {
    wide_but(place, golden, |_| ())
}

/// [`wide`], with some fields of its configuration changed.
pub(crate) fn wide_but(
    place: &tempfile::TempDir,
    golden: &str,
    change: impl FnOnce(&mut serde_json::Value),
) -> Model {
    let dir = place.path().join(format!("wide_{golden}"));
    let golden = directory(golden);
    std::fs::create_dir(&dir).unwrap();
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(golden.join(name), dir.join(name)).unwrap();
    }
    let mut config = Checkpoint::open(&golden).unwrap().config().value().clone();
    config["hidden_size"] = 256.into();
    config["intermediate_size"] = 256.into();
    if config.get("moe_intermediate_size").is_some() {
        config["moe_intermediate_size"] = 256.into();
    }
    change(&mut config);
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let config = router_stats::family::Config::new("config.json", config).unwrap();
    let family = router_stats::family::detect(&config).unwrap();
    let topology = family.topology(&config).unwrap();
    let mut state = 1u32;
    let mut number = || {
        // Numerical Recipes' linear congruential generator; high bits are best.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let mut tensors = HashMap::new();
    for tensor in topology.tensors(family.names()) {
        let count = tensor.shape.iter().product();
        let values: Vec<f32> = match tensor.shape.len() {
            1 => vec![1.0; count],
            // Decided enough that rounding seldom changes the choice.
            _ if tensor.name.ends_with("gate.weight") => (0..count).map(|_| number()).collect(),
            _ => (0..count).map(|_| number() * 0.12).collect(),
        };
        let values = Tensor::from_vec(values, tensor.shape, &Device::Cpu).unwrap();
        tensors.insert(tensor.name, values);
    }
    candle_core::safetensors::save(&tensors, dir.join("model.safetensors")).unwrap();
    open(&dir)
}

/// Root mean square of the differences over that of `ours`.
pub(crate) fn relative(theirs: &Tensor, ours: &Tensor) -> f64 {
    let square = |it: Tensor| {
        let mean = it.sqr().unwrap().mean_all().unwrap();
        f64::from(mean.to_scalar::<f32>().unwrap())
    };
    (square((theirs - ours).unwrap()) / square(ours.clone())).sqrt()
}

/// The share of tokens with the same most likely successor.
pub(crate) fn agreement(theirs: &Tensor, ours: &Tensor) -> f64 {
    let best = |it: &Tensor| it.argmax(1).unwrap().to_vec1::<u32>().unwrap();
    let (theirs, ours) = (best(theirs), best(ours));
    let same = theirs.iter().zip(&ours).filter(|(a, b)| a == b).count();
    same as f64 / ours.len() as f64
}

/// Quantised logits are at most so far, relatively, from those in f32.
#[allow(clippy::print_stdout, reason = "as at_most")]
fn quantised(model: &Model, what: &str, limits: [(UqffWeights, f64); 4]) {
    let sequences = ragged(&[64, 33, 1], model.topology().vocab as u32, 1);
    let plan = uneven(model, &sequences);
    let ours = logits(model, &sequences, Some(plan.keep()));
    let mut before = 0.0;
    for (weights, limit) in limits {
        let uqff = Uqff {
            weights,
            ..Uqff::default()
        };
        let theirs = served(model, &sequences, &plan, uqff);
        let found = relative(&theirs, &ours);
        let what = format!("{what} as {}", weights.name());
        println!("{what}: same best token {:.3}", agreement(&theirs, &ours));
        at_most(limit, found, &what);
        assert!(found > before, "{what}: fewer bits were nearer");
        before = found;
    }
}

/// Number → bytes of the artifacts in a directory, and names of the residual.
pub(crate) fn artifacts(dir: &Path) -> (BTreeMap<usize, Vec<u8>>, BTreeSet<String>) {
    let (mut artifacts, mut residual) = (BTreeMap::new(), BTreeSet::new());
    for file in std::fs::read_dir(dir).unwrap() {
        let path = file.unwrap().path();
        let suffix = path.extension().and_then(|it| it.to_str());
        match suffix {
            Some("uqff") => {
                for (name, bytes) in candle_core::safetensors::load(&path, &Device::Cpu).unwrap() {
                    artifacts.insert(name.parse().unwrap(), bytes.to_vec1().unwrap());
                }
            }
            Some("safetensors") => {
                let tensors = candle_core::safetensors::load(&path, &Device::Cpu).unwrap();
                residual.extend(tensors.into_keys());
            }
            _ => {}
        }
    }
    (artifacts, residual)
}

/// Where layers keep equally many, the engine writes the same bytes.
#[test]
fn artifacts_are_the_engine_s_byte_for_byte() {
    let place = tempfile::tempdir().unwrap();
    // When it quantises, the engine leaves out the stacked experts of Qwen3-MoE,
    // 4 in each of 3 layers; and routers of Mixtral are left out here.
    for (name, unlike) in [("qwen3_moe", 3 * 4 * 3), ("mixtral", 3)] {
        let model = wide(&place, name);
        let sequences = ragged(&[33], model.topology().vocab as u32, 1);
        let plan = decide(&model, &sequences, &half());
        let cut = Cut::new(&model, &plan, Layout::Engine);
        for (weights, isq) in [
            (UqffWeights::Float, None),
            (UqffWeights::Q8_0, Some(IsqType::Q8_0)),
            (UqffWeights::Q6K, Some(IsqType::Q6K)),
            (UqffWeights::Q5K, Some(IsqType::Q5K)),
            (UqffWeights::Q4K, Some(IsqType::Q4K)),
            (UqffWeights::Q3K, Some(IsqType::Q3K)),
            (UqffWeights::Q2K, Some(IsqType::Q2K)),
        ] {
            let uqff = Uqff {
                weights,
                ..Uqff::default()
            };
            let written = write(&model, &plan, uqff);
            let (ours, our_residual) = artifacts(&written.path().join("cut"));
            let theirs = tempfile::tempdir().unwrap();
            Engine::write_uqff(&cut.directory(), isq, &theirs.path().join("theirs.uqff"));
            let (theirs, their_residual) = artifacts(theirs.path());
            let what = format!("{name} as {}", weights.name());
            assert_eq!(our_residual, their_residual, "{what}");
            assert!(ours.keys().eq(theirs.keys()), "{what}");
            let others = ours.iter().filter(|(it, bytes)| theirs[it] != **bytes);
            let expected = if isq.is_some() { unlike } else { 0 };
            assert_eq!(others.count(), expected, "{what}");
        }
    }
}

#[test]
fn quantised_weights_are_near_where_blocks_fit() {
    let place = tempfile::tempdir().unwrap();
    let limits = [
        (UqffWeights::Float, 1e-5),
        (UqffWeights::Q8_0, 0.2),
        (UqffWeights::Q6K, 0.4),
        (UqffWeights::Q4K, 0.8),
    ];
    quantised(&wide(&place, "mixtral"), "a wide Mixtral", limits);
}

#[test]
fn quantised_weights_are_near_beside_a_channel() {
    let limits = [
        (UqffWeights::Float, 1e-5),
        (UqffWeights::Q8_0, 0.03),
        (UqffWeights::Q5K, 0.2),
        (UqffWeights::Q4K, 0.3),
    ];
    quantised(&open(&demo()), "the demo model", limits);
}
