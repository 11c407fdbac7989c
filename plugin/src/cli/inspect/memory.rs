//! What serving a checkpoint takes, term by term, and by type of weights.

use router_stats::family::Keep;
use router_stats::progress::Silent;
use safetensors::Dtype;

use crate::cache::Cache;
use crate::cli::table::Table;
use crate::format;
use crate::memory::{overhead, terms, Memory};
use crate::pipeline::{serving, Model};
use crate::plan::MemoryBudget;
use crate::surgery::{Held, Layout, Uqff, UqffDevice, UqffWeights};
use crate::{Error, Result};

/// Requests and memory.
#[derive(clap::Args)]
#[command(next_help_heading = "Memory")]
pub(super) struct MemoryArgs {
    /// Show what serving the checkpoint on this machine's CPU takes
    #[arg(long)]
    pub(super) memory: bool,

    /// Tokens of each and its answer together [default: 4096, or what the model
    /// was made for]
    #[arg(long, value_name = "N", requires = "memory")]
    max_seq_len: Option<usize>,
}

impl MemoryArgs {
    /// The terms for `model` as it is, and what other types of weights take.
    ///
    /// # Errors
    /// Those of measuring what the engine takes without a model.
    pub(super) fn table(&self, model: &Model, cache: &Cache) -> Result<String> {
        let budget = MemoryBudget {
            bytes: u64::MAX,
            // More are mixed up by the engine.
            sequences: 1,
            tokens: self.max_seq_len,
            weights: Vec::new(),
        };
        let overhead = overhead::measured(model, cache, &Silent)?;
        let serving = serving(model, &budget, overhead)?;
        let keep = Keep::all(model.topology());
        let memory = |layout| {
            let (family, topology) = (model.family(), model.topology());
            let held = Held::new(
                model.checkpoint(),
                family,
                topology,
                layout,
                Dtype::F32,
                false,
            );
            held.map(|held| Memory::of(&serving, &held, &keep))
        };
        let stored = match model.checkpoint().gguf() {
            None => Layout::Engine,
            Some(_) => Layout::Uqff(Uqff::default()),
        };
        let whole = memory(stored)?;
        let mut table = Table::new(&["memory", "", ""]).words(2);
        for term in terms(&whole, serving.traffic, "f32") {
            table.row([term.name.to_owned(), format::bytes(term.bytes), term.about]);
        }
        let mut types = Table::new(&["weights as", "weights", "together"]);
        for weights in UqffWeights::ALL {
            let layout = match weights {
                UqffWeights::Float => stored,
                weights => Layout::Uqff(Uqff {
                    weights,
                    device: UqffDevice::Cpu,
                }),
            };
            match memory(layout) {
                Ok(memory) => types.row([
                    weights.name().to_owned(),
                    format::bytes(memory.weights),
                    format::bytes(memory.peak()),
                ]),
                // The engine does not load it.
                Err(Error::NotServed { .. } | Error::NotRequantised { .. }) => continue,
                Err(error) => return Err(error),
            };
        }
        Ok(format!("{table}\n\n{types}"))
    }
}
