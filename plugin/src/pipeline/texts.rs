//! Files of text → tokens to calibrate with, and others to check on.

use prune_eval::Report;
use router_stats::calibration::{ChatTemplate, Corpus, PackOptions, Sequences, Source};
use router_stats::progress::Progress;

use super::Model;
use crate::cache::Cache;
use crate::demo::Demo;
use crate::Result;

/// Share of a user's documents that is held out to check on.
pub const HELD_OUT: f64 = 0.1;

/// Two sets of documents that have none in common.
#[derive(Debug, Clone)]
pub struct Texts {
    /// Statistics are made with these.
    pub calibration: Corpus,
    /// The loss is measured on these.
    pub held_out: Corpus,
    /// Whether the held-out set is the bundled one because the user's documents
    /// were too few to divide.
    borrowed: bool,
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
            return Ok(Self {
                calibration: bundled_calibration(model, cache, progress)?,
                held_out: bundled_held_out(model, cache, progress)?,
                borrowed: false,
            });
        }
        let (calibration, mut held_out) = read(sources, model)?.split(HELD_OUT);
        let borrowed = held_out.domains.is_empty();
        if borrowed {
            held_out = bundled_held_out(model, cache, progress)?;
        }
        Ok(Self {
            calibration,
            held_out,
            borrowed,
        })
    }

    /// Which of the calibration's domains `report`, made on the held-out set,
    /// says nothing about, and what would help; `None` if it covers all.
    pub(super) fn unchecked(&self, report: &Report) -> Option<String> {
        const HELP: &str = "a domain needs two documents or more";
        if self.borrowed {
            return Some(format!(
                "your text has no document to spare, so the loss is measured on the bundled text; {HELP}"
            ));
        }
        let missing: Vec<&str> = self
            .calibration
            .domains
            .iter()
            .map(|domain| domain.name.as_str())
            .filter(|name| report.domains().all(|checked| checked.name != *name))
            .collect();
        (!missing.is_empty()).then(|| {
            format!(
                "not checked, for lack of held-out text: {}; {HELP}",
                missing.join(", ")
            )
        })
    }
}

/// The bundled calibration set.
///
/// # Errors
/// If the cache cannot be written.
pub fn bundled_calibration(
    model: &Model,
    cache: &Cache,
    progress: &dyn Progress,
) -> Result<Corpus> {
    bundled(&Demo::unpack(cache, progress)?.calibration(), model)
}

/// The bundled held-out set.
///
/// # Errors
/// If the cache cannot be written.
pub fn bundled_held_out(model: &Model, cache: &Cache, progress: &dyn Progress) -> Result<Corpus> {
    bundled(&Demo::unpack(cache, progress)?.held_out(), model)
}

/// Reads bundled files, whose chats every model must be able to read: a model
/// without a template gets a plain transcript of them.
fn bundled(sources: &[Source], model: &Model) -> Result<Corpus> {
    let template = ChatTemplate::of(model.checkpoint())?.map_or_else(ChatTemplate::plain, Ok)?;
    Ok(Corpus::read(sources, Some(&template))?)
}

/// Reads files, chats through the model's template.
///
/// # Errors
/// If a file cannot be read.
pub fn read(sources: &[Source], model: &Model) -> Result<Corpus> {
    let template = ChatTemplate::of(model.checkpoint())?;
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
