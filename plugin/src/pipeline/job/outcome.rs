//! What came of a job.

use std::path::PathBuf;

use prune_eval::Report;
use safetensors::Dtype;

use crate::pipeline::Model;
use crate::plan::{Plan, Size, ValidPlan};
use crate::surgery::{Layout, Uqff};

/// A checkpoint that the engine can load, and how it came about.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its directory.
    pub dir: PathBuf,
    /// The model as it was.
    pub before: Size,
    /// The plan that was carried out, now or when the directory was made.
    pub plan: Option<Plan>,
    /// What it cost, if that was measured.
    pub report: Option<Report>,
    /// Whether it also sees images.
    pub images: bool,
    /// How it is stored, if its layers keep different numbers of experts.
    pub uqff: Option<Uqff>,
    /// Whether the experts of a layer are one tensor, which the engine's
    /// quantisation on loading passes over.
    pub stacked: bool,
    /// What the engine computes otherwise than the model.
    pub caveat: Option<&'static str>,
}

impl Outcome {
    /// Of what `plan` leaves of `model`, without a place.
    pub(super) fn planned(model: &Model, plan: &ValidPlan, layout: Layout, images: bool) -> Self {
        Self {
            dir: PathBuf::new(),
            before: plan.plan().before.clone(),
            plan: Some(plan.plan().clone()),
            report: None,
            images,
            uqff: layout.uqff(),
            stacked: layout == Layout::Engine && stacked(model),
            caveat: caveat(model),
        }
    }
}

/// Whether the engine's copy of `model` has its experts in one tensor; those in
/// fp8 it reads one by one.
pub(super) fn stacked(model: &Model) -> bool {
    let serving = model.family().serving(model.topology());
    let mut tensors = model.checkpoint().tensors();
    serving.layout().is_some_and(|layout| layout.stacked)
        && !tensors.any(|tensor| tensor.element == Dtype::F8_E4M3.into())
}

/// What the engine computes otherwise than `model`.
pub(super) fn caveat(model: &Model) -> Option<&'static str> {
    let serving = model.family().serving(model.topology());
    serving.layout()?.caveat
}
