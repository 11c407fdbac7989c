use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::checkpoint::testing;
use crate::checkpoint::{Checkpoint, ExpertReader, Layout};
use crate::family::gguf::ARCHITECTURE;
use crate::family::{Family, Part, Projection, Role};
use crate::gguf::place;

/// A model of random numbers.
struct Tiny {
    family: &'static dyn Family,
    topology: Topology,
    config: serde_json::Value,
}

/// One tensor of a file.
type Made = (Info, Vec<u8>);

fn tiny(architecture: &str) -> Tiny {
    let mut config = json!({
        "hidden_act": "silu", "hidden_size": 256, "intermediate_size": 256,
        "moe_intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 64, "num_experts_per_tok": 2,
        "norm_topk_prob": true, "vocab_size": 40, "rope_theta": 1e6, "rms_norm_eps": 1e-6,
        "max_position_embeddings": 512
    });
    let (class, experts) = match architecture {
        "llama" => ("MixtralForCausalLM", "num_local_experts"),
        _ => ("Qwen3MoeForCausalLM", "num_experts"),
    };
    config["architectures"] = json!([class]);
    config[experts] = json!(3);
    let parsed = Config::new("config.json", config.clone()).unwrap();
    let family = family::detect(&parsed).unwrap();
    Tiny {
        family,
        topology: family.topology(&parsed).unwrap(),
        config,
    }
}

impl Tiny {
    fn metadata(&self) -> Metadata {
        let gguf = self.family.gguf().unwrap();
        let mut metadata = Metadata::new((gguf.keys)(&self.topology));
        metadata.set(ARCHITECTURE, gguf.architecture);
        metadata
    }

    /// The numbers of a tensor, each name its own.
    fn values(&self, name: &str, elements: usize) -> Vec<f32> {
        let seed: usize = name.bytes().map(usize::from).sum();
        (0..elements)
            .map(|it| ((it * 37 + seed * 101) % 1009) as f32 / 512.0 - 0.98)
            .collect()
    }

    /// The tensors of a file, experts stacked or not, and those of a
    /// checkpoint that holds the same numbers, matrices of blocks `element`
    /// having been rounded.
    fn tensors(&self, element: GgmlDType, stacked: bool) -> (Vec<Made>, Vec<testing::Stored>) {
        let (gguf, names) = (self.family.gguf().unwrap(), self.family.names());
        let (mut made, mut plain) = (Vec::new(), Vec::new());
        let mut stacks: BTreeMap<String, Vec<Made>> = BTreeMap::new();
        for expected in self.topology.tensors(names) {
            let (name, shape) = (expected.name, expected.shape);
            let element = if shape.len() == 2 {
                element
            } else {
                GgmlDType::F32
            };
            let values = self.values(&name, shape.iter().product());
            let (bytes, rounded) = rounded(element, &values);
            plain.push(testing::tensor(
                &name,
                safetensors::Dtype::F32,
                &shape,
                &rounded,
            ));
            let role = names.role(&name);
            if let Role::Block {
                layer,
                part: Part::Expert { expert, projection },
            } = role
            {
                let theirs = gguf.experts(layer, projection);
                if stacked {
                    let info = Info::new(&theirs, element, shape);
                    stacks.entry(theirs).or_default().push((info, bytes));
                } else {
                    let theirs = theirs.replace("_exps", &format!(".{expert}"));
                    made.push((Info::new(theirs, element, shape), bytes));
                }
                continue;
            }
            let theirs = gguf.theirs(names, &name).unwrap();
            let order = Order::of(&name, names, &self.topology, gguf.pairs);
            let row = bytes.len() / shape[0];
            let mut stored = vec![0; bytes.len()];
            for index in 0..shape[0] {
                let there = order.map_or(index, |order| order.stored(index)) * row;
                stored[there..there + row].copy_from_slice(&bytes[index * row..][..row]);
            }
            made.push((Info::new(theirs, element, shape), stored));
        }
        for (name, each) in stacks {
            let mut shape = each[0].0.shape.clone();
            shape.insert(0, each.len());
            let element = each[0].0.element;
            let bytes = each.into_iter().flat_map(|(_, bytes)| bytes).collect();
            made.push((Info::new(name, element, shape), bytes));
        }
        (made, plain)
    }
}

/// The bytes of numbers, and the numbers that they are then.
fn rounded(element: GgmlDType, values: &[f32]) -> (Vec<u8>, Vec<f32>) {
    let tensor = Tensor::new(values, &Device::Cpu).unwrap();
    let stored = QTensor::quantize(&tensor, element).unwrap();
    let values = stored.dequantize(&Device::Cpu).unwrap();
    let bytes = stored.data().unwrap().into_owned();
    (bytes, values.to_vec1().unwrap())
}

/// The bytes of a file.
fn file(metadata: &Metadata, tensors: &[Made]) -> Vec<u8> {
    let mut infos: Vec<Info> = tensors.iter().map(|(info, _)| info.clone()).collect();
    place(&mut infos, 32).unwrap();
    let mut bytes = Header::encode(metadata, &infos, 32);
    for (_, data) in tensors {
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(32), 0);
    }
    bytes
}

