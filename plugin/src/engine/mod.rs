//! mistral.rs: loading a model into it and asking it.
//!
//! [`PruningLoader`] makes sure that the pruned checkpoint exists and lets the
//! engine's own loader read it, `load` starts the engine on it, `ask` and
//! `score` are one request, and [`EngineBackend`] has it answer evaluations.
//! What is pruned, and how, is [`crate::pipeline`]'s business; HTTP is
//! [`crate::server`]'s.

pub(crate) mod ask;
mod backend;
pub(crate) mod load;
mod loader;
mod options;
mod paths;
mod probe;
pub(crate) mod score;
mod speed;

pub use backend::EngineBackend;
pub use loader::{has_chat_template, LoaderOptions, PruningLoader};
pub use mistralrs_core::ModelDType;
pub use options::{together, EngineOptions, PagedAttention};
pub use speed::time;

/// A failure of the engine with all its causes, which its own error type would
/// print only in part.
pub(crate) fn failed(what: &'static str) -> impl FnOnce(anyhow::Error) -> crate::Error {
    move |error| match error.downcast::<crate::Error>() {
        Ok(ours) => ours,
        Err(error) => crate::Error::Engine {
            what,
            reason: format!("{error:#}"),
        },
    }
}
