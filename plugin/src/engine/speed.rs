//! How long the engine takes to answer.

use std::time::Instant;

use mistralrs_core::{MistralRs, NormalRequest, Request, RequestMessage, Response, SamplingParams};
use prune_eval::speed::Timing;

use super::ask::Failure;
use super::load::Engine;
use super::options::EngineOptions;
use crate::pipeline::Job;
use crate::{Error, Result};

/// Loads what the job leaves and times a request for `generated` more tokens
/// for every prompt but the first, which only warms up. One request runs at a
/// time, and none uses what another left in a cache.
///
/// # Errors
/// Those of the job, and of the engine.
pub fn time(
    job: Job,
    options: &EngineOptions,
    prompts: &[Vec<u32>],
    generated: u32,
) -> Result<Vec<Timing>> {
    let options = EngineOptions {
        max_seqs: 1,
        prefix_cache_n: 0,
        run_on: true,
        ..options.clone()
    };
    let failed = |reason: String| Error::Engine {
        what: "timing the model",
        reason,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(error.to_string()))?;
    runtime.block_on(async {
        let engine = Engine::load(job, &options).await?;
        let mut timings = Vec::with_capacity(prompts.len());
        for prompt in prompts {
            let timing = answer(&engine.mistralrs, prompt, generated).await;
            timings.push(timing.map_err(|failure| failed(failure.reason()))?);
        }
        timings.drain(..timings.len().min(1));
        Ok(timings)
    })
}

/// Times one streamed answer.
async fn answer(engine: &MistralRs, prompt: &[u32], generated: u32) -> Result<Timing, Failure> {
    let (sender, mut receiver) = tokio::sync::mpsc::channel(generated as usize + 1);
    let mut request = NormalRequest::new_simple(
        RequestMessage::CompletionTokens(prompt.to_vec()),
        SamplingParams {
            temperature: Some(0.0),
            max_len: Some(generated as usize),
            ..SamplingParams::deterministic()
        },
        sender,
        engine.next_request_id(),
        None,
        None,
    );
    request.is_streaming = true;
    let queue = engine.get_sender(None).map_err(Failure::new)?;
    let asked = Instant::now();
    let sent = queue.send(Request::Normal(Box::new(request))).await;
    sent.map_err(Failure::new)?;
    let (mut first, mut last) = (None, asked);
    // Chunks stop where a character is not whole; the channel closes where the
    // answer is.
    while let Some(response) = receiver.recv().await {
        match response {
            Response::CompletionChunk(_) => {
                last = Instant::now();
                first.get_or_insert(last);
            }
            Response::CompletionModelError(reason, _) => return Err(Failure::new(reason)),
            Response::InternalError(error) | Response::ValidationError(error) => {
                return Err(Failure::new(error))
            }
            _ => return Err(Failure::other()),
        }
    }
    let first = first.ok_or_else(|| Failure::new("no answer"))?;
    Ok(Timing {
        prompt: prompt.len() as u32,
        generated,
        first: (first - asked).as_secs_f64(),
        rest: (last - first).as_secs_f64(),
    })
}
