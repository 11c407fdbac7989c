//! Laws 1 and 2 for files of llama.cpp: everything is there bit for bit, and
//! what is sliced equals slices.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use candle_core::quantized::GgmlDType;
use mistralrs_prune::plan::{LayerBudget, PlanOptions, ValidPlan};
use mistralrs_prune::surgery::{self, Layout, SurgeryOptions, UqffWeights};
use mistralrs_prune::Error;
use prune_tests::{demo, open, ragged, Golden};
use router_stats::family::{Pairs, Part, Projections, Role};
use router_stats::forward::Model;
use router_stats::gguf::{Header, Info};
use router_stats::progress::Silent;

use crate::cut::{decide, half};

/// Models that llama.cpp has.
fn models() -> impl Iterator<Item = Model> {
    let golden = Golden::all().map(|golden| golden.model);
    let known = |model: &Model| {
        let gguf = model.family().gguf();
        gguf.is_some_and(|gguf| (gguf.refuses)(model.topology()).is_none())
    };
    golden.filter(known).chain([open(&demo())])
}

/// A file, taken apart.
struct File {
    header: Header,
    bytes: Vec<u8>,
}

impl File {
    fn info(&self, name: &str) -> &Info {
        let mut tensors = self.header.tensors.iter();
        tensors
            .find(|tensor| tensor.name == name)
            .unwrap_or_else(|| panic!("no {name}"))
    }

    fn data(&self, name: &str) -> &[u8] {
        let info = self.info(name);
        let start = self.header.data + info.offset as usize;
        &self.bytes[start..start + info.bytes().unwrap()]
    }
}

/// Carries out `plan`, and reads the one file that is written.
fn write(model: &Model, plan: &ValidPlan, weights: UqffWeights) -> File {
    let place = tempfile::tempdir().unwrap();
    let out = place.path().join("out");
    let options = SurgeryOptions {
        layout: Layout::Gguf(weights),
        ..SurgeryOptions::default()
    };
    let (checkpoint, family) = (model.checkpoint(), model.family());
    let topology = model.topology();
    let summary =
        surgery::prune(checkpoint, family, topology, plan, &out, &options, &Silent).unwrap();
    let bytes = std::fs::read(only(&out)).unwrap();
    let header = Header::parse(&bytes).unwrap();
    assert_eq!(summary.tensors, header.tensors.len());
    assert_eq!(summary.bytes as usize, bytes.len() - header.data);
    File { header, bytes }
}

/// The file of weights in a directory.
fn only(out: &Path) -> PathBuf {
    let files = std::fs::read_dir(out).unwrap();
    let mut files = files.map(|entry| entry.unwrap().path());
    files
        .find(|path| path.extension().is_some_and(|it| it == "gguf"))
        .unwrap()
}

fn plan(model: &Model, options: &PlanOptions) -> ValidPlan {
    decide(model, &ragged(&[12, 5], 259, 1), options)
}

/// Numbers of a tensor of the original, as f32 if llama.cpp has them so, with
/// rows in its order.
fn expected(model: &Model, name: &str, stored: GgmlDType) -> Vec<u8> {
    let tensor = model.checkpoint().tensor(name).unwrap();
    let mut data = tensor.data().unwrap().to_vec();
    if stored == GgmlDType::F32 && tensor.element.to_string() == "BF16" {
        let halves = data.as_chunks::<2>().0.iter();
        data = halves.flat_map(|half| [0, 0, half[0], half[1]]).collect();
    }
    let turned = model.family().gguf().unwrap().pairs == Pairs::Adjacent
        && model.topology().attention.rotary.pairs == Pairs::Halves;
    if turned && (name.contains("q_proj") || name.contains("k_proj")) {
        let Projections::Grouped(query) = &model.topology().attention.projections else {
            panic!("not grouped");
        };
        let (width, row) = (query.head_dim, data.len() / tensor.shape[0]);
        let rows = 0..tensor.shape[0];
        let from = |at: usize| {
            let (head, place) = (at / width, at % width);
            head * width + place / 2 + place % 2 * (width / 2)
        };
        data = rows
            .flat_map(|at| data[from(at) * row..][..row].to_vec())
            .collect();
    }
    data
}

