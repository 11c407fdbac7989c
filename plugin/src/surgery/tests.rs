//! Checkpoints in, checkpoints out.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use router_stats::family::Projection;
use router_stats::progress::{Silent, Update};
use router_stats::Error as StatsError;
use safetensors::Dtype;
use serde_json::Value;

use super::fixture::{mixtral, qwen3_moe, read, Model, Stored, Tensors};
use super::*;
use crate::plan::{Asked, Constraints, LayerPlan, Method, Plan, PlannedFrom, PlannedModel, Size};
use crate::Error;

/// Cuts `source` and reads what was written.
fn cut(
    model: &Model,
    source: &Tensors,
    shards: usize,
    keep: &Keep,
    options: &SurgeryOptions,
) -> Result<Tensors> {
    let place = tempfile::tempdir().unwrap();
    let checkpoint = model.store(source, shards, &place.path().join("source"));
    let out = place.path().join("out");
    let cut = Cut {
        checkpoint: &checkpoint,
        family: model.family,
        topology: &model.topology,
        keep,
        layout: options.layout,
    };
    let summary = write_directory(&cut, &out, options, &Silent, |_| Ok(()));
    if summary.is_err() {
        let left: Vec<_> = fs::read_dir(place.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        assert_eq!(left, ["source"], "a failure leaves nothing behind");
    }
    let summary = summary?;
    let tensors = read(&out);
    assert_eq!(summary.tensors, tensors.len());
    assert_eq!(
        summary.bytes,
        tensors
            .values()
            .map(|(_, _, bytes)| bytes.len() as u64)
            .sum::<u64>()
    );
    let files = fs::read_dir(&out).unwrap().filter(|entry| {
        entry.as_ref().is_ok_and(|e| {
            e.path()
                .extension()
                .is_some_and(|ending| ending == "safetensors")
        })
    });
    assert_eq!(summary.shards, files.count());
    Ok(tensors)
}

fn options(layout: Layout, max_shard_bytes: u64) -> SurgeryOptions {
    SurgeryOptions {
        layout,
        max_shard_bytes,
        ..SurgeryOptions::default()
    }
}

/// What `layout` means for a family.
fn stored(layout: Layout, model: &Model) -> Stored {
    let engine = model.family.serving(&model.topology).layout();
    if layout == Layout::Engine && engine.is_some_and(|engine| engine.stacked) {
        Stored::Engine
    } else {
        Stored::PerExpert
    }
}

#[test]
fn every_layout_of_every_family_is_cut_bit_for_bit() {
    for mut model in [qwen3_moe(), mixtral()] {
        for dtype in [Dtype::BF16, Dtype::F16, Dtype::F32] {
            model.dtype = dtype;
            for source in [Stored::PerExpert, Stored::Engine, Stored::Linear] {
                for layout in [Layout::Hf, Layout::Engine] {
                    for keep in [model.all(), model.some()] {
                        let tensors = model.tensors(&model.all(), source);
                        let written =
                            cut(&model, &tensors, 1, &keep, &options(layout, 5_000_000_000))
                                .unwrap();
                        let expected = model.tensors(&keep, stored(layout, &model));
                        assert!(
                            written == expected,
                            "{} {dtype} {source:?} {layout} {keep:?}",
                            model.family.model_type()
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn shards_in_and_out_do_not_change_tensors() {
    let model = qwen3_moe();
    for (source, layout) in [
        (Stored::PerExpert, Layout::Engine),
        (Stored::Engine, Layout::Hf),
    ] {
        let tensors = model.tensors(&model.all(), source);
        for (shards, max_bytes) in [(3, 5_000_000_000), (1, 500), (3, 0)] {
            let written = cut(
                &model,
                &tensors,
                shards,
                &model.some(),
                &options(layout, max_bytes),
            )
            .unwrap();
            assert!(
                written == model.tensors(&model.some(), stored(layout, &model)),
                "{source:?} {layout} {shards} {max_bytes}"
            );
        }
    }
}

#[test]
fn a_round_trip_through_both_layouts_changes_nothing() {
    let model = qwen3_moe();
    let stacked = model.tensors(&model.all(), Stored::Engine);
    let per_expert = cut(
        &model,
        &stacked,
        1,
        &model.all(),
        &options(Layout::Hf, 1 << 30),
    )
    .unwrap();
    let again = cut(
        &model,
        &per_expert,
        1,
        &model.all(),
        &options(Layout::Engine, 1 << 30),
    )
    .unwrap();
    assert!(again == stacked);
}

#[test]
fn tensors_that_no_part_accounts_for_are_refused() {
    let model = qwen3_moe();
    let names = model.names();
    for (name, expected) in [
        ("model.layers.4.eh_proj.weight", "one of the 4 blocks"),
        (
            "model.layers.2.mlp.gate.bias",
            "a weight of the router or of one expert",
        ),
        (
            &*names.expert(1, 0, Projection::Up),
            "no experts in layer 1, which is dense",
        ),
        (
            &*names.in_block(1, names.router),
            "no experts in layer 1, which is dense",
        ),
        (&*names.expert(0, 6, Projection::Up), "one of the 6 experts"),
        (
            &*names.in_block(0, names.stacked_down),
            "the experts of a layer in one layout",
        ),
    ] {
        let mut tensors = model.tensors(&model.all(), Stored::PerExpert);
        tensors.insert(name.to_owned(), (Dtype::BF16, vec![1], vec![0, 0]));
        let error = cut(
            &model,
            &tensors,
            1,
            &model.some(),
            &options(Layout::Hf, 1 << 30),
        )
        .unwrap_err();
        assert!(
            error
                .to_string()
                .contains(&format!("tensor `{name}`: expected {expected}")),
            "{error}"
        );
        assert!(error.hint().is_some());
    }
}

#[test]
fn a_missing_router_and_a_missing_expert_are_named() {
    let model = mixtral();
    let names = model.names();
    for name in [
        names.in_block(2, names.router),
        names.expert(0, 1, Projection::Down),
    ] {
        let mut tensors = model.tensors(&model.all(), Stored::PerExpert);
        tensors.remove(&name);
        let error = cut(
            &model,
            &tensors,
            1,
            &model.all(),
            &options(Layout::Hf, 1 << 30),
        )
        .unwrap_err();
        let missing = matches!(&error, Error::Stats(StatsError::MissingTensor { tensor, .. }) if *tensor == name);
        assert!(missing, "{error}");
    }
}

/// Counts what it is told and asks to stop once `stop_at` bytes are done.
struct Watch {
    stop_at: u64,
    done: AtomicU64,
    total: AtomicU64,
}

impl Watch {
    fn new(stop_at: u64) -> Self {
        Self {
            stop_at,
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
        }
    }
}

impl Progress for Watch {
    fn update(&self, update: &Update<'_>) {
        assert!(update.done >= self.done.swap(update.done, Ordering::Relaxed));
        self.total.store(update.total, Ordering::Relaxed);
    }

    fn cancelled(&self) -> bool {
        self.done.load(Ordering::Relaxed) >= self.stop_at
    }
}

/// A plan that carries out [`Model::some`].
fn plan(model: &Model, checkpoint: &Checkpoint) -> ValidPlan {
    let keep = model.some();
    let layers = model
        .topology
        .experts()
        .into_iter()
        .enumerate()
        .map(|(layer, experts)| LayerPlan {
            layer,
            dropped: !keep.layers.contains(&layer),
            skipped: keep.skip(layer),
            block_influence: 0.25,
            kept: keep.experts[layer].clone(),
            removed: (0..experts)
                .filter(|expert| !keep.experts[layer].contains(expert))
                .collect(),
            scores: vec![0.5; experts],
        });
    let size = Size {
        parameters: 0,
        active_parameters: 0,
        bytes: 0,
        layers: 0,
        experts_per_layer: vec![],
    };
    let plan = Plan {
        version: crate::plan::VERSION,
        created_by: "test".into(),
        model: PlannedModel {
            name: "Tiny".into(),
            fingerprint: checkpoint.fingerprint().unwrap(),
            family: model.family.model_type().into(),
        },
        stats: PlannedFrom {
            hash: String::new(),
            corpus: String::new(),
            tokens: 10,
            domains: vec![],
        },
        method: Method {
            criterion: "reap".into(),
            allocator: "uniform".into(),
            search: None,
            layer_criterion: "block-influence".into(),
            seed: 0,
            asked: Asked::default(),
            constraints: Constraints::default(),
        },
        before: size.clone(),
        after: size,
        weights: None,
        layers: layers.collect(),
    };
    ValidPlan::new(plan, checkpoint, model.family, &model.topology).unwrap()
}

#[test]
fn a_pruned_directory_has_all_that_a_model_needs() {
    let model = qwen3_moe();
    let place = tempfile::tempdir().unwrap();
    let (source, out) = (
        place.path().join("source"),
        place.path().join("nested").join("out"),
    );
    let checkpoint = model.store(&model.tensors(&model.all(), Stored::PerExpert), 2, &source);
    for (name, content) in [
        ("tokenizer.json", "{}"),
        ("README.md", "---\nlicense: mit\n---\n# Tiny\n"),
        ("code.py", ""),
        ("NOTICE", "n"),
    ] {
        fs::write(source.join(name), content).unwrap();
    }
    let plan = plan(&model, &checkpoint);
    let watch = Watch::new(u64::MAX);
    let summary = prune(
        &checkpoint,
        model.family,
        &model.topology,
        &plan,
        &out,
        &options(Layout::Engine, 1 << 30),
        &watch,
    );
    let summary = summary.unwrap();

    let mut files: Vec<_> = fs::read_dir(&out)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(
        files,
        [
            "NOTICE",
            "README.md",
            "config.json",
            "model.safetensors",
            PLAN_FILE,
            "tokenizer.json"
        ]
    );
    assert_eq!(
        crate::plan::read(out.join(PLAN_FILE)).unwrap(),
        *plan.plan()
    );
    assert_eq!(watch.done.into_inner(), summary.bytes);
    assert_eq!(watch.total.into_inner(), summary.bytes);

    let card = fs::read_to_string(out.join("README.md")).unwrap();
    assert!(
        card.starts_with("---\nlicense: mit\n---\n# Tiny\n\n## Pruned with mistralrs-prune\n"),
        "{card}"
    );
    let config = fs::read_to_string(out.join("config.json")).unwrap();
    assert!(config.starts_with("{\n  \"architectures\""), "{config}");
    let config: Value = serde_json::from_str(&config).unwrap();
    assert_eq!(
        (&config["num_experts"], &config["num_hidden_layers"]),
        (&5.into(), &3.into())
    );
    let keys = |value: &Value| {
        value
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    };
    assert_eq!(
        keys(&config)[..keys(&model.config).len()],
        keys(&model.config)
    );
    assert_eq!(config["zebra"], model.config["zebra"]);

    // The result is a checkpoint that can be pruned again.
    let checkpoint = Checkpoint::open(&out).unwrap();
    let topology = model.family.topology(checkpoint.config()).unwrap();
    assert_eq!(topology.experts(), [5, 5, 5]);
    let keep = Keep::all(&topology);
    let cut = Cut {
        checkpoint: &checkpoint,
        family: model.family,
        topology: &topology,
        keep: &keep,
        layout: Layout::Hf,
    };
    let again = place.path().join("again");
    write_directory(&cut, &again, &options(Layout::Hf, 1 << 30), &Silent, |_| {
        Ok(())
    })
    .unwrap();
    assert!(read(&again) == model.tensors(&model.some(), Stored::PerExpert));
}

#[test]
fn an_interruption_leaves_what_was_there() {
    let model = mixtral();
    let place = tempfile::tempdir().unwrap();
    let checkpoint = model.store(
        &model.tensors(&model.all(), Stored::PerExpert),
        1,
        &place.path().join("source"),
    );
    let plan = plan(&model, &checkpoint);
    let out = place.path().join("out");
    let prune = |force, progress: &dyn Progress| {
        let options = SurgeryOptions {
            force,
            ..options(Layout::Hf, 1000)
        };
        prune(
            &checkpoint,
            model.family,
            &model.topology,
            &plan,
            &out,
            &options,
            progress,
        )
    };
    let listing = || {
        let mut names: Vec<_> = fs::read_dir(place.path())
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    let interrupted = |result| matches!(result, Err(Error::Stats(StatsError::Interrupted)));
    assert!(interrupted(prune(false, &Watch::new(1000))));
    assert_eq!(listing(), ["source"]);

    prune(false, &Silent).unwrap();
    let before = read(&out);
    assert!(matches!(
        prune(false, &Silent),
        Err(Error::OutputExists { .. })
    ));
    assert!(interrupted(prune(true, &Watch::new(1000))));
    assert!(read(&out) == before);
    prune(true, &Silent).unwrap();
    assert!(read(&out) == before);
    assert_eq!(listing(), ["out", "source"]);
}
