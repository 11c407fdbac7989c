//! What is in a directory of UQFF, read without the engine. That it loads and
//! computes the same, `tests/laws/uneven.rs` holds.

use std::collections::BTreeMap;
use std::path::Path;

use router_stats::family::Keep;
use router_stats::progress::Silent;
use safetensors::SafeTensors;
use serde_json::Value;

use super::super::fixture::{mixtral, qwen3_moe, Model, Stored};
use super::super::{write_directory, Cut, Layout, SurgeryOptions};
use super::*;

/// Number → bytes of the artifact.
type Artifacts = BTreeMap<usize, Vec<u8>>;

fn write(model: &Model, keep: &Keep, uqff: Uqff, out: &Path) {
    let source = out.with_extension("source");
    let mut tensors = model.tensors(&model.all(), Stored::PerExpert);
    // The engine asks for every projection, which the others do not need.
    for expected in model.topology.tensors(model.names()) {
        let bytes = vec![0; 2 * expected.shape.iter().product::<usize>()];
        tensors
            .entry(expected.name)
            .or_insert((model.dtype, expected.shape, bytes));
    }
    let checkpoint = model.store(&tensors, 1, &source);
    let cut = Cut {
        checkpoint: &checkpoint,
        family: model.family,
        topology: &model.topology,
        keep,
        layout: Layout::Uqff(uqff),
    };
    let options = SurgeryOptions {
        layout: cut.layout,
        max_shard_bytes: 1000,
        ..SurgeryOptions::default()
    };
    write_directory(&cut, out, &options, &Silent, |_| Ok(())).unwrap();
}

fn read(out: &Path, uqff: Uqff) -> (Artifacts, Vec<String>, Value) {
    let mut artifacts = Artifacts::new();
    for index in 0.. {
        let Ok(file) = std::fs::read(out.join(uqff.file(index))) else {
            break;
        };
        for (name, view) in SafeTensors::deserialize(&file).unwrap().tensors() {
            artifacts.insert(name.parse().unwrap(), view.data().to_vec());
        }
    }
    let residual = std::fs::read(out.join(RESIDUAL)).unwrap();
    let names = SafeTensors::deserialize(&residual).unwrap();
    let mut names: Vec<_> = names.names().into_iter().map(str::to_owned).collect();
    names.sort();
    let config = std::fs::read(out.join("config.json")).unwrap();
    (artifacts, names, serde_json::from_slice(&config).unwrap())
}

/// Type and shape of an artifact that has no bias.
fn header(artifact: &[u8]) -> (u32, Vec<u32>) {
    let word = |at: usize| u32::from_le_bytes(artifact[at..at + 4].try_into().unwrap());
    assert_eq!(word(0), 0x200);
    let (bias, code, dims) = match artifact[4] {
        1 => (artifact[5], 10, 14),
        _ => (artifact[9], 10, 14),
    };
    assert_eq!(bias, 0);
    let shape: Vec<u32> = (0..word(dims) as usize)
        .map(|dim| word(dims + 4 * (dim + 1)))
        .collect();
    (word(code), shape)
}

/// Layers 0, 2 and 3 keep 2, 5 and 3 of 6 experts.
fn uneven(model: &Model) -> Keep {
    let mut keep = model.all();
    keep.experts[0] = vec![1, 4];
    keep.experts[2] = vec![0, 1, 2, 4, 5];
    keep.experts[3] = vec![3, 4, 5];
    keep
}

const F32: u32 = 6;
const BF16: u32 = 5;

#[test]
fn a_cpu_gets_an_artifact_for_every_place_and_projection() {
    let (model, place) = (qwen3_moe(), tempfile::tempdir().unwrap());
    let (out, uqff) = (place.path().join("out"), Uqff::default());
    write(&model, &uneven(&model), uqff, &out);
    let (artifacts, residual, config) = read(&out, uqff);
    // The head; four projections in four layers; 3 dense; 3 for each of 5 places.
    assert_eq!(artifacts.len(), 1 + 4 * 4 + 3 + 3 * 5 * 3);
    assert!(artifacts.keys().copied().eq(0..artifacts.len()));
    let hidden = 8 + 32;
    assert_eq!(header(&artifacts[&0]), (F32, vec![11, hidden]));
    let of_layer_0: Vec<_> = (5..20).map(|it| header(&artifacts[&it]).1).collect();
    let expert = [vec![5, hidden], vec![5, hidden], vec![hidden, 5]];
    let nobody = [vec![1, 1], vec![1, 1], vec![1, 1]];
    let places = [&expert, &expert, &nobody, &nobody, &nobody];
    assert_eq!(of_layer_0, places.map(|it| it.to_vec()).concat());
    assert_eq!(config["num_experts"], 5);
    assert_eq!(config["hidden_size"], hidden);
    assert!(residual
        .iter()
        .any(|it| it == "model.layers.3.mlp.gate.weight"));
    assert!(!residual
        .iter()
        .any(|it| it.contains("_proj") || it.contains("lm_head")));
}

