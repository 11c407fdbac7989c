//! The engine as what answers an evaluation.

use std::sync::Arc;

use mistralrs_core::{MistralRs, RequestMessage, Response, SamplingParams, StopTokens};
use prune_eval::backend::{before_stop, Backend, Finish, Generation, Prompt, TokenScore};
use prune_eval::{Error, Result};
use router_stats::progress::{Progress, Update};
use tokenizers::Tokenizer;
use tokio::runtime::Runtime;

use super::ask::{ask, Failure, Question};
use super::load::Engine;
use super::options::EngineOptions;
use super::score::{logits, Logits};
use crate::pipeline::Job;

/// A model in an engine of this process, asked one request at a time.
pub struct EngineBackend {
    // Dropped before the runtime that it runs in.
    engine: Arc<MistralRs>,
    id: String,
    tokenizer: Tokenizer,
    end_of_text: Vec<u32>,
    runtime: Runtime,
}

impl EngineBackend {
    /// Does the job and loads its result. Neither a key-value cache of another
    /// request is used nor more than one request run at a time, whatever
    /// `options` say: what is measured must not depend on what was asked
    /// before. A text ends at `end_of_text`, of which the first stands for an
    /// empty context.
    ///
    /// # Errors
    /// Those of the job, and of the engine.
    pub fn load(job: Job, options: &EngineOptions, end_of_text: &[u32]) -> crate::Result<Self> {
        let options = EngineOptions {
            prefix_cache_n: Some(0),
            max_seqs: 1,
            ..options.clone()
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| crate::Error::Engine {
                what: "starting",
                reason: error.to_string(),
            })?;
        let engine = runtime.block_on(Engine::load(job, &options))?;
        Ok(Self {
            tokenizer: engine.tokenizer()?,
            id: engine.id,
            engine: engine.mistralrs,
            end_of_text: end_of_text.to_vec(),
            runtime,
        })
    }

    fn scores(&self, tokens: &[u32]) -> Result<Vec<TokenScore>, Failure> {
        let logits: Logits = self.runtime.block_on(logits(&self.engine, tokens))?;
        let score = |(before, &token): (usize, &u32)| {
            let successor = logits.after(before)?;
            Ok(TokenScore {
                ln_p: successor.ln_p(token) as f32,
                greedy: successor.top(1) == [token],
            })
        };
        tokens[1..].iter().enumerate().map(score).collect()
    }

    /// The greedy continuation, by the tokens that the engine names: it cuts
    /// white space off the start of its text.
    fn continuation(&self, prompt: &Prompt) -> Result<Generation, Failure> {
        let question = Question {
            message: RequestMessage::CompletionTokens(prompt.tokens.clone()),
            sampling: SamplingParams {
                temperature: Some(0.0),
                top_n_logprobs: 1,
                max_len: Some(prompt.max_tokens),
                stop_toks: Some(prompt.stop.clone())
                    .filter(|stop| !stop.is_empty())
                    .map(StopTokens::Seqs),
                ..SamplingParams::deterministic()
            },
            logprobs: true,
            raw_logits: false,
        };
        let answer = self.runtime.block_on(ask(&self.engine, question))?;
        let Response::CompletionDone(answer) = answer else {
            return Err(Failure::other());
        };
        let named = answer.choices.into_iter().next().and_then(|it| it.logprobs);
        let named = named.and_then(|logprobs| logprobs.content);
        let tokens: Option<Vec<u32>> = named
            .unwrap_or_default()
            .iter()
            .map(|token| Some(token.top_logprobs.first()?.token))
            .collect();
        let tokens = tokens.ok_or_else(Failure::other)?;
        let own = match tokens.split_last() {
            Some((last, before)) if self.end_of_text.contains(last) => before,
            _ => &tokens[..],
        };
        let text = self.tokenizer.decode(own, true);
        let text = text.map_err(|error| Failure::Failed(error.to_string()))?;
        let (text, stopped) = match before_stop(&text, &prompt.stop) {
            Some(before) => (before.to_owned(), true),
            None => (text, own.len() < tokens.len()),
        };
        Ok(Generation {
            text,
            tokens: tokens.len(),
            finish: if stopped || tokens.len() < prompt.max_tokens {
                Finish::Stop
            } else {
                Finish::Length
            },
        })
    }

    /// Answers one after the other and says how far it is.
    fn each<T, A>(
        &self,
        stage: &'static str,
        asked: &[T],
        progress: &dyn Progress,
        answer: impl Fn(&T) -> Result<A, Failure>,
    ) -> Result<Vec<A>> {
        let mut answers = Vec::with_capacity(asked.len());
        for (index, one) in asked.iter().enumerate() {
            let answer = answer(one).map_err(|failure| Error::Backend {
                name: format!("`{}` in the engine, request {index}", self.id),
                expected: "an answer".to_owned(),
                found: failure.reason(),
                advice: None,
            })?;
            answers.push(answer);
            progress.step(&Update {
                stage,
                detail: &self.id,
                unit: "requests",
                done: index as u64 + 1,
                total: asked.len() as u64,
            })?;
        }
        Ok(answers)
    }
}

impl Backend for EngineBackend {
    fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    fn end_of_text(&self) -> &[u32] {
        &self.end_of_text
    }

    fn score(
        &mut self,
        sequences: &[Vec<u32>],
        progress: &dyn Progress,
    ) -> Result<Vec<Vec<TokenScore>>> {
        self.each("Scoring", sequences, progress, |tokens| self.scores(tokens))
    }

    fn generate(&mut self, prompts: &[Prompt], progress: &dyn Progress) -> Result<Vec<Generation>> {
        self.each("Generating", prompts, progress, |prompt| {
            self.continuation(prompt)
        })
    }
}
