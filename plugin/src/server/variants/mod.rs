//! Several variants of one model behind one address.
//!
//! ```text
//! add       a client's wish → a listed variant
//! choose    a request → the variant that its `model` field names
//! table     names → loaded variants, one of them the default
//! variant   a loaded model behind its own layers and routes
//! make      a job → a variant
//! routes    `/v1/models`, `/v1/pruning`, `/v1/variants`
//! entry     a variant → what the routes say of it
//! traffic   requests → a sample of them, in memory
//! recalibrate  the sample → another plan in the place of one
//! problem   what goes wrong, said as OpenAI clients expect it
//! ```
//!
//! Owns which variants there are and which of them answers. What a variant is
//! made of is [`crate::pipeline`]'s business, how it answers is that of the
//! layers beside this module.
//!
//! ### Why every variant has an engine of its own
//!
//! One `MistralRs` (0.8.1) can hold several models, but it cannot part with
//! one that is in use: `remove_model` tells the model's thread to stop, which
//! it does with requests half answered, and waits for room in its queue with a
//! call that panics within an asynchronous runtime, while it holds the lock of
//! all engines, which is then poisoned for all of them. It does not remove the
//! last model, and after the default has gone the default is any of the rest.
//! Parts of its routes ask for the default model's category or logger whatever
//! model the request names.
//!
//! An engine each costs no more: a thread and the model's weights, which every
//! model of one `MistralRs` has to itself too. One that has panicked starts
//! anew by itself and disturbs no other. Its thread ends with the last
//! reference to it, and every request holds one until its answer is sent; so a
//! variant that is taken out of the table ends after its last request, by
//! itself. The one switch that engines share stops all sequences; only a
//! request that is never sent here sets it. What an engine leaves behind either
//! way is one thread that sleeps: its logger's does not end.

mod add;
mod choose;
mod entry;
mod make;
mod problem;
mod recalibrate;
mod routes;
mod table;
mod traffic;
mod variant;

use std::sync::Arc;

use serde_json::Value;

pub(super) use routes::routes;

use super::options::ServerOptions;
use crate::engine::EngineOptions;
use crate::format;
use crate::pipeline::{Change, Job, Outcome, Reporter};
use crate::{Error, Result};
use make::Maker;
use table::Table;
use traffic::Sample;
use variant::Origin;

/// Which variants there are at first, and who may change them.
#[derive(Clone, Default)]
pub struct VariantOptions {
    /// What else becomes of the model, beside what its job says.
    pub beside: Vec<Change>,
    /// Tokens of requests that are kept in memory to learn from; `None` keeps
    /// nothing.
    pub sample: Option<usize>,
    /// Who is told of variants; `None` is whom the job tells.
    pub reporter: Option<Arc<dyn Reporter>>,
}

/// The variants of one model, and what it takes to make more of them.
pub(super) struct Variants {
    table: Table,
    maker: Maker,
    changeable: bool,
    sample: Option<Arc<Sample>>,
}

impl Variants {
    /// Does the jobs, then loads what they have come to. The first is the
    /// default. Call it within a runtime that has more than one thread.
    ///
    /// # Errors
    /// [`Error::Option`] if two would have one name; those of the jobs, and of
    /// the engine.
    pub(super) async fn load(
        job: Job,
        engine: EngineOptions,
        options: &VariantOptions,
        server: &ServerOptions,
    ) -> Result<Arc<Self>> {
        let reporter = options.reporter.clone();
        let reporter = reporter.unwrap_or_else(|| job.reporter.clone());
        let changes = [&[job.change.clone()][..], &options.beside].concat();
        if changes.len() > 1 {
            engine.paged_attention.leaves_room(&job.device)?;
        }
        if options.sample.is_some() {
            expect_no_traffic(&job)?;
        }
        let mut maker = Maker::new(job, engine);
        let wanted = named(&maker, changes)?;
        let mut ready = Vec::with_capacity(wanted.len());
        for (id, change) in wanted {
            let made = tokio::task::block_in_place(|| maker.ready(id, change))?;
            ready.push(made);
        }
        // Those that come later are news.
        maker.tell(reporter.clone());
        if ready.len() > 1 {
            let sizes: Vec<String> = ready
                .iter()
                .map(|it| format!("{} {}", it.id(), format::bytes(it.bytes())))
                .collect();
            let all = ready.iter().map(make::Made::bytes).sum();
            reporter.report(
                "Loading",
                &format!("{} of weights: {}", format::bytes(all), sizes.join(", ")),
            );
        }
        let mut loaded = Vec::with_capacity(ready.len());
        for made in ready {
            let origin = Origin::of(made.change());
            loaded.push(maker.load(made, origin).await?);
        }
        let mut loaded = loaded.into_iter();
        let default = loaded.next().ok_or_else(|| Error::Engine {
            what: "loading the model",
            reason: "expected at least one variant, found none".to_owned(),
        })?;
        let sample = match options.sample {
            Some(most) => {
                reporter.report(
                    "Sampling",
                    &format!(
                        "up to {} tokens of requests, in memory only",
                        format::count(most as u64)
                    ),
                );
                Some(Sample::new(most, &default.outcome.dir)?)
            }
            None => None,
        };
        let table = Table::new(default);
        loaded.for_each(|variant| table.insert(variant));
        Ok(Arc::new(Self {
            table,
            maker,
            changeable: server.api_key.is_some() || server.loopback,
            sample,
        }))
    }

    /// What is served under which name, the default first.
    pub(super) fn outcomes(&self) -> Vec<(String, Outcome)> {
        let listed = self.table.list().into_iter();
        listed
            .map(|listed| (listed.variant.id.clone(), listed.variant.outcome.clone()))
            .collect()
    }

    /// The name of the variant that answers where none is named.
    pub(super) fn default_id(&self) -> Option<String> {
        let listed = self.table.list();
        listed.first().map(|listed| listed.variant.id.clone())
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.table.list().len()
    }

    /// How much of what clients ask is kept; `None` if nothing is to be.
    pub(super) fn traffic(&self) -> Option<Value> {
        self.sample.as_ref().map(|sample| sample.describe())
    }
}

/// Fails if the text of `job` has the domain that requests become.
fn expect_no_traffic(job: &Job) -> Result<()> {
    match job.texts.iter().find(|it| it.domain == traffic::DOMAIN) {
        None => Ok(()),
        Some(text) => Err(Error::Option {
            option: "--learn-from-traffic",
            expected: format!(
                "calibration text of other domains than `{}`",
                traffic::DOMAIN
            ),
            found: text.path.display().to_string(),
        }),
    }
}

/// What the variants are to be called.
///
/// # Errors
/// [`Error::Option`] if two would have one name.
fn named(maker: &Maker, changes: Vec<Change>) -> Result<Vec<(String, Change)>> {
    let mut wanted: Vec<(String, Change)> = Vec::with_capacity(changes.len());
    for change in changes {
        let id = maker.id(&change);
        if wanted.iter().any(|(other, _)| *other == id) {
            return Err(Error::Option {
                option: "--variant",
                expected: "variants with different names".to_owned(),
                found: format!("`{id}` twice"),
            });
        }
        wanted.push((id, change));
    }
    Ok(wanted)
}
