//! Law 4: our forward pass is the engine's (f32, ≤ 1e-4).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::{Device, Tensor};
use mistralrs_core::{
    AdapterPaths, DefaultSchedulerMethod, DeviceMapSetting, LocalModelPaths, MistralRs,
    MistralRsBuilder, ModelDType, ModelPaths, NormalLoaderBuilder, NormalRequest,
    NormalSpecificConfig, Request, RequestMessage, Response, SamplingParams, SchedulerConfig,
};
use mistralrs_prune::surgery::Layout;
use prune_tests::{at_most, demo, logits, open, sequences, worst, Golden};
use router_stats::calibration::Sequences;
use router_stats::forward::Model;

use crate::cut::{decide, half, Cut};

/// The engine with a checkpoint in its own layout, in f32 on the CPU.
struct Engine {
    runtime: tokio::runtime::Runtime,
    engine: Arc<MistralRs>,
}

impl Engine {
    fn load(directory: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap();
        let engine = runtime.block_on(async {
            let loader = NormalLoaderBuilder::new(
                NormalSpecificConfig::default(),
                None,
                None,
                Some("law".to_owned()),
                false,
                None,
            )
            .build(None)
            .unwrap();
            let paths: Box<dyn ModelPaths> = Box::new(paths(directory));
            let pipeline = tokio::task::block_in_place(|| {
                loader.load_model_from_path(
                    &paths,
                    &ModelDType::F32,
                    &Device::Cpu,
                    true,
                    DeviceMapSetting::dummy(),
                    None,
                    None,
                )
            })
            .unwrap();
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
    fn logits(&self, tokens: &[u32]) -> Tensor {
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
    let engine = Engine::load(&cut.directory());
    for index in 0..sequences.len() {
        let tokens = sequences.sequence(index);
        let theirs = engine.logits(tokens);
        let ours = ours
            .narrow(0, sequences.starts[index], tokens.len())
            .unwrap();
        let what = format!("{what} in the engine, sequence {index}");
        at_most(1e-4, worst(&theirs, &ours), &what);
    }
}

#[test]
fn the_whole_model_has_the_engine_s_logits() {
    for golden in Golden::all() {
        let sequences = golden.sequences();
        let cut = Cut::convert(&golden.model, Layout::Engine);
        let ours = logits(&golden.model, &sequences, None);
        compare(&cut, &sequences, &ours, golden.name);
    }
}

#[test]
fn the_pruned_model_has_the_engine_s_logits() {
    for golden in Golden::all() {
        let sequences = golden.sequences();
        let plan = decide(&golden.model, &sequences, &half());
        let cut = Cut::new(&golden.model, &plan, Layout::Engine);
        // The original, masked: two laws in one.
        let ours = logits(&golden.model, &sequences, Some(plan.keep()));
        compare(&cut, &sequences, &ours, &format!("pruned {}", golden.name));
    }
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
