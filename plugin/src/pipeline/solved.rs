//! A memory budget → the plan that loses least in it.

use prune_eval::EvalOptions;
use safetensors::Dtype;

use super::planner::{mixture, packed};
use super::{decide, Grounds, Model, Reporter};
use crate::cache::{Cache, Key};
use crate::memory::{self, overhead, Overhead, Serving};
use crate::plan::{MemoryBudget, PlanOptions, ValidPlan};
use crate::solve::{self, Cell, Question};
use crate::surgery::UqffDevice;
use crate::{format, Error, Result};

/// Tokens of calibration text that cells are measured on.
const TOKENS: usize = 16_384;

/// The plan that loses least on the text, of the promising ones that fit
/// `budget`, from the cache or found now. The text is mixed as `options` weigh
/// its domains.
///
/// # Errors
/// Those of planning and measuring; [`Error::FitTooSmall`]; [`Error::Option`] if
/// there is no text, or it lacks a domain of the statistics.
pub fn solved(
    model: &Model,
    grounds: Grounds<'_>,
    options: &PlanOptions,
    budget: &MemoryBudget,
    cache: &Cache,
    reporter: &dyn Reporter,
) -> Result<ValidPlan> {
    if model.checkpoint().gguf().is_some() {
        return Err(Error::Option {
            option: "--fit",
            expected: "a model whose numbers it may choose".to_owned(),
            found: "a GGUF file, whose blocks stay as they are".to_owned(),
        });
    }
    let on = grounds.expect_text()?;
    let device = model.uqff_device();
    let overhead = match device {
        UqffDevice::Cpu => overhead::measured(model, cache, reporter)?,
        UqffDevice::Gpu => Overhead::default(),
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let key = Key::new("solved")
        .with(&model.fingerprint)
        .with(&model.companions)
        .with(&grounds.stats.hash())
        .with(&on.corpus.hash())
        .with(&format!("{options:?} {:?} {}", on.pack, device.name()))
        .with(&format!("{overhead:?} {threads}"))
        .finish();
    decide::cached(&key, model, cache, reporter, || {
        found(model, grounds, options, budget, overhead, reporter)
    })
}

/// Measures the promising plans and shows the choice.
fn found(
    model: &Model,
    grounds: Grounds<'_>,
    options: &PlanOptions,
    budget: &MemoryBudget,
    overhead: Overhead,
    reporter: &dyn Reporter,
) -> Result<ValidPlan> {
    if let UqffDevice::Gpu = model.uqff_device() {
        reporter.hint("on a GPU, what its driver takes is not counted: leave it some room");
    }
    let question = Question {
        stats: grounds.stats,
        checkpoint: model.checkpoint(),
        family: model.family(),
        options,
        budget,
        serving: serving(model, budget, overhead)?,
    };
    let started = std::time::Instant::now();
    let cells = solve::cells(&question)?;
    let fit = cells.len();
    let mut cells = solve::promising(cells);
    let said = format!(
        "{fit} combinations that fit {budget}, {} promising ones measured, {}",
        cells.len(),
        format::duration(started.elapsed())
    );
    reporter.report("Solving", &said);
    let domains = mixture(grounds.stats, options)?;
    let sequences = packed(model, domains, grounds, TOKENS)?;
    let evaluation = EvalOptions {
        seed: options.seed,
        ..EvalOptions::default()
    };
    solve::measure(
        &model.forward,
        &mut cells,
        &sequences,
        &evaluation,
        reporter,
    )?;
    let best = cells.first().ok_or(Error::Option {
        option: "--fit",
        expected: "memory for a plan".to_owned(),
        found: budget.to_string(),
    })?;
    explain(&cells, best, budget, reporter);
    Ok(best.plan.clone())
}

/// Where the model is served, and to whom.
///
/// # Errors
/// [`Error::Option`] for sequences that the model does not take.
pub fn serving<'a>(
    model: &'a Model,
    budget: &MemoryBudget,
    overhead: Overhead,
) -> Result<Serving<'a>> {
    let device = model.uqff_device();
    Ok(Serving {
        topology: model.topology(),
        traffic: budget.traffic(model.topology())?,
        device,
        float: match device {
            UqffDevice::Cpu => Dtype::F32,
            UqffDevice::Gpu => Dtype::BF16,
        },
        overhead,
        threads: std::thread::available_parallelism().map_or(1, usize::from),
    })
}

/// Shows the choice, what came after it, and what it takes.
fn explain(cells: &[Cell], best: &Cell, budget: &MemoryBudget, reporter: &dyn Reporter) {
    reporter.table(&solve::table(cells, budget.bytes));
    if let Some(fit) = best.plan.plan().method.asked.fit {
        let weights = format!("{}, as the engine holds them", best.weights());
        let terms = memory::terms(&best.memory, fit.traffic, &weights);
        let rows: Vec<Vec<String>> = terms
            .into_iter()
            .map(|term| vec![term.name.to_owned(), format::bytes(term.bytes), term.about])
            .collect();
        reporter.table(&rows);
    }
}
