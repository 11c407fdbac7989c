//! Files of text → tokens to calibrate with, and others to check on.

use router_stats::calibration::{ChatTemplate, Corpus, PackOptions, Sequences, Source};
use router_stats::progress::Progress;

use super::Model;
use crate::cache::Cache;
use crate::demo::Demo;
use crate::Result;

/// Share of a user's documents that is held out to check on.
const HELD_OUT: f64 = 0.1;

/// Two sets of documents that have none in common.
#[derive(Debug, Clone)]
pub struct Texts {
    /// Statistics are made with these.
    pub calibration: Corpus,
    /// The loss is measured on these.
    pub held_out: Corpus,
    /// Whether both are the bundled ones.
    pub bundled: bool,
}

impl Texts {
    /// The bundled sets, or `sources` divided in two. Sources that are too few
    /// documents to divide are checked on the bundled held-out set.
    ///
    /// # Errors
    /// If a file cannot be read or the cache cannot be written.
    pub fn new(
        sources: &[Source],
        model: &Model,
        cache: &Cache,
        progress: &dyn Progress,
    ) -> Result<Self> {
        if sources.is_empty() {
            let demo = Demo::unpack(cache, progress)?;
            return Ok(Self {
                calibration: read(&demo.calibration(), model)?,
                held_out: read(&demo.held_out(), model)?,
                bundled: true,
            });
        }
        let (calibration, mut held_out) = read(sources, model)?.split(HELD_OUT);
        held_out
            .domains
            .retain(|domain| !domain.documents.is_empty());
        if held_out.domains.is_empty() {
            held_out = bundled_held_out(model, cache, progress)?;
        }
        Ok(Self {
            calibration,
            held_out,
            bundled: false,
        })
    }
}

/// The bundled held-out set.
///
/// # Errors
/// If the cache cannot be written.
pub fn bundled_held_out(model: &Model, cache: &Cache, progress: &dyn Progress) -> Result<Corpus> {
    read(&Demo::unpack(cache, progress)?.held_out(), model)
}

/// Reads files, chats through the model's template.
///
/// # Errors
/// If a file cannot be read.
pub fn read(sources: &[Source], model: &Model) -> Result<Corpus> {
    let template = ChatTemplate::read(model.checkpoint().dir())?;
    Ok(Corpus::read(sources, template.as_ref())?)
}

/// Packs `corpus` into sequences of the model's tokens.
///
/// # Errors
/// If the tokenizer is absent or there is too little text.
pub fn sequences(corpus: &Corpus, model: &Model, options: &PackOptions) -> Result<Sequences> {
    let tokenizer = model.checkpoint().tokenizer()?;
    Ok(Sequences::pack(
        corpus,
        &tokenizer,
        model.separator(&tokenizer),
        options,
    )?)
}