#[test]
fn a_gpu_gets_an_artifact_for_every_layer_and_projection() {
    let (model, place) = (qwen3_moe(), tempfile::tempdir().unwrap());
    let out = place.path().join("out");
    let uqff = Uqff {
        device: UqffDevice::Gpu,
        ..Uqff::default()
    };
    write(&model, &uneven(&model), uqff, &out);
    let (artifacts, ..) = read(&out, uqff);
    assert_eq!(artifacts.len(), 1 + 4 * 4 + 3 + 3 * 3);
    let hidden = 8 + 32;
    for (first, experts) in [(5, 2), (19, 5), (26, 3)] {
        let shapes = [
            vec![experts, 5, hidden],
            vec![experts, 5, hidden],
            vec![experts, hidden, 5],
        ];
        for (projection, shape) in shapes.into_iter().enumerate() {
            assert_eq!(header(&artifacts[&(first + projection)]), (BF16, shape));
        }
    }
}

#[test]
fn mixtral_s_routers_have_a_row_for_every_kept_expert() {
    let (model, place) = (mixtral(), tempfile::tempdir().unwrap());
    let (out, uqff) = (place.path().join("out"), Uqff::default());
    let mut keep = model.all();
    keep.experts[1] = vec![0, 3];
    write(&model, &keep, uqff, &out);
    let (artifacts, residual, config) = read(&out, uqff);
    let places = model.topology.moe(0).unwrap().experts;
    let each = 5 + 3 * places;
    assert_eq!(artifacts.len(), 1 + 3 * each);
    let hidden = model.topology.hidden as u32;
    for (layer, experts) in [(0, places as u32), (1, 2), (2, places as u32)] {
        let router = 1 + layer * each + 4;
        assert_eq!(header(&artifacts[&router]), (F32, vec![experts, hidden]));
    }
    assert_eq!(config["num_local_experts"], places);
    assert_eq!(config["hidden_size"], hidden);
    assert!(!residual.iter().any(|it| it.contains("block_sparse_moe")));
}

#[test]
fn an_even_plan_gains_no_channel() {
    let (model, place) = (qwen3_moe(), tempfile::tempdir().unwrap());
    let (out, uqff) = (place.path().join("out"), Uqff::default());
    write(&model, &model.some(), uqff, &out);
    let (artifacts, _, config) = read(&out, uqff);
    assert_eq!(config["hidden_size"], 8);
    assert!(artifacts.values().all(|it| header(it).1 != [1, 1]));
}

#[test]
fn rows_that_blocks_do_not_divide_take_smaller_ones_or_none() {
    for (weights, width, expected) in [
        (UqffWeights::Q4K, 512, GgmlDType::Q4K),
        (UqffWeights::Q4K, 96, GgmlDType::Q4_1),
        (UqffWeights::Q6K, 96, GgmlDType::Q5_1),
        (UqffWeights::Q8_0, 40, GgmlDType::F32),
    ] {
        let form = encode::Form::new(weights, Dtype::F32, &[3, width]);
        assert_eq!(form, encode::Form::Blocks(expected));
    }
}

#[test]
fn sizes_are_known_before_the_bytes() {
    let values: Vec<f32> = (0..512).map(|it| (it as f32).sin()).collect();
    let numbers = encode::write(&values, Dtype::F32);
    for weights in UqffWeights::ALL {
        assert_eq!(
            UqffWeights::parse(&weights.name().to_uppercase()),
            Some(weights)
        );
        let form = encode::Form::new(weights, Dtype::BF16, &[2, 256]);
        let encoded = form.encode(&numbers, Dtype::F32).unwrap();
        assert_eq!(encoded.len(), form.bytes(512), "{}", weights.name());
    }
}
