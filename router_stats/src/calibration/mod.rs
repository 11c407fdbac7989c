//! From documents to statistics: what text a model is run on, and running it.
//!
//! [`Corpus`] reads documents by domain, [`ChatTemplate`] renders chats the
//! way the model was trained to read them, [`Sequences`] packs tokens into
//! unpadded sequences, and [`calibrate`] drives the observed forward pass over
//! them. What is measured belongs to [`crate::observer`].

mod corpus;
mod pack;
mod run;
mod state;
mod template;

pub use corpus::{Corpus, Domain, Source};
pub(crate) use pack::batches;
pub use pack::{PackOptions, Sequences};
pub use run::{calibrate, calibrate_arriving, CalibrateOptions, Weights};
pub use state::remove_state;
pub use template::{special_tokens, ChatTemplate};
