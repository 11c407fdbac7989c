//! `inspect`: a checkpoint, statistics, a plan or a report as a table or JSON.

mod memory;
mod plan;
mod stats;

use std::path::{Path, PathBuf};

use candle_core::Device;
use prune_eval::Report;
use router_stats::checkpoint::ExpertReader;
use router_stats::family::{Part, Role};
use router_stats::gguf;
use serde_json::json;

pub(super) use plan::{asked, compared, ids, percent, plan_table, sizes, weighed};

use super::job::local;
use super::table::Table;
use super::{output, Global};
use crate::format;
use crate::pipeline::Model;
use crate::plan::{read, Size};
use crate::surgery::PLAN_FILE;
use crate::Error;
use memory::MemoryArgs;

/// Arguments of `inspect`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Checkpoint directory, GGUF file, statistics file, plan, or evaluation report
    #[arg(value_name = "PATH")]
    path: PathBuf,

    /// Print JSON
    #[arg(long, conflicts_with = "memory")]
    json: bool,

    #[command(flatten)]
    memory: MemoryArgs,
}

/// Runs `inspect`.
pub(super) fn execute(args: &Args, global: &Global) -> anyhow::Result<()> {
    let path = &args.path;
    let head = match path.is_dir() {
        true => Vec::new(),
        false => head(path).map_err(router_stats::Error::io(path))?,
    };
    // A damaged file is what its name says.
    let called = path
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("gguf"));
    if path.is_dir() || called || head.starts_with(&gguf::MAGIC) {
        return checkpoint(path, args, global);
    }
    if args.memory.memory {
        return Err(Error::Option {
            option: "--memory",
            expected: "a checkpoint".to_owned(),
            found: path.display().to_string(),
        }
        .into());
    }
    // Statistics are a safetensors file, which begins with a binary length.
    if !head.trim_ascii_start().starts_with(b"{") {
        return stats::show(path, args.json);
    }
    if let Ok(report) = Report::read(path) {
        return Ok(output::data(&if args.json {
            report.to_json()
        } else {
            report.to_text(output::width())
        })?);
    }
    let plan = read(path)?;
    if args.json {
        output::json(&plan)?;
    } else {
        output::data(&plan_table(&plan))?;
    }
    Ok(())
}

/// The first bytes of a file.
fn head(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut head = Vec::new();
    std::fs::File::open(path)?.take(64).read_to_end(&mut head)?;
    Ok(head)
}

fn checkpoint(dir: &Path, args: &Args, global: &Global) -> anyhow::Result<()> {
    let model = Model::open(dir, local(dir).name(), &Device::Cpu)?;
    let topology = model.topology();
    let size = model.size()?;
    let moe = (0..topology.layers()).find_map(|layer| Some((layer, topology.moe(layer)?)));
    let stored = moe
        .map(|(layer, moe)| {
            ExpertReader::open(
                model.checkpoint(),
                model.family().names(),
                layer,
                moe,
                topology.hidden,
            )
            .map(|reader| (reader.layout().to_string(), elements(&model)))
        })
        .transpose()?;
    let pruned = read(dir.join(PLAN_FILE)).ok();
    let router = moe.map(|(_, moe)| moe.router.to_string());
    let shared = moe.and_then(|(_, moe)| moe.shared);
    let serving = model.family().serving(topology);
    let (checkpoint, family) = (model.checkpoint(), model.family());
    let has_tokenizer = checkpoint.has_tokenizer();
    let refusal = |on_cpu| crate::surgery::refusal(checkpoint, family, topology, on_cpu);
    let refused = refusal(false);
    let note = refused.or(serving.note()).or_else(|| refusal(true));
    let is_served = refused.is_none();
    if args.json {
        return Ok(output::json(&json!({
            "kind": "checkpoint",
            "name": model.name,
            "family": model.family().model_type(),
            "fingerprint": model.fingerprint,
            "size": size,
            "top_k": moe.map(|(_, moe)| moe.router.top_k),
            "router": router,
            "shared_expert_width": shared.map(|shared| shared.intermediate),
            "served": is_served,
            "serving_note": note,
            "hidden": topology.hidden,
            "vocabulary": topology.vocab,
            "expert_layout": stored.as_ref().map(|(layout, _)| layout),
            "expert_dtype": stored.as_ref().map(|(_, dtype)| dtype),
            "tokenizer": has_tokenizer,
            "pruned_by": pruned,
        }))?);
    }
    let mut table = Table::facts();
    table
        .row(["checkpoint", &model.name])
        .row(["family", model.family().model_type()])
        .row(["fingerprint", short(&model.fingerprint)]);
    size_rows(&mut table, &size);
    if let (Some((_, moe)), Some((layout, dtype))) = (moe, &stored) {
        table
            .row(["router", &moe.router.to_string()])
            .row(["expert width", &moe.intermediate.to_string()])
            .row(["expert layout", &format!("{layout}, {dtype}")]);
        if let Some(shared) = moe.shared {
            table.row(["shared expert width", &shared.intermediate.to_string()]);
        }
    }
    table
        .row(["hidden", &topology.hidden.to_string()])
        .row(["vocabulary", &format::count(topology.vocab as u64)])
        .row(["tokenizer", if has_tokenizer { "yes" } else { "no" }]);
    let served = match (is_served, note) {
        (true, None) => "yes".to_owned(),
        (true, Some(note)) => format!("yes; {note}"),
        (false, note) => format!("no: {}", note.unwrap_or_default()),
    };
    table.row(["served", &served]);
    if let Some(plan) = pruned {
        table.row([
            "pruned from",
            &format!("{} by {}", plan.model.name, plan.method.criterion),
        ]);
    }
    let mut text = table.to_string();
    if args.memory.memory {
        text += &format!("\n\n{}", args.memory.table(&model, &global.cache()?)?);
    }
    Ok(output::data(&text)?)
}

/// How the experts of all layers are stored: `bf16`, or `q4_k, q6_k`.
fn elements(model: &Model) -> String {
    let names = model.family().names();
    let mut elements = Vec::new();
    for tensor in model.checkpoint().tensors() {
        let Role::Block { part, .. } = names.role(tensor.name) else {
            continue;
        };
        let element = tensor.element.to_string().to_lowercase();
        let expert = matches!(
            part,
            Part::Expert { .. } | Part::StackedGateUp | Part::StackedDown
        );
        if expert && !elements.contains(&element) {
            elements.push(element);
        }
    }
    elements.join(", ")
}

/// Adds what a model weighs.
fn size_rows(table: &mut Table, size: &Size) {
    table
        .row(["parameters", &format::parameters(size.parameters)])
        .row([
            "active per token",
            &format::parameters(size.active_parameters),
        ])
        .row(["weights", &format::bytes(size.bytes)])
        .row(["layers", &size.layers.to_string()])
        .row(["experts per layer", &experts(size)]);
}

/// What a model weighs.
pub(super) fn size_table(size: &Size) -> String {
    let mut table = Table::facts();
    size_rows(&mut table, size);
    table.to_string()
}

/// Experts of the MoE layers: `8`, or `8–16` if they differ.
pub(super) fn experts(size: &Size) -> String {
    format::range(size.experts_per_layer.iter().copied())
}

pub(super) fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}