#[test]
fn everything_is_there_bit_for_bit() {
    for model in models() {
        let file = write(
            &model,
            &plan(&model, &PlanOptions::default()),
            UqffWeights::Float,
        );
        let (gguf, names) = (model.family().gguf().unwrap(), model.family().names());
        let mut stacks: BTreeMap<String, BTreeMap<usize, Vec<u8>>> = BTreeMap::new();
        let mut seen = 0;
        for tensor in model.topology().tensors(names) {
            let role = names.role(&tensor.name);
            if let Role::Block {
                layer,
                part: Part::Expert { expert, projection },
            } = role
            {
                let theirs = gguf.experts(layer, projection);
                let data = expected(&model, &tensor.name, file.info(&theirs).element);
                let shape = &file.info(&theirs).shape;
                assert_eq!(shape[1..], tensor.shape);
                stacks.entry(theirs).or_default().insert(expert, data);
                continue;
            }
            let theirs = gguf.theirs(names, &tensor.name).unwrap();
            let info = file.info(&theirs);
            let flat: Vec<_> = tensor.shape.iter().filter(|&&n| n > 1).collect();
            assert_eq!(
                info.shape.iter().filter(|&&n| n > 1).collect::<Vec<_>>(),
                flat
            );
            let expected = expected(&model, &tensor.name, info.element);
            assert!(
                file.data(&theirs) == expected,
                "{}: bits differ",
                tensor.name
            );
            seen += 1;
        }
        for (theirs, experts) in &stacks {
            let whole: Vec<u8> = experts.values().flatten().copied().collect();
            assert!(file.data(theirs) == whole, "{theirs}: bits differ");
        }
        assert_eq!(file.header.tensors.len(), seen + stacks.len());
        // Norms, biases and routers are what llama.cpp computes with in f32.
        for info in &file.header.tensors {
            let exact = info.shape.len() == 1 || info.name.ends_with("ffn_gate_inp.weight");
            assert!(!exact || info.element == GgmlDType::F32, "{}", info.name);
        }
    }
}

#[test]
fn what_is_sliced_equals_slices() {
    for model in models() {
        let (gguf, names) = (model.family().gguf().unwrap(), model.family().names());
        let options = PlanOptions {
            drop_layers: Some(LayerBudget::Count(1)),
            ..half()
        };
        let plan = plan(&model, &options);
        let keep = plan.keep();
        let whole = write(
            &model,
            &self::plan(&model, &PlanOptions::default()),
            UqffWeights::Float,
        );
        let cut = write(&model, &plan, UqffWeights::Float);
        assert_eq!(keep.layers.len(), model.topology().layers() - 1);
        for info in &cut.header.tensors {
            let rest = info
                .name
                .strip_prefix("blk.")
                .and_then(|it| it.split_once('.'));
            let Some((index, inside)) = rest else {
                assert_eq!(cut.data(&info.name), whole.data(&info.name));
                continue;
            };
            let layer = keep.layers[index.parse::<usize>().unwrap()];
            let original = format!("blk.{layer}.{inside}");
            let sliced = inside.contains("_exps.")
                || inside == "ffn_gate_inp.weight"
                || inside.starts_with("exp_probs_b");
            if !sliced || model.topology().moe(layer).is_none() {
                assert_eq!(cut.data(&info.name), whole.data(&original));
                continue;
            }
            let rows = whole.info(&original).shape[0];
            let data = whole.data(&original);
            let row = data.len() / rows;
            let kept = keep.experts[layer].iter();
            let slices: Vec<u8> = kept
                .flat_map(|&expert| data[expert * row..][..row].to_vec())
                .collect();
            assert!(cut.data(&info.name) == slices, "{}", info.name);
        }
        let count = |name: &str| cut.header.metadata.count(&gguf.key(name)).unwrap();
        assert_eq!(count("block_count"), keep.layers.len());
        let experts = keep.uniform_experts(model.topology()).unwrap();
        assert_eq!(count("expert_count"), experts);
        assert_eq!(names.layers, model.family().names().layers);
    }
}

#[test]
fn matrices_are_quantised_as_asked_and_nothing_else() {
    let model = open(&demo());
    let plan = plan(&model, &PlanOptions::default());
    let floats = write(&model, &plan, UqffWeights::Float);
    let file = write(&model, &plan, UqffWeights::Q8_0);
    assert_eq!(file.header.metadata.count("general.file_type"), Ok(7));
    for info in &file.header.tensors {
        let exact = info.shape.len() == 1 || info.name.ends_with("ffn_gate_inp.weight");
        let expected = if exact {
            GgmlDType::F32
        } else {
            GgmlDType::Q8_0
        };
        assert_eq!(info.element, expected, "{}", info.name);
        if exact {
            assert_eq!(file.data(&info.name), floats.data(&info.name));
        }
    }
    assert!(file.bytes.len() * 10 < floats.bytes.len() * 7);
}

