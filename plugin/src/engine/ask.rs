//! One request to the engine, from its queue to its answer.

use mistralrs_core::{MistralRs, NormalRequest, Request, RequestMessage, Response, SamplingParams};

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The request cannot be answered.
    Refused(String),
    /// The engine failed.
    Failed(String),
}

impl Failure {
    /// The engine failed in this way.
    pub(crate) fn new(reason: impl std::fmt::Display) -> Self {
        let reason = reason.to_string();
        // The rest of a message of several lines is a backtrace.
        Self::Failed(reason.lines().next().unwrap_or_default().to_owned())
    }

    /// An answer that is not to this question.
    pub(crate) fn other() -> Self {
        Self::new("an answer to another question")
    }

    /// What the engine said.
    pub(crate) fn reason(self) -> String {
        match self {
            Self::Refused(reason) | Self::Failed(reason) => reason,
        }
    }
}

/// A request for one answer that does not stream.
pub(crate) struct Question {
    /// What to continue or to score.
    pub(crate) message: RequestMessage,
    /// How to continue it.
    pub(crate) sampling: SamplingParams,
    /// Whether log-probabilities of what is generated are wanted.
    pub(crate) logprobs: bool,
    /// Whether logits are wanted in place of a continuation.
    pub(crate) raw_logits: bool,
}

/// The engine's answer, once the engine has let go of the request: it steps a
/// request for raw logits once more after it has answered it.
///
/// # Errors
/// [`Failure`]
pub(crate) async fn ask(engine: &MistralRs, question: Question) -> Result<Response, Failure> {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
    let mut request = NormalRequest::new_simple(
        question.message,
        question.sampling,
        sender,
        engine.next_request_id(),
        None,
        None,
    );
    request.return_logprobs = question.logprobs;
    request.return_raw_logits = question.raw_logits;
    let queue = engine.get_sender(None).map_err(Failure::new)?;
    let sent = queue.send(Request::Normal(Box::new(request))).await;
    sent.map_err(Failure::new)?;
    let answer = receiver.recv().await;
    while receiver.recv().await.is_some() {}
    match answer {
        Some(Response::CompletionModelError(reason, _) | Response::ModelError(reason, _)) => {
            Err(Failure::new(reason))
        }
        Some(Response::InternalError(error)) => Err(Failure::new(error)),
        Some(Response::ValidationError(error)) => Err(Failure::Refused(error.to_string())),
        Some(answer) => Ok(answer),
        None => Err(Failure::new("no answer")),
    }
}
