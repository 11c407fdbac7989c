//! Tiny checkpoints for tests, made without the code under test.
//!
//! A tensor's bytes are drawn from its original name, so that the checkpoint
//! that a cut must leave can be made directly and compared bit for bit.

use std::collections::BTreeMap;
use std::path::Path;

use rand_chacha::rand_core::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use router_stats::checkpoint::Checkpoint;
use router_stats::family::{detect, Config, Family, Keep, MlpSpec, Names, Projection, Topology};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::{json, Value};

/// How a checkpoint's experts are stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Stored {
    PerExpert,
    /// [E, H, 2I] and [E, I, H], as mistral.rs reads them.
    Engine,
    /// [E, 2I, H] and [E, H, I].
    Linear,
}

/// Name → dtype, shape, bytes.
pub(super) type Tensors = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

/// A family with its configuration, without weights.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) config: Value,
    pub(super) family: &'static dyn Family,
    pub(super) topology: Topology,
    pub(super) dtype: Dtype,
}

/// Four layers of six experts, of which the second is dense; unknown keys.
pub(super) fn qwen3_moe() -> Model {
    Model::new(json!({
        "architectures": ["Qwen3MoeForCausalLM"],
        "zebra": {"unknown": [1, 2.5, null]},
        "hidden_size": 8,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 4,
        "intermediate_size": 10,
        "moe_intermediate_size": 5,
        "num_experts": 6,
        "num_experts_per_tok": 2,
        "mlp_only_layers": [1],
        "rms_norm_eps": 1e-6,
        "vocab_size": 11,
        "apple": "unknown too"
    }))
}

/// Three layers of four experts whose width makes H = 2I.
pub(super) fn mixtral() -> Model {
    Model::new(json!({
        "architectures": ["MixtralForCausalLM"],
        "hidden_size": 8,
        "intermediate_size": 4,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_local_experts": 4,
        "num_experts_per_tok": 2,
        "vocab_size": 11,
        "sliding_window": null
    }))
}

impl Model {
    fn new(config: Value) -> Self {
        let parsed = Config::new("config.json", config.clone()).unwrap();
        let family = detect(&parsed).unwrap();
        Self {
            config,
            family,
            topology: family.topology(&parsed).unwrap(),
            dtype: Dtype::BF16,
        }
    }

