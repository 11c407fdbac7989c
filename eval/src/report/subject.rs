//! Which model a report speaks of, before anything is measured.

use std::collections::BTreeMap;

use router_stats::family::Keep;
use router_stats::forward::Quantization;
use router_stats::size::Size;

use super::Model;
use crate::evaluate::Variant;
use crate::Result;

/// A model of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Unique name.
    pub name: String,
    /// Fingerprint of its checkpoint, or the address of its server.
    pub fingerprint: String,
    /// Whether experts or layers of that checkpoint were masked.
    pub masked: bool,
    /// What its weights were rounded through, if they were.
    pub quantization: Option<Quantization>,
    /// Bytes of its weights, if they are known.
    pub bytes: Option<u64>,
}

impl Subject {
    /// A model in the native forward pass.
    ///
    /// # Errors
    /// Those of reading the checkpoint's tensor list.
    pub fn of(variant: &Variant<'_>) -> Result<Self> {
        let model = variant.model;
        let everything = Keep::all(model.topology());
        let keep = variant.keep.as_ref().unwrap_or(&everything);
        let size = Size::quantized(
            model.checkpoint(),
            model.family(),
            model.topology(),
            keep,
            model.quantization(),
        )?;
        Ok(Self {
            name: variant.name.clone(),
            fingerprint: model.checkpoint().fingerprint()?,
            masked: !keep.is_identity(model.topology()),
            quantization: model.quantization(),
            bytes: Some(size.bytes),
        })
    }

    /// A model of which nothing is measured yet.
    pub(crate) fn unmeasured(self) -> Model {
        Model {
            name: self.name,
            fingerprint: self.fingerprint,
            masked: self.masked,
            quantization: self.quantization,
            bytes: self.bytes,
            all: BTreeMap::new(),
            domains: BTreeMap::new(),
            sums: BTreeMap::new(),
        }
    }
}