/// Asserts that two checkpoints are the same model.
fn assert_same(tiny: &Tiny, left: &Checkpoint, right: &Checkpoint) {
    let names = tiny.family.names();
    for expected in tiny.topology.tensors_beside_experts(names) {
        let read = |checkpoint: &Checkpoint| {
            let mut values = vec![0.0; expected.shape.iter().product()];
            let weight = checkpoint.weight(&expected.name, &expected.shape).unwrap();
            weight.read_f32(&mut values).unwrap();
            values
        };
        assert_eq!(read(left), read(right), "{}", expected.name);
    }
    let hidden = tiny.topology.hidden;
    for layer in 0..tiny.topology.layers() {
        let moe = tiny.topology.moe(layer).unwrap();
        for expert in 0..moe.experts {
            let read = |checkpoint: &Checkpoint| {
                let reader = ExpertReader::open(checkpoint, names, layer, moe, hidden).unwrap();
                let matrix = hidden * moe.intermediate;
                let (mut gate_up, mut down) = (vec![0.0; 2 * matrix], vec![0.0; matrix]);
                reader.read_f32(expert, &mut gate_up, &mut down).unwrap();
                (gate_up, down)
            };
            assert_eq!(read(left), read(right), "{layer} {expert}");
        }
    }
}

const ARCHITECTURES: [&str; 2] = ["qwen3moe", "llama"];

#[test]
fn a_file_is_the_checkpoint_that_holds_its_numbers() {
    for architecture in ARCHITECTURES {
        let tiny = tiny(architecture);
        for element in [
            GgmlDType::F32,
            GgmlDType::BF16,
            GgmlDType::Q8_0,
            GgmlDType::Q4K,
            GgmlDType::Q6K,
        ] {
            let dir = tempfile::tempdir().unwrap();
            let (made, plain) = tiny.tensors(element, true);
            let path = dir.path().join("tiny.gguf");
            std::fs::write(&path, file(&tiny.metadata(), &made)).unwrap();
            testing::write(dir.path(), &tiny.config.to_string(), &plain);
            let (left, right) = (
                Checkpoint::open(&path).unwrap(),
                Checkpoint::open(dir.path()).unwrap(),
            );
            assert_same(&tiny, &left, &right);
            assert_eq!(left.name(), "tiny");
            let stored: usize = made.iter().map(|(_, bytes)| bytes.len()).sum();
            assert_eq!(left.bytes(), stored as u64);
            let names = tiny.family.names();
            let moe = tiny.topology.moe(0).unwrap();
            let reader = ExpertReader::open(&left, names, 0, moe, 256).unwrap();
            assert_eq!(reader.layout(), Layout::Stacks);
            assert_eq!(reader.element(Projection::Down), element.into());
            // Blocks are there as they are in the file.
            let raw = reader.raw(1, Projection::Up).unwrap();
            let stack = &made
                .iter()
                .find(|(it, _)| it.name == "blk.0.ffn_up_exps.weight");
            let (_, stack) = stack.unwrap();
            assert_eq!(*raw, stack[stack.len() / 3..stack.len() / 3 * 2]);
            assert!(crate::forward::Model::open(left.into(), &Device::Cpu).is_ok());
        }
    }
}

#[test]
fn experts_of_old_files_are_read_one_by_one_and_may_differ() {
    let tiny = tiny("llama");
    let dir = tempfile::tempdir().unwrap();
    let (mut made, mut plain) = tiny.tensors(GgmlDType::Q4K, false);
    let (others, rounded) = tiny.tensors(GgmlDType::Q6K, false);
    let position = |made: &[Made]| {
        let mut names = made.iter().map(|(info, _)| &info.name[..]);
        names
            .position(|it| it == "blk.1.ffn_down.2.weight")
            .unwrap()
    };
    let at = position(&made);
    made[at] = others[position(&others)].clone();
    let name = tiny.family.names().expert(1, 2, Projection::Down);
    let at = plain.iter().position(|it| it.0 == name).unwrap();
    plain[at] = rounded[at].clone();
    std::fs::write(dir.path().join("old.gguf"), file(&tiny.metadata(), &made)).unwrap();
    let left = Checkpoint::open(dir.path()).unwrap();
    testing::write(dir.path(), &tiny.config.to_string(), &plain);
    assert_same(&tiny, &left, &Checkpoint::open(dir.path()).unwrap());
}