    pub(super) fn names(&self) -> &'static Names {
        self.family.names()
    }

    pub(super) fn all(&self) -> Keep {
        Keep::all(&self.topology)
    }

    /// A keep that drops layer 1 and some experts.
    pub(super) fn some(&self) -> Keep {
        let mut keep = self.all();
        keep.layers.remove(1);
        for (layer, experts) in keep
            .experts
            .iter_mut()
            .enumerate()
            .filter(|(_, experts)| !experts.is_empty())
        {
            let gone = layer % experts.len();
            experts.remove(gone);
        }
        keep
    }

    /// All tensors that `keep` leaves.
    pub(super) fn tensors(&self, keep: &Keep, stored: Stored) -> Tensors {
        let (names, hidden, vocab) = (self.names(), self.topology.hidden, self.topology.vocab);
        let mut tensors = Tensors::new();
        for (name, shape) in [
            (names.embedding, vec![vocab, hidden]),
            (names.head, vec![vocab, hidden]),
            (names.final_norm, vec![hidden]),
        ] {
            tensors.insert(name.to_owned(), self.drawn(name, shape));
        }
        let mut unknown = |name: &str, dtype: Dtype, shape: Vec<usize>| {
            let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
            tensors.insert(name.to_owned(), (dtype, shape, draw(name, bytes)));
        };
        unknown("model.buffers.bytes", Dtype::U8, vec![3]);
        unknown("model.buffers.scalar", Dtype::F32, vec![]);
        unknown("model.buffers.none", Dtype::I64, vec![0, 4]);
        for (index, &layer) in keep.layers.iter().enumerate() {
            self.block(keep, stored, layer, index, &mut tensors);
        }
        tensors
    }

    fn block(
        &self,
        keep: &Keep,
        stored: Stored,
        layer: usize,
        index: usize,
        tensors: &mut Tensors,
    ) {
        let (names, hidden) = (self.names(), self.topology.hidden);
        let mut shared = |name: &str, shape: Vec<usize>| {
            tensors.insert(
                names.in_block(index, name),
                self.drawn(&names.in_block(layer, name), shape),
            );
        };
        shared(names.attention_norm, vec![hidden]);
        shared(names.mlp_norm, vec![hidden]);
        shared(
            &format!("{}q_proj.weight", names.attention),
            vec![8, hidden],
        );
        let moe = match &self.topology.mlps[layer] {
            MlpSpec::Dense { intermediate } => {
                return shared(
                    &format!("{}{}", names.dense, names.gate),
                    vec![*intermediate, hidden],
                );
            }
            MlpSpec::Moe(moe) => moe,
        };
        let kept = &keep.experts[layer];
        let (_, _, router) = self.drawn(
            &names.in_block(layer, names.router),
            vec![moe.experts, hidden],
        );
        let row = router.len() / moe.experts;
        let rows = kept
            .iter()
            .flat_map(|&e| router[e * row..(e + 1) * row].to_vec())
            .collect();
        tensors.insert(
            names.in_block(index, names.router),
            (self.dtype, vec![kept.len(), hidden], rows),
        );

        let width = moe.intermediate;
        let shape = |projection| {
            if projection == Projection::Down {
                [hidden, width]
            } else {
                [width, hidden]
            }
        };
        let matrix = |expert, projection| {
            self.drawn(
                &names.expert(layer, expert, projection),
                shape(projection).to_vec(),
            )
            .2
        };
        if stored == Stored::PerExpert {
            for (new, &expert) in kept.iter().enumerate() {
                for projection in Projection::ALL {
                    let value = (
                        self.dtype,
                        shape(projection).to_vec(),
                        matrix(expert, projection),
                    );
                    tensors.insert(names.expert(index, new, projection), value);
                }
            }
            return;
        }
        let (mut gate_up, mut down) = (Vec::new(), Vec::new());
        for &expert in kept {
            let both = [
                matrix(expert, Projection::Gate),
                matrix(expert, Projection::Up),
            ]
            .concat();
            let back = matrix(expert, Projection::Down);
            if stored == Stored::Linear {
                gate_up.extend(both);
                down.extend(back);
            } else {
                gate_up.extend(self.transposed(&both, hidden));
                down.extend(self.transposed(&back, width));
            }
        }
        let (gate_up_shape, down_shape) = match stored {
            Stored::Linear => ([kept.len(), 2 * width, hidden], [kept.len(), hidden, width]),
            _ => ([kept.len(), hidden, 2 * width], [kept.len(), width, hidden]),
        };
        let mut put = |name, shape: [usize; 3], bytes| {
            tensors.insert(
                names.in_block(index, name),
                (self.dtype, shape.to_vec(), bytes),
            );
        };
        put(names.stacked_gate_up, gate_up_shape, gate_up);
        put(names.stacked_down, down_shape, down);
    }

    fn drawn(&self, name: &str, shape: Vec<usize>) -> (Dtype, Vec<usize>, Vec<u8>) {
        let bytes = shape.iter().product::<usize>() * self.dtype.bitsize() / 8;
        (self.dtype, shape, draw(name, bytes))
    }

    fn transposed(&self, matrix: &[u8], columns: usize) -> Vec<u8> {
        let elements: Vec<_> = matrix.chunks(self.dtype.bitsize() / 8).collect();
        (0..columns)
            .flat_map(|c| elements.iter().skip(c).step_by(columns))
            .flat_map(|e| e.to_vec())
            .collect()
    }

    /// Writes a checkpoint of `tensors` in `shards` files and opens it.
    pub(super) fn store(&self, tensors: &Tensors, shards: usize, dir: &Path) -> Checkpoint {
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join("config.json"), self.config.to_string()).unwrap();
        let mut files = vec![Vec::new(); shards];
        let mut weight_map = BTreeMap::new();
        for (i, (name, (dtype, shape, bytes))) in tensors.iter().enumerate() {
            files[i % shards].push((name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
            weight_map.insert(
                name,
                format!("model-{:05}-of-{shards:05}.safetensors", i % shards + 1),
            );
        }
        for (i, file) in files.into_iter().enumerate() {
            let name = match shards {
                1 => "model.safetensors".to_owned(),
                _ => format!("model-{:05}-of-{shards:05}.safetensors", i + 1),
            };
            safetensors::serialize_to_file(file, None, &dir.join(name)).unwrap();
        }
        if shards > 1 {
            let index = json!({ "metadata": {}, "weight_map": weight_map });
            std::fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
        }
        Checkpoint::open(dir).unwrap()
    }
}

fn draw(name: &str, bytes: usize) -> Vec<u8> {
    let mut seed = [0; 32];
    for (i, byte) in name.bytes().enumerate() {
        seed[i % 32] = byte.wrapping_add(31u8.wrapping_mul(seed[i % 32]));
    }
    let mut drawn = vec![0; bytes];
    ChaCha8Rng::from_seed(seed).fill_bytes(&mut drawn);
    drawn
}

/// All tensors of a directory, read by the safetensors crate; every one must be
/// where the index says.
pub(super) fn read(dir: &Path) -> Tensors {
    let index = std::fs::read(dir.join("model.safetensors.index.json")).ok();
    let index: Option<Value> = index.map(|bytes| serde_json::from_slice(&bytes).unwrap());
    let mut tensors = Tensors::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let file = entry.unwrap().file_name().into_string().unwrap();
        if !file.ends_with(".safetensors") {
            continue;
        }
        let bytes = std::fs::read(dir.join(&file)).unwrap();
        for (name, view) in SafeTensors::deserialize(&bytes).unwrap().iter() {
            if let Some(index) = &index {
                assert_eq!(index["weight_map"][name], *file, "{name}");
            }
            let value = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
            assert!(
                tensors.insert(name.to_owned(), value).is_none(),
                "{name} is in two files"
            );
        }
    }
    if let Some(index) = index {
        let total: usize = tensors.values().map(|(_, _, bytes)| bytes.len()).sum();
        assert_eq!(index["metadata"]["total_size"], total);
        assert_eq!(
            index["weight_map"].as_object().unwrap().len(),
            tensors.len()
        );
    }
    tensors
}
