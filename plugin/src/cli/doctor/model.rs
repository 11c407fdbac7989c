//! One model: whether it can be calibrated, pruned, served, written as UQFF.

use std::path::PathBuf;

use candle_core::Device;
use router_stats::calibration::STORED_TEMPLATE;
use router_stats::family::Keep;
use safetensors::Dtype;

use super::{machine, Finding, State};
use crate::cache::Cache;
use crate::cli::args::ModelArgs;
use crate::cli::Global;
use crate::engine::has_chat_template;
use crate::format;
use crate::hub::Hub;
use crate::pipeline::Model;
use crate::surgery::{self, Held, Layout, SurgeryOptions, Uqff, UqffDevice, UqffWeights};

/// What works with a model that does not fit as it is.
const INSTEAD: &str = "calibrate, plan and prune take one layer at a time; serve what --target-size leaves, or quantised: prune --layout uqff --uqff-weights q4k";

/// Answers about the model that was named.
pub(super) fn findings(args: &ModelArgs, global: &Global) -> Vec<Finding> {
    let dir = match directory(args, global) {
        Ok(Some(dir)) => dir,
        Ok(None) => {
            return vec![Finding::warning(
                "model",
                format!(
                    "{} is not on this machine",
                    args.model_id.as_deref().unwrap_or_default()
                ),
                "every verb that takes -m downloads it, and continues where that stopped",
            )];
        }
        Err(error) => return vec![Finding::error("model", &error)],
    };
    // Weights are not read, so where does not matter.
    let model = match Model::open(&dir, args.source().name(), &Device::Cpu) {
        Ok(model) => model,
        Err(error) => return vec![Finding::error("model", &error)],
    };
    let mut findings = Vec::new();
    match model.size() {
        Ok(size) => {
            findings.push(Finding::ok(
                "model",
                format!(
                    "{}, {}: {} parameters, {}",
                    model.name,
                    model.family().model_type(),
                    format::parameters(size.parameters),
                    format::bytes(size.bytes)
                ),
            ));
            findings.push(fits(&model));
        }
        Err(error) => findings.push(Finding::error("model", &error)),
    }
    findings.push(calibrated(&model));
    findings.push(served(&model, args.cpu));
    findings.push(uqff(&model));
    findings.push(template(&model));
    findings
}

/// Where the model is, if it is on this machine.
fn directory(args: &ModelArgs, global: &Global) -> crate::Result<Option<PathBuf>> {
    let source = args.source();
    match source.hub_id() {
        Some(id) => {
            Ok(Hub::from_env(args.token_source.clone()).held(&id, args.hf_revision.as_deref()))
        }
        None => {
            let cache: Cache = global.cache()?;
            source
                .directory(&cache, &router_stats::progress::Silent)
                .map(Some)
        }
    }
}

/// The engine computes in f32 on a processor, whatever the file holds.
fn fits(model: &Model) -> Finding {
    let (free, _) = machine::free_memory();
    let (checkpoint, family, topology) = (model.checkpoint(), model.family(), model.topology());
    let held = Held::new(
        checkpoint,
        family,
        topology,
        Layout::for_engine(checkpoint, UqffDevice::Cpu),
        Dtype::F32,
        false,
    );
    let needed = match held {
        Ok(held) => held.bytes(&Keep::all(topology)),
        Err(error) => return Finding::warning("fits", format!("unknown: {error}"), INSTEAD),
    };
    let found = format!(
        "about {} for the whole model on a processor, {} free",
        format::bytes(needed),
        format::bytes(free)
    );
    match needed < free {
        true => Finding::ok("fits", found),
        false => Finding::warning("fits", found, INSTEAD),
    }
}

/// The family is known, or the model would not have been opened; text needs a
/// tokenizer as well.
fn calibrated(model: &Model) -> Finding {
    let dir = model.checkpoint().dir();
    match model.checkpoint().has_tokenizer() {
        true => Finding::ok(
            "calibrated",
            "yes: its family is known, and there is a tokenizer",
        ),
        false => Finding {
            state: State::Error,
            hint: Some(format!(
                "copy tokenizer.json of the model into {}",
                dir.display()
            )),
            ..Finding::ok("calibrated", "no: there is no tokenizer.json")
        },
    }
}

fn served(model: &Model, cpu: bool) -> Finding {
    let (checkpoint, family, topology) = (model.checkpoint(), model.family(), model.topology());
    let on_cpu = cpu || !cfg!(any(feature = "cuda", feature = "metal"));
    let refusal = |on_cpu| surgery::refusal(checkpoint, family, topology, on_cpu);
    let elsewhere = "calibrate, plan, eval and prune work: prune with --layout hf, and serve the result with transformers or vLLM";
    match (
        refusal(false),
        refusal(on_cpu),
        family.serving(topology).note(),
    ) {
        (Some(reason), _, _) => Finding::warning("served", format!("no: {reason}"), elsewhere),
        (None, Some(reason), _) => {
            Finding::warning("served", format!("not here: {reason}"), elsewhere)
        }
        (None, None, Some(note)) => Finding::ok("served", format!("yes; {note}")),
        (None, None, None) => Finding::ok("served", "yes"),
    }
}

fn uqff(model: &Model) -> Finding {
    let options = SurgeryOptions {
        layout: Layout::Uqff(Uqff {
            weights: UqffWeights::Float,
            device: UqffDevice::Cpu,
        }),
        ..SurgeryOptions::default()
    };
    let nowhere = model
        .checkpoint()
        .dir()
        .with_extension("uqff-that-is-not-written");
    let checked = surgery::check(
        model.checkpoint(),
        model.family(),
        model.topology(),
        &nowhere,
        &options,
    );
    match checked {
        Ok(()) => Finding::ok("uqff", "can be written, with another number of experts in every layer"),
        Err(error) => Finding::warning(
            "uqff",
            format!("no: {error}"),
            "only UQFF holds another number of experts in every layer: plan the same for all with --allocation uniform",
        ),
    }
}

fn template(model: &Model) -> Finding {
    let stored = model.checkpoint().gguf();
    let has = match stored {
        None => has_chat_template(model.checkpoint().dir()),
        Some(header) => header.metadata.has(STORED_TEMPLATE),
    };
    match has {
        true => Finding::ok("chat template", "yes"),
        false => Finding::warning(
            "chat template",
            "none: POST /v1/completions works, chat does not",
            "serve with --chat-template FILE, or use the completion mode of the page",
        ),
    }
}
