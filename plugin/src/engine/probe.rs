//! Whether the engine can run the model it has loaded.

use mistralrs_core::{MistralRs, RequestMessage, Response, SamplingParams};

use super::ask::{ask, Failure, Question};
use crate::{Error, Result};

/// Has the engine predict one token. It reports some failures, such as a
/// missing kernel, only when it runs.
///
/// # Errors
/// [`Error::Engine`] with what it said.
pub(super) async fn probe(engine: &MistralRs) -> Result<()> {
    let question = Question {
        message: RequestMessage::Completion {
            text: "a".to_owned(),
            echo_prompt: false,
            best_of: None,
        },
        sampling: SamplingParams {
            max_len: Some(1),
            ..SamplingParams::deterministic()
        },
        logprobs: false,
        raw_logits: false,
    };
    let failure = match ask(engine, question).await {
        Ok(Response::CompletionDone(_)) => return Ok(()),
        Ok(_) => Failure::other(),
        Err(failure) => failure,
    };
    Err(Error::Engine {
        what: "running the model",
        reason: failure.reason(),
    })
}
