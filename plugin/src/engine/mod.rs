//! Everything that names mistral.rs.
//!
//! [`PruningLoader`] makes sure that the pruned checkpoint exists and lets the
//! engine's own loader read it; [`Server`] puts the engine behind an
//! OpenAI-compatible HTTP server with our routes beside its own, and
//! [`EngineBackend`] has it answer evaluations. What is pruned, and how, is
//! [`crate::pipeline`]'s business.

mod access;
mod ask;
mod backend;
mod echo;
mod load;
mod loader;
mod options;
mod paths;
mod probe;
mod refusal;
mod rename;
mod score;
mod serve;
mod speed;
mod turn;

pub use access::ApiKey;
pub use backend::EngineBackend;
pub use loader::{LoaderOptions, PruningLoader};
pub use mistralrs_core::ModelDType;
pub use options::{EngineOptions, PagedAttention};
pub use serve::{listen, Server};
pub use speed::time;

/// A failure of the engine with all its causes, which its own error type would
/// print only in part.
fn failed(what: &'static str) -> impl FnOnce(anyhow::Error) -> crate::Error {
    move |error| match error.downcast::<crate::Error>() {
        Ok(ours) => ours,
        Err(error) => crate::Error::Engine {
            what,
            reason: format!("{error:#}"),
        },
    }
}
