//! Law 4: our forward pass is the engine's (f32, ≤ 1e-4).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use mistralrs_core::{
    AdapterPaths, DefaultSchedulerMethod, DeviceMapSetting, IsqType, Loader, LocalModelPaths,
    MistralRs, MistralRsBuilder, ModelDType, ModelPaths, MultimodalLoaderBuilder,
    MultimodalSpecificConfig, NormalLoaderBuilder, NormalRequest, NormalSpecificConfig, Pipeline,
    Request, RequestMessage, Response, SamplingParams, SchedulerConfig, TokenSource,
};
use mistralrs_prune::surgery::Layout;
use prune_tests::{at_most, demo, logits, open, sequences, worst, Golden};
use router_stats::calibration::Sequences;
use router_stats::family::Serving;
use router_stats::forward::Model;

use crate::cut::{
    decide, fewer, golden_plan, half, layouts, with_top_k, without_experts, writable, Cut,
};

/// The engine with a checkpoint in its own layout, in f32 on the CPU.
pub(crate) struct Engine {
    runtime: tokio::runtime::Runtime,
    engine: Arc<MistralRs>,
}

impl Engine {
    fn load(directory: &Path, images: bool) -> Self {
        Self::start(|| {
            let paths: Box<dyn ModelPaths> = Box::new(paths(directory));
            loader(images).load_model_from_path(
                &paths,
                &ModelDType::F32,
                &Device::Cpu,
                true,
                DeviceMapSetting::dummy(),
                None,
                None,
            )
        })
    }

    /// Loads a checkpoint and has the engine quantise it.
    pub(crate) fn load_quantized(directory: &Path, to: IsqType) -> Self {
        let load = move || {
            let paths: Box<dyn ModelPaths> = Box::new(paths(directory));
            let (dtype, device) = (ModelDType::F32, Device::Cpu);
            let mapper = DeviceMapSetting::dummy();
            loader(false)
                .load_model_from_path(&paths, &dtype, &device, true, mapper, Some(to), None)
                .unwrap()
        };
        // What it quantises to, it remembers for the next model of the thread.
        Self::start(|| std::thread::scope(|scope| scope.spawn(load).join()))
    }

    /// Has the engine write a directory as UQFF: `name-0.uqff` beside `file`,
    /// which is `name.uqff`.
    pub(crate) fn write_uqff(directory: &Path, to: Option<IsqType>, file: &Path) {
        let config = NormalSpecificConfig {
            write_uqff: Some(file.to_path_buf()),
            ..NormalSpecificConfig::default()
        };
        let write = move || {
            let id = Some("law".to_owned());
            let loader = NormalLoaderBuilder::new(config, None, None, id, false, None)
                .build(None)
                .unwrap();
            let paths: Box<dyn ModelPaths> = Box::new(paths(directory));
            let (dtype, device) = (ModelDType::F32, Device::Cpu);
            let mapper = DeviceMapSetting::dummy();
            loader
                .load_model_from_path(&paths, &dtype, &device, true, mapper, to, None)
                .unwrap();
        };
        // What it quantises to, it remembers for the next model of the thread.
        std::thread::scope(|scope| scope.spawn(write).join().unwrap());
    }

    /// Loads a directory that holds UQFF, of which `file` is the first.
    pub(crate) fn load_uqff(directory: &Path, file: &str) -> Self {
        let config = NormalSpecificConfig {
            from_uqff: Some(vec![file.into()]),
            ..NormalSpecificConfig::default()
        };
        let id = Some(directory.display().to_string());
        let loader = NormalLoaderBuilder::new(config, None, None, id, false, None)
            .build(None)
            .unwrap();
        Self::start(|| {
            loader.load_model_from_hf(
                None,
                TokenSource::None,
                &ModelDType::F32,
                &Device::Cpu,
                true,
                DeviceMapSetting::dummy(),
                None,
                None,
            )
        })
    }

    fn start<E: std::fmt::Debug>(
        load: impl FnOnce() -> Result<Arc<tokio::sync::Mutex<dyn Pipeline + Send + Sync>>, E>,
    ) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        let engine = runtime.block_on(async {
            let pipeline = tokio::task::block_in_place(load).unwrap();
            let scheduler = SchedulerConfig::DefaultScheduler {
                method: DefaultSchedulerMethod::Fixed(1.try_into().unwrap()),
            };
            MistralRsBuilder::new(pipeline, scheduler, false, None)
                .with_no_prefix_cache(true)
                .build()
                .await
        });
        Self { runtime, engine }
    }

    /// Raw logits [N, V] of one sequence.
    pub(crate) fn logits(&self, tokens: &[u32]) -> Tensor {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
        let mut request = NormalRequest::new_simple(
            RequestMessage::CompletionTokens(tokens.to_vec()),
            SamplingParams::deterministic(),
            sender,
            self.engine.next_request_id(),
            None,
            None,
        );
        request.return_raw_logits = true;
        let queue = self.engine.get_sender(None).unwrap();
        let response = self.runtime.block_on(async {
            queue
                .send(Request::Normal(Box::new(request)))
                .await
                .unwrap();
            receiver.recv().await.unwrap()
        });
        match response {
            Response::Raw { logits_chunks, .. } => logits_chunks[0].clone(),
            Response::ModelError(reason, _) => panic!("{reason}"),
            Response::InternalError(error) | Response::ValidationError(error) => {
                panic!("{error}")
            }
            _ => panic!("another answer than raw logits"),
        }
    }
}

fn loader(images: bool) -> Box<dyn Loader> {
    let id = Some("law".to_owned());
    if images {
        let config = MultimodalSpecificConfig::default();
        return MultimodalLoaderBuilder::new(config, None, None, id, None).build(None);
    }
    NormalLoaderBuilder::new(NormalSpecificConfig::default(), None, None, id, false, None)
        .build(None)
        .unwrap()
}

