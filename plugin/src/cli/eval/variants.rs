//! The models that are compared with the reference, and their names.

use std::collections::BTreeSet;

use clap::builder::PossibleValue;
use prune_eval::Variant;
use router_stats::family::Keep;
use router_stats::forward::{Model, Quantization};

use super::made::named;
use super::names::distinct;

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

/// Variants in the order they were added, each with a name of its own.
pub(super) struct Variants<'a> {
    taken: BTreeSet<String>,
    list: Vec<Variant<'a>>,
}

impl<'a> Variants<'a> {
    /// None yet, beside a reference of this name.
    pub(super) fn new(reference: &str) -> Self {
        Self {
            taken: BTreeSet::from([reference.to_owned()]),
            list: Vec::new(),
        }
    }

    /// Adds a model, or what `keep` leaves of it. `kind` is what is said of it
    /// if the name is taken.
    pub(super) fn add(&mut self, name: &str, kind: &str, model: &'a Model, keep: Option<&Keep>) {
        self.list.push(Variant {
            name: distinct(name, kind, &mut self.taken),
            model,
            keep: keep.cloned(),
        });
    }

    /// Adds the models that [`rounded`] made of the one called `name`, or of
    /// the reference: `q4k`, `reap 0.5 q4k`.
    pub(super) fn add_rounded(
        &mut self,
        name: Option<&str>,
        models: &'a [Model],
        keep: Option<&Keep>,
    ) {
        for model in models {
            let types = model.quantization().map(Quantization::name);
            let name: Vec<&str> = name.into_iter().chain(types).collect();
            self.add(&name.join(" "), "quantised", model, keep);
        }
    }

    /// All of them.
    pub(super) fn list(&self) -> &[Variant<'a>] {
        &self.list
    }
}
