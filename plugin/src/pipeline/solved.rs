//! A memory budget → the plan that loses least in it.

use router_stats::calibration::PackOptions;
use safetensors::Dtype;

use super::{texts, Grounds, Model, Reporter, CACHED};
use crate::cache::{self, Cache, Key};
use crate::memory::{self, overhead, Overhead, Serving};
use crate::plan::{self, MemoryBudget, PlanOptions, ValidPlan};
use crate::solve::{self, Cell, Question};
use crate::surgery::UqffDevice;
use crate::{format, Error, Result};

/// Tokens of calibration text that cells are measured on.
const TOKENS: usize = 16_384;

/// The plan that loses least on the text of all that fit `budget`, from the
/// cache or found now.
///
/// # Errors
/// Those of planning and measuring; [`Error::FitTooSmall`].
pub fn solved(
    model: &Model,
    grounds: Grounds<'_>,
    options: &PlanOptions,
    budget: &MemoryBudget,
    cache: &Cache,
    reporter: &dyn Reporter,
) -> Result<ValidPlan> {
    let stats = grounds.stats;
    let on = grounds.text.ok_or(Error::Option {
        option: "--fit",
        expected: "text to compare on".to_owned(),
        found: "none".to_owned(),
    })?;
    let device = device(model);
    let key = Key::new("solved")
        .with(&model.fingerprint)
        .with(&model.companions)
        .with(&stats.hash())
        .with(&on.corpus.hash())
        .with(&format!("{options:?} {:?} {}", on.pack, device.name()))
        .finish();
    let path = cache.plan(&key);
    let _lock = cache.lock(&key, reporter)?;
    if let Ok(plan) = plan::read(&path) {
        let plan = ValidPlan::new(plan, model.checkpoint(), model.family(), model.topology())?;
        reporter.report(CACHED, &format!("plan         {}", path.display()));
        return Ok(plan);
    }
    let overhead = match device {
        UqffDevice::Cpu => overhead::measured(model, cache, reporter)?,
        UqffDevice::Gpu => {
            reporter.hint("on a GPU, what its driver takes is not counted: leave it some room");
            Overhead::default()
        }
    };
    let question = Question {
        stats,
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
    let pack = PackOptions {
        tokens: TOKENS.min(on.pack.tokens),
        ..on.pack.clone()
    };
    let sequences = texts::sequences(on.corpus, model, &pack)?;
    let evaluation = prune_eval::EvalOptions {
        seed: options.seed,
        ..prune_eval::EvalOptions::default()
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
    cache::make_parent(&path)?;
    plan::write(best.plan.plan(), &path)?;
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
    let device = device(model);
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

fn device(model: &Model) -> UqffDevice {
    if model.forward.device().is_cpu() {
        UqffDevice::Cpu
    } else {
        UqffDevice::Gpu
    }
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