fn paths(directory: &Path) -> LocalModelPaths<PathBuf> {
    let mut weights: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|suffix| suffix == "safetensors")
        })
        .collect();
    weights.sort();
    LocalModelPaths {
        tokenizer_filename: directory.join("tokenizer.json"),
        config_filename: directory.join("config.json"),
        template_filename: Some(directory.join("tokenizer_config.json")),
        filenames: weights,
        adapter_paths: AdapterPaths::None,
        gen_conf: None,
        preprocessor_config: None,
        processor_config: None,
        chat_template_json_filename: None,
    }
}

/// Compares `cut` in the engine with `ours`, logits of all tokens [N, V].
fn compare(cut: &Cut, sequences: &Sequences, ours: &Tensor, what: &str) {
    for (index, difference) in differences(cut, sequences, ours).into_iter().enumerate() {
        let what = format!("{what} in the engine, sequence {index}");
        at_most(1e-4, difference, &what);
    }
}

/// How far the engine's logits of each sequence are from `ours` [N, V].
fn differences(cut: &Cut, sequences: &Sequences, ours: &Tensor) -> Vec<f64> {
    let serving = cut.model.family().serving(cut.model.topology());
    let engine = Engine::load(&cut.directory(), matches!(serving, Serving::Multimodal(_)));
    let of_sequence = |index| {
        let tokens = sequences.sequence(index);
        let ours = ours.narrow(0, sequences.starts[index], tokens.len());
        worst(&engine.logits(tokens), &ours.unwrap())
    };
    (0..sequences.len()).map(of_sequence).collect()
}

/// The golden checkpoints that the engine takes.
fn served() -> impl Iterator<Item = Golden> {
    Golden::all().filter(|golden| layouts(&golden.model).contains(&Layout::Engine))
}

#[test]
fn the_whole_model_has_the_engine_s_logits() {
    for golden in served() {
        let sequences = golden.sequences();
        let cut = Cut::convert(&golden.model, Layout::Engine);
        let ours = logits(&golden.model, &sequences, None);
        compare(&cut, &sequences, &ours, golden.name);
    }
}

#[test]
fn the_pruned_model_has_the_engine_s_logits() {
    for golden in served() {
        let sequences = golden.sequences();
        let plan = golden_plan(&golden);
        let cut = Cut::new(&golden.model, &plan, Layout::Engine);
        // The original, masked: two laws in one.
        let ours = logits(&golden.model, &sequences, Some(plan.keep()));
        compare(&cut, &sequences, &ours, &format!("pruned {}", golden.name));
    }
}

#[test]
fn the_model_without_experts_of_some_layers_has_the_engine_s_logits() {
    for golden in served() {
        let (model, sequences) = (&golden.model, golden.sequences());
        let plan = golden_plan(&golden);
        // The first set and the largest.
        let sets = writable(model);
        let largest = sets.iter().max_by_key(|layers| layers.len());
        for layers in sets.first().into_iter().chain(largest) {
            let plan = without_experts(model, &plan, layers);
            let cut = Cut::new(model, &plan, Layout::Engine);
            let ours = logits(model, &sequences, Some(plan.keep()));
            let what = format!("{} without experts of {layers:?}", golden.name);
            compare(&cut, &sequences, &ours, &what);
        }
    }
}

#[test]
fn fewer_experts_a_token_have_the_engine_s_logits() {
    for golden in served() {
        let (model, sequences) = (&golden.model, golden.sequences());
        let Some(top_k) = fewer(model) else { continue };
        let plan = with_top_k(model, &golden_plan(&golden), top_k);
        let cut = Cut::new(model, &plan, Layout::Engine);
        let ours = logits(model, &sequences, Some(plan.keep()));
        let what = format!("{} with top {top_k}", golden.name);
        compare(&cut, &sequences, &ours, &what);
    }
}

/// Should this fail, the engine has been repaired and the caveat can go.
#[test]
fn what_the_engine_computes_otherwise_is_said() {
    let mut said = Vec::new();
    for golden in served() {
        let (model, sequences) = (&golden.model, golden.sequences());
        let serving = model.family().serving(model.topology());
        if serving.layout().and_then(|layout| layout.caveat).is_none() {
            continue;
        }
        said.push(golden.name);
        let plan = decide(model, &sequences, &half());
        let cut = Cut::new(model, &plan, Layout::Engine);
        let ours = logits(model, &sequences, Some(plan.keep()));
        let differences = differences(&cut, &sequences, &ours);
        assert!(differences.iter().any(|&difference| difference > 1e-3));
    }
    assert_eq!(said, ["phimoe"]);
}

#[test]
fn the_pruned_demo_model_has_the_engine_s_logits_of_a_sentence() {
    let model = open(&demo());
    let text = tokens(
        &model,
        include_str!("../../models/demo/held-out/stories.txt"),
        512,
    );
    let calibration = sequences(&[text], 1);
    let plan = decide(&model, &calibration, &half());
    let cut = Cut::new(&model, &plan, Layout::Engine);
    let sentence = tokens(
        &model,
        "The little dog ran to the river because he wanted to swim.",
        64,
    );
    let sentence = sequences(&[sentence], 1);
    let ours = logits(&cut.model, &sentence, None);
    compare(&cut, &sentence, &ours, "pruned demo");
}

/// The first tokens of a text.
fn tokens(model: &Model, text: &str, most: usize) -> Vec<u32> {
    let tokenizer = model.checkpoint().tokenizer().unwrap();
    let encoding = tokenizer.encode(text, false).unwrap();
    encoding.get_ids().iter().copied().take(most).collect()
}
