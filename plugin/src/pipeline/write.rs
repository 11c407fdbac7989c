//! A plan → a checkpoint in the cache.

use std::path::{Path, PathBuf};

use prune_eval::Report;

use super::{Model, Reporter, CACHED};
use crate::cache::{self, Cache, Key};
use crate::format;
use crate::plan::ValidPlan;
use crate::surgery::{self, CardFacts, Layout, SurgeryOptions, REPORT_FILE};
use crate::Result;

/// The checkpoint that `plan` leaves of `model` in `layout`, from the cache or
/// written now. One in the cache whose loss was not measured, or
/// on other text, gains the loss in `card`.
///
/// # Errors
/// Those of surgery, and if the cache cannot be written.
pub fn write(
    model: &Model,
    plan: &ValidPlan,
    layout: Layout,
    card: CardFacts,
    cache: &Cache,
    reporter: &dyn Reporter,
) -> Result<PathBuf> {
    let make = |out: &Path, options: &SurgeryOptions| {
        let (checkpoint, family) = (model.checkpoint(), model.family());
        surgery::prune(
            checkpoint,
            family,
            model.topology(),
            plan,
            out,
            options,
            reporter,
        )
    };
    write_by(model, plan, (layout, card), cache, reporter, make)
}

/// As [`write`], where `make` writes a checkpoint that is not in the cache.
///
/// # Errors
/// Those of [`write`] and of `make`.
pub(super) fn write_by(
    model: &Model,
    plan: &ValidPlan,
    (layout, card): (Layout, CardFacts),
    cache: &Cache,
    reporter: &dyn Reporter,
    make: impl FnOnce(&Path, &SurgeryOptions) -> Result<surgery::Summary>,
) -> Result<PathBuf> {
    let key = Key::new("checkpoint")
        .with_json(plan.plan())?
        .with(&model.companions)
        .with(&named(layout))
        .finish();
    // A hub id names its organisation too.
    let whole = plan.plan().model.name.as_str();
    let name = format!(
        "{}-pruned",
        whole.rsplit_once('/').map_or(whole, |(_, name)| name)
    );
    let options = SurgeryOptions {
        layout,
        card,
        ..SurgeryOptions::default()
    };
    let out = cached(&key, &name, cache, reporter, |out| make(out, &options))?;
    if options.card.report.is_some() && options.card.report != loss(&out) {
        let _lock = cache.lock(&key, reporter)?;
        surgery::record(
            model.checkpoint(),
            plan,
            &out,
            options.layout,
            &options.card,
        )?;
    }
    Ok(out)
}

/// A layout as keys of the cache have it.
fn named(layout: Layout) -> String {
    match layout {
        // The names of files do not tell devices apart.
        Layout::Uqff(uqff) => {
            format!("uqff {} {}", uqff.weights.name(), uqff.device.name())
        }
        other => other.to_string(),
    }
}

/// What pruning the checkpoint in `dir` cost, if that was measured then.
pub(super) fn loss(dir: &Path) -> Option<Report> {
    Report::read(&dir.join(REPORT_FILE)).ok()
}

/// Whether the engine cannot read `model` as it is stored.
///
/// # Errors
/// If an expert is missing or has another shape than it must.
pub fn needs_relayout(model: &Model) -> Result<bool> {
    let stored = surgery::is_stored_as(
        model.checkpoint(),
        model.family(),
        model.topology(),
        Layout::Engine,
    )?;
    Ok(!stored)
}

/// All of `model` in a layout that the engine reads, from the cache or written
/// now.
///
/// # Errors
/// Those of surgery, and if the cache cannot be written.
pub fn relayout(
    model: &Model,
    layout: Layout,
    cache: &Cache,
    reporter: &dyn Reporter,
) -> Result<PathBuf> {
    let key = Key::new("layout")
        .with(&model.fingerprint)
        .with(&model.companions)
        .with(&named(layout))
        .finish();
    cached(&key, &model.name, cache, reporter, |out| {
        surgery::convert(
            model.checkpoint(),
            model.family(),
            model.topology(),
            layout,
            out,
            reporter,
        )
    })
}

fn cached(
    key: &str,
    name: &str,
    cache: &Cache,
    reporter: &dyn Reporter,
    make: impl FnOnce(&Path) -> Result<surgery::Summary>,
) -> Result<PathBuf> {
    let out = cache.checkpoint(key, name);
    let _lock = cache.lock(key, reporter)?;
    if out.exists() {
        reporter.report(CACHED, &format!("checkpoint   {}", out.display()));
        return Ok(out);
    }
    cache::make_parent(&out)?;
    let started = std::time::Instant::now();
    let summary = make(&out)?;
    let rate = summary.bytes as f64 / started.elapsed().as_secs_f64().max(1e-9);
    reporter.report(
        "Wrote",
        &format!(
            "{}, {} tensors, {}/s",
            format::bytes(summary.bytes),
            summary.tensors,
            format::bytes(rate as u64)
        ),
    );
    Ok(out)
}