#[test]
fn parts_are_one_model() {
    let tiny = tiny("qwen3moe");
    let (made, _) = tiny.tensors(GgmlDType::Q8_0, true);
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole.gguf");
    std::fs::write(&whole, file(&tiny.metadata(), &made)).unwrap();
    let whole = Checkpoint::open(&whole).unwrap();

    let parts = dir.path().join("parts");
    std::fs::create_dir(&parts).unwrap();
    let write = |number: u32, metadata: &Metadata, tensors: &[Made]| {
        let mut metadata = metadata.clone();
        metadata.set("split.no", number - 1);
        metadata.set("split.count", 3u32);
        metadata.set("split.tensors.count", made.len() as u32);
        let path = parts.join(format!("tiny-{number:05}-of-00003.gguf"));
        std::fs::write(path, file(&metadata, tensors)).unwrap();
    };
    write(1, &tiny.metadata(), &[]);
    write(2, &Metadata::default(), &made[..5]);
    write(3, &Metadata::default(), &made[5..]);
    for path in [&parts, &parts.join("tiny-00001-of-00003.gguf")] {
        let split = Checkpoint::open(path).unwrap();
        assert_same(&tiny, &whole, &split);
        assert_eq!(whole.fingerprint().unwrap(), split.fingerprint().unwrap());
        assert_eq!(
            (split.name(), split.files().count()),
            ("tiny".to_owned(), 3)
        );
    }
    write(3, &Metadata::default(), &made[6..]);
    let error = Checkpoint::open(&parts).unwrap_err().to_string();
    assert!(error.contains("split.tensors.count"), "{error}");
    write(3, &Metadata::default(), &made[4..]);
    let error = Checkpoint::open(&parts).unwrap_err().to_string();
    assert!(error.contains("split.tensors.count"), "{error}");
    std::fs::remove_file(parts.join("tiny-00002-of-00003.gguf")).unwrap();
    let error = Checkpoint::open(&parts).unwrap_err().to_string();
    assert!(error.contains("tiny-00002-of-00003.gguf"), "{error}");
}

#[test]
fn what_is_not_read_is_named() {
    let tiny = tiny("qwen3moe");
    let (made, _) = tiny.tensors(GgmlDType::F16, true);
    let refused = |metadata: &Metadata, tensors: &[Made]| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.gguf");
        std::fs::write(&path, file(metadata, tensors)).unwrap();
        let error = match Checkpoint::open(&path) {
            Err(error) => error,
            Ok(it) => crate::forward::Model::open(it.into(), &Device::Cpu)
                .err()
                .unwrap(),
        };
        assert!(error.hint().is_some());
        error
    };
    let metadata = tiny.metadata();
    let with = |name: &str, element, shape: &[usize], bytes| {
        let mut tensors = made.clone();
        tensors.push((Info::new(name, element, shape.to_vec()), vec![0; bytes]));
        tensors
    };
    let error = refused(
        &metadata,
        &with("rope_freqs.weight", GgmlDType::F32, &[32], 128),
    );
    assert!(matches!(error, Error::UnknownTensor { tensor, .. } if tensor == "rope_freqs.weight"));
    let mut tensors = made.clone();
    let at = tensors
        .iter()
        .position(|it| it.0.name.ends_with("attn_q.weight"));
    tensors[at.unwrap()] = with("blk.0.attn_q.weight", GgmlDType::Q8_1, &[256, 256], 73_728)
        .pop()
        .unwrap();
    let error = refused(&metadata, &tensors);
    assert!(matches!(error, Error::Dtype { found, .. } if found == "Q8_1"));
    let mut tensors = made.clone();
    tensors[0].0.shape.swap(0, 1);
    assert!(matches!(
        refused(&metadata, &tensors),
        Error::Config { .. } | Error::Shape { .. }
    ));
    tensors = made.clone();
    tensors.retain(|(info, _)| info.name != "blk.1.ffn_down_exps.weight");
    assert!(matches!(
        refused(&metadata, &tensors),
        Error::MissingTensor { .. }
    ));
    let mut other = metadata.clone();
    other.set(ARCHITECTURE, "gemma3");
    assert!(
        matches!(refused(&other, &made), Error::UnknownFamily { found, .. } if found == "gemma3")
    );

    let dir = tempfile::tempdir().unwrap();
    for name in ["a.gguf", "b.gguf"] {
        std::fs::write(dir.path().join(name), file(&metadata, &made)).unwrap();
    }
    let error = Checkpoint::open(dir.path()).unwrap_err();
    assert!(matches!(error, Error::SeveralModels { files, .. } if files == ["a.gguf", "b.gguf"]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn damaged_files_never_panic(
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        kept in any::<prop::sample::Index>(),
        cut in any::<bool>(),
    ) {
        let tiny = tiny("qwen3moe");
        let (made, _) = tiny.tensors(GgmlDType::Q8_0, true);
        let mut bytes = file(&tiny.metadata(), &made);
        let data: usize = made.iter().map(|(_, bytes)| bytes.len()).sum();
        let header = bytes.len() - data;
        for (index, value) in edits {
            let at = index.index(header);
            bytes[at] = value;
        }
        if cut {
            bytes.truncate(kept.index(bytes.len()));
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.gguf");
        std::fs::write(&path, bytes).unwrap();
        if let Ok(checkpoint) = Checkpoint::open(&path) {
            prop_assert_eq!(checkpoint.fingerprint().unwrap().len(), 64);
            for view in checkpoint.tensors() {
                let _ = view.read_f32(&mut vec![0.0; view.elements()]);
            }
            let _ = crate::forward::Model::open(checkpoint.into(), &Device::Cpu);
        }
    }
}
