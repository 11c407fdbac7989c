//! Whether the engine can run the model it has loaded.

use std::sync::Arc;

use mistralrs_core::{MistralRs, NormalRequest, Request, RequestMessage, Response, SamplingParams};

use crate::{Error, Result};

/// Has the engine predict one token. It reports some failures, such as a
/// missing kernel, only when it runs.
///
/// # Errors
/// [`Error::Engine`] with what it said.
pub(super) async fn probe(engine: &Arc<MistralRs>) -> Result<()> {
    let failed = |reason: String| Error::Engine {
        what: "running the model",
        // The rest of a message of several lines is a backtrace.
        reason: reason.lines().next().unwrap_or_default().to_owned(),
    };
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let request = NormalRequest::new_simple(
        RequestMessage::Completion {
            text: "a".to_owned(),
            echo_prompt: false,
            best_of: None,
        },
        SamplingParams {
            max_len: Some(1),
            ..SamplingParams::deterministic()
        },
        sender,
        engine.next_request_id(),
        None,
        None,
    );
    let queue = engine
        .get_sender(None)
        .map_err(|error| failed(error.to_string()))?;
    let sent = queue.send(Request::Normal(Box::new(request))).await;
    sent.map_err(|error| failed(error.to_string()))?;
    match receiver.recv().await {
        Some(Response::CompletionDone(_)) => Ok(()),
        Some(Response::CompletionModelError(reason, _) | Response::ModelError(reason, _)) => {
            Err(failed(reason))
        }
        Some(Response::InternalError(error) | Response::ValidationError(error)) => {
            Err(failed(error.to_string()))
        }
        Some(_) => Err(failed("an answer to another question".to_owned())),
        None => Err(failed("no answer".to_owned())),
    }
}