/// Writes `file` and opens it.
fn opened(file: &File, place: &Path) -> Model {
    let path = place.join("source.gguf");
    std::fs::write(&path, &file.bytes).unwrap();
    open(&path)
}

#[test]
fn a_file_of_everything_in_a_file_is_that_file() {
    for (model, weights) in models()
        .map(|model| (model, UqffWeights::Float))
        .chain([(open(&demo()), UqffWeights::Q8_0)])
    {
        let everything = plan(&model, &PlanOptions::default());
        let mut file = write(&model, &everything, weights);
        let place = tempfile::tempdir().unwrap();
        // Keys that nobody knows survive.
        file.header.metadata.set("zebra", "unknown");
        let data = file.bytes.split_off(file.header.data);
        let (metadata, tensors) = (&file.header.metadata, &file.header.tensors);
        file.bytes = Header::encode(metadata, tensors, file.header.alignment);
        file.header.data = file.bytes.len();
        file.bytes.extend(data);
        let source = opened(&file, place.path());
        let everything = plan(&source, &PlanOptions::default());
        let again = write(&source, &everything, UqffWeights::Float);
        assert_eq!(again.header.metadata, file.header.metadata);
        assert!(again.bytes == file.bytes, "{}", model.family().model_type());
    }
}

#[test]
fn blocks_are_sliced_as_they_are() {
    for (model, weights) in models()
        .map(|model| (model, UqffWeights::Float))
        .chain([(open(&demo()), UqffWeights::Q8_0)])
    {
        let options = PlanOptions {
            drop_layers: Some(LayerBudget::Count(1)),
            ..half()
        };
        // Of a plan for the same model, both ways are one.
        let chosen = plan(&model, &options);
        let direct = write(&model, &chosen, weights);
        let whole = write(&model, &plan(&model, &PlanOptions::default()), weights);
        let place = tempfile::tempdir().unwrap();
        let source = opened(&whole, place.path());
        let sliced = place.path().join("sliced");
        let cut = surgery::prune(
            source.checkpoint(),
            source.family(),
            source.topology(),
            &same(&chosen, &source),
            &sliced,
            &SurgeryOptions {
                layout: Layout::Gguf(UqffWeights::Float),
                ..SurgeryOptions::default()
            },
            &Silent,
        );
        cut.unwrap();
        let bytes = std::fs::read(only(&sliced)).unwrap();
        let header = Header::parse(&bytes).unwrap();
        let sliced = File { header, bytes };
        assert_eq!(sliced.header.tensors.len(), direct.header.tensors.len());
        for info in &direct.header.tensors {
            assert_eq!(sliced.info(&info.name).shape, info.shape, "{}", info.name);
            assert!(
                sliced.data(&info.name) == direct.data(&info.name),
                "{}",
                info.name
            );
        }
        let keys = |file: &File| {
            let mut metadata = file.header.metadata.clone();
            metadata.remove("general.name");
            metadata
        };
        assert_eq!(
            keys(&sliced),
            keys(&direct),
            "{}",
            model.family().model_type()
        );
    }
}

/// `plan` for the same model in another file.
fn same(plan: &ValidPlan, source: &Model) -> ValidPlan {
    let mut plan = plan.plan().clone();
    plan.model.name = source.checkpoint().name();
    plan.model.fingerprint = source.checkpoint().fingerprint().unwrap();
    ValidPlan::new(
        plan,
        source.checkpoint(),
        source.family(),
        source.topology(),
    )
    .unwrap()
}

#[test]
fn what_llama_cpp_cannot_say_is_refused_by_name() {
    let mut refused = 0;
    for golden in Golden::all() {
        let model = &golden.model;
        if model.family().gguf().is_some() {
            continue;
        }
        let place = tempfile::tempdir().unwrap();
        let out = place.path().join("out");
        let layout = Layout::Gguf(UqffWeights::Float);
        let (checkpoint, family) = (model.checkpoint(), model.family());
        let topology = model.topology();
        let error = surgery::convert(checkpoint, family, topology, layout, &out, &Silent);
        let Err(Error::NotInGguf { reason, .. }) = error else {
            panic!("{}: {error:?}", golden.name);
        };
        assert!(reason.contains(family.architectures()[0]), "{reason}");
        assert!(!out.exists());
        refused += 1;
    }
    assert!(refused > 0);
}
