//! What several laws do to a model: measure it, decide, cut.

use std::path::{Path, PathBuf};

use mistralrs_prune::plan::{self, ExpertBudget, PlanOptions, ValidPlan};
use mistralrs_prune::surgery::{self, Layout, Summary, SurgeryOptions};
use prune_tests::{open, Golden};
use router_stats::calibration::{calibrate, CalibrateOptions, Sequences};
use router_stats::family::Keep;
use router_stats::forward::Model;
use router_stats::progress::Silent;
use router_stats::stats::Stats;

/// The layouts that a model can be written in: the engine's if it is served.
pub(crate) fn layouts(model: &Model) -> Vec<Layout> {
    match model.family().serving(model.topology()).layout() {
        None => vec![Layout::Hf],
        Some(_) => vec![Layout::Hf, Layout::Engine],
    }
}

/// Half of the experts.
pub(crate) fn half() -> PlanOptions {
    PlanOptions {
        experts: Some(ExpertBudget::Fraction(0.5)),
        ..PlanOptions::default()
    }
}

/// The statistics of a model.
pub(crate) fn measure(model: &Model, sequences: &Sequences) -> Stats {
    calibrate(model, sequences, &CalibrateOptions::default(), &Silent).unwrap()
}

/// What `options` make of the statistics of `sequences`.
pub(crate) fn decide(model: &Model, sequences: &Sequences, options: &PlanOptions) -> ValidPlan {
    plan::plan(
        &measure(model, sequences),
        model.checkpoint(),
        model.family(),
        model.topology(),
        options,
    )
    .unwrap()
}

/// A plan that keeps the experts of `golden_pruned.safetensors`.
pub(crate) fn golden_plan(golden: &Golden) -> ValidPlan {
    let model = &golden.model;
    let whole = decide(model, &golden.sequences(), &PlanOptions::default());
    let mut plan = whole.plan().clone();
    let kept = golden.kept();
    assert!(!kept.is_identity(model.topology()));
    for (layer, kept) in plan.layers.iter_mut().zip(kept.experts) {
        let all = 0..layer.scores.len();
        layer.removed = all.filter(|expert| !kept.contains(expert)).collect();
        layer.kept = kept;
    }
    ValidPlan::new(plan, model.checkpoint(), model.family(), model.topology()).unwrap()
}

/// The same plan with some layers dropped.
pub(crate) fn without_layers(model: &Model, plan: &ValidPlan, layers: &[usize]) -> ValidPlan {
    let mut plan = plan.plan().clone();
    for &layer in layers {
        plan.layers[layer].dropped = true;
    }
    ValidPlan::new(plan, model.checkpoint(), model.family(), model.topology()).unwrap()
}

/// The same plan with the feed-forward parts of some layers gone.
pub(crate) fn without_experts(model: &Model, plan: &ValidPlan, layers: &[usize]) -> ValidPlan {
    let mut plan = plan.plan().clone();
    for &layer in layers {
        plan.layers[layer].skipped.mlp = true;
    }
    ValidPlan::new(plan, model.checkpoint(), model.family(), model.topology()).unwrap()
}

/// The same plan with tokens that take `top_k` experts.
pub(crate) fn with_top_k(model: &Model, plan: &ValidPlan, top_k: usize) -> ValidPlan {
    let mut plan = plan.plan().clone();
    plan.method.asked.top_k = Some(top_k);
    ValidPlan::new(plan, model.checkpoint(), model.family(), model.topology()).unwrap()
}

/// Every set of layers of which `model` can be written without the feed-forward
/// parts, some experts being left.
pub(crate) fn writable(model: &Model) -> Vec<Vec<usize>> {
    let (family, topology) = (model.family(), model.topology());
    let sets = (1_usize..1 << topology.layers()).map(|bits| {
        let layers = 0..topology.layers();
        layers.filter(|layer| bits >> layer & 1 == 1).collect()
    });
    sets.filter(|layers: &Vec<usize>| {
        let mut keep = Keep::all(topology);
        layers
            .iter()
            .for_each(|&layer| keep.skipped[layer].mlp = true);
        keep.check(topology).is_ok() && family.stand_in(topology, &keep).is_ok()
    })
    .collect()
}

/// Experts that a token takes, at most, in plans that lower it: one fewer than
/// the model has; `None` if the rule can do with no fewer.
pub(crate) fn fewer(model: &Model) -> Option<usize> {
    let topology = model.topology();
    let top_k = topology.moes().next()?.router.top_k.checked_sub(1)?;
    let keep = Keep {
        top_k: Some(top_k),
        ..Keep::all(topology)
    };
    keep.check(topology).is_ok().then_some(top_k)
}

/// A written checkpoint, removed when dropped.
pub(crate) struct Cut {
    /// Opened again.
    pub(crate) model: Model,
    /// What surgery said of it.
    pub(crate) summary: Summary,
    parent: tempfile::TempDir,
}

impl Cut {
    /// Carries out `plan`.
    pub(crate) fn new(model: &Model, plan: &ValidPlan, layout: Layout) -> Self {
        let options = SurgeryOptions {
            layout,
            // Small enough that even the golden checkpoints take several files.
            max_shard_bytes: 100_000,
            ..SurgeryOptions::default()
        };
        Self::write(|out| {
            surgery::prune(
                model.checkpoint(),
                model.family(),
                model.topology(),
                plan,
                out,
                &options,
                &Silent,
            )
        })
    }

    /// Stores all of `model` in another layout.
    pub(crate) fn convert(model: &Model, layout: Layout) -> Self {
        Self::write(|out| {
            surgery::convert(
                model.checkpoint(),
                model.family(),
                model.topology(),
                layout,
                out,
                &Silent,
            )
        })
    }

    /// Stores all of `model` in a layout that is not opened again, in `cut` of a
    /// directory.
    pub(crate) fn uqff(model: &Model, layout: Layout) -> tempfile::TempDir {
        let parent = tempfile::tempdir().unwrap();
        let (family, topology) = (model.family(), model.topology());
        let out = parent.path().join("cut");
        surgery::convert(model.checkpoint(), family, topology, layout, &out, &Silent).unwrap();
        parent
    }

    fn write(write: impl FnOnce(&Path) -> mistralrs_prune::Result<Summary>) -> Self {
        let parent = tempfile::tempdir().unwrap();
        let out = parent.path().join("cut");
        let summary = write(&out).unwrap();
        Self {
            model: open(&out),
            summary,
            parent,
        }
    }

    /// Where it is.
    pub(crate) fn directory(&self) -> PathBuf {
        self.parent.path().join("cut")
    }
}
