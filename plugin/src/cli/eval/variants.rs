//! The models that are compared with the reference, and their names.

use std::collections::BTreeSet;
use std::path::Path;

use clap::builder::PossibleValue;
use prune_eval::Variant;
use router_stats::family::Keep;
use router_stats::forward::{Model, Quantization};

use super::made::named;
use super::names::distinct;
use crate::plan::ValidPlan;

/// Names of the types that weights are rounded through.
pub(super) fn types() -> Vec<PossibleValue> {
    let value = |quantization: Quantization| {
        let bits = format!("{} bits per weight", quantization.bits());
        PossibleValue::new(quantization.name()).help(bits)
    };
    Quantization::ALL.map(value).to_vec()
}

/// The types asked for, which `all` stands for.
///
/// # Errors
/// For a name of none.
pub(super) fn asked(names: &[String]) -> router_stats::Result<Vec<Quantization>> {
    let all = Quantization::ALL.into_iter().map(Quantization::name);
    named(names, all).into_iter().map(str::parse).collect()
}

/// `model` with its weights rounded through each of `quantizations`.
///
/// # Errors
/// Those of [`Model::quantized`].
pub(super) fn rounded(
    model: &Model,
    quantizations: &[Quantization],
) -> router_stats::Result<Vec<Model>> {
    let rounded = |&quantization| model.quantized(quantization);
    quantizations.iter().map(rounded).collect()
}

/// Where a model comes from.
#[derive(Clone, Copy)]
pub(super) enum Origin<'a> {
    /// It is the reference's.
    Reference,
    /// What a plan leaves of the reference's.
    Plan(&'a ValidPlan),
    /// Another checkpoint.
    Checkpoint(&'a Path),
}

impl Origin<'_> {
    /// What stays of the model.
    fn keep(self) -> Option<Keep> {
        match self {
            Self::Plan(plan) => Some(plan.keep().clone()),
            Self::Reference | Self::Checkpoint(_) => None,
        }
    }
}

/// The reference and its variants in the order they were added, each with a
/// name of its own.
pub(super) struct Variants<'a> {
    taken: BTreeSet<String>,
    list: Vec<Variant<'a>>,
    origins: Vec<Origin<'a>>,
}

impl<'a> Variants<'a> {
    /// The reference alone.
    pub(super) fn new(name: &str, model: &'a Model) -> Self {
        let mut variants = Self {
            taken: BTreeSet::new(),
            list: Vec::new(),
            origins: Vec::new(),
        };
        variants.add(name, "model", model, Origin::Reference);
        variants
    }

    /// A name that no other model has; `kind` is what is said of it if the
    /// name is taken.
    pub(super) fn name(&mut self, name: &str, kind: &str) -> String {
        distinct(name, kind, &mut self.taken)
    }

    /// Adds what is left of a model.
    pub(super) fn add(&mut self, name: &str, kind: &str, model: &'a Model, origin: Origin<'a>) {
        let name = self.name(name, kind);
        self.list.push(Variant {
            name,
            model,
            keep: origin.keep(),
        });
        self.origins.push(origin);
    }

    /// Adds the models that [`rounded`] made of the one called `name`, or of
    /// the reference: `q4k`, `reap 0.5 q4k`.
    pub(super) fn add_rounded(
        &mut self,
        name: Option<&str>,
        models: &'a [Model],
        origin: Origin<'a>,
    ) {
        for model in models {
            let types = model.quantization().map(Quantization::name);
            let name: Vec<&str> = name.into_iter().chain(types).collect();
            self.add(&name.join(" "), "quantised", model, origin);
        }
    }

    /// The reference, then all others.
    pub(super) fn list(&self) -> &[Variant<'a>] {
        &self.list
    }

    /// Where each of [`list`](Self::list) comes from.
    pub(super) fn origins(&self) -> &[Origin<'a>] {
        &self.origins
    }
}
