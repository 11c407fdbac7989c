//! Choices on their way: one request to the engine each.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex};
use std::task::{ready, Context, Poll};

use axum::http::StatusCode;
use mistralrs_core::{NormalRequest, Request, Response};
use tokio::sync::mpsc::{channel, Receiver, Sender, WeakSender};

use super::asked::Asked;
use super::fold::Usage;
use super::held::{Held, Release};
use super::piece::{self, Piece};
use super::stop::Stops;
use super::watch::{Seen, Watch};
use super::Model;
use crate::server::log::Tally;
use crate::server::problem::Problem;

/// A request for one choice, not yet sent.
pub(super) struct Prepared {
    request: Box<NormalRequest>,
    watch: Arc<Watch>,
    stops: Stops,
    echo: String,
    receiver: Receiver<Response>,
    sender: WeakSender<Response>,
    most: Option<usize>,
}

/// Where the engine is to answer.
pub(super) struct Channel {
    sender: Sender<Response>,
    receiver: Receiver<Response>,
}

impl Channel {
    /// One that never makes the engine wait for a client that reads slowly.
    pub(super) fn new(model: &Model) -> Self {
        let (sender, receiver) = channel(model.context.min(1 << 20) + 8);
        Self { sender, receiver }
    }

    /// Its sender.
    pub(super) fn sender(&self) -> Sender<Response> {
        self.sender.clone()
    }
}

impl Prepared {
    /// Choice `index` of what is asked, as the engine takes it; `request`
    /// answers into `channel`. The text begins with `echo`.
    pub(super) fn new(
        mut request: Box<NormalRequest>,
        channel: Channel,
        index: usize,
        asked: &Asked,
        echo: String,
        model: &Model,
    ) -> Self {
        let watch = Arc::new(Watch {
            end: model.end.clone(),
            context: model.context,
            bias: asked.bias.clone(),
            draw: asked.draw.map(|draw| draw.of_choice(index)),
            top: asked.top,
            seen: Mutex::default(),
        });
        request.is_streaming = true;
        request.return_logprobs = false;
        request.sampling_params.n_choices = 1;
        request.logits_processors = Some(vec![watch.clone()]);
        Self {
            most: request.sampling_params.max_len,
            request,
            watch,
            stops: Stops::new(asked.stop.clone()),
            echo,
            sender: channel.sender.downgrade(),
            receiver: channel.receiver,
        }
    }
}

/// One choice on its way.
struct Run {
    queue: Sender<Request>,
    receiver: Receiver<Response>,
    watch: Arc<Watch>,
    stops: Stops,
    echo: String,
    /// White space before an answer is not part of it.
    begun: bool,
    ended: bool,
    /// Whether its prompt is counted.
    read: bool,
    /// Tokens that are counted and told so far.
    counted: usize,
    told: usize,
    /// Tokens that were asked for.
    most: Option<usize>,
    release: Release,
}

impl Run {
    /// Sends a request.
    ///
    /// # Errors
    /// If there is no such model, or no engine.
    async fn start(one: Prepared, model: &Model, held: &Arc<Held>) -> Result<Self, Problem> {
        let failed = |error: String| Problem::said(StatusCode::INTERNAL_SERVER_ERROR, error);
        let id = one.request.model_id.clone();
        let queue = model.mistralrs.get_sender(id.as_deref());
        let queue = queue.map_err(|error| failed(error.to_string()))?;
        // Made before the request is sent, so that nothing is lost if the
        // client leaves now.
        let run = Self {
            queue: queue.clone(),
            receiver: one.receiver,
            watch: one.watch,
            stops: one.stops,
            echo: one.echo,
            begun: false,
            read: false,
            ended: false,
            counted: 0,
            told: 0,
            most: one.most,
            release: Release::new(one.sender, held.clone()),
        };
        let sent = queue.send(Request::Normal(one.request)).await;
        sent.map_err(|_| failed("the engine has stopped".to_owned()))?;
        Ok(run)
    }

    fn poll(
        &mut self,
        context: &mut Context<'_>,
        tally: &Tally,
        first_of_prompt: bool,
    ) -> Poll<Result<Piece, Problem>> {
        loop {
            let response = ready!(self.receiver.poll_recv(context));
            let seen = self.count(tally, first_of_prompt);
            let piece = match response {
                Some(response) => piece::read(response, seen.prompt.is_some()),
                None => self.end(&seen),
            };
            let piece = piece.map(|piece| self.told(piece, &seen));
            match &piece {
                Ok(piece) if *piece == Piece::default() => continue,
                Ok(piece) if piece.finish.is_none() => {}
                _ => {
                    self.ended = true;
                    self.receiver.close();
                }
            }
            return Poll::Ready(piece);
        }
    }

    /// Counts what is new.
    fn count(&mut self, tally: &Tally, first_of_prompt: bool) -> Seen {
        let watched = self.watch.seen();
        let seen = Seen {
            scored: watched.scored.get(self.told..).unwrap_or_default().to_vec(),
            ..*watched
        };
        drop(watched);
        if let Some(prompt) = seen.prompt.filter(|_| !self.read) {
            self.read = true;
            if first_of_prompt {
                tally.prompt(prompt as u64);
            }
        }
        let new = seen.generated.saturating_sub(self.counted);
        if new > 0 {
            tally.generated(new as u64);
        }
        self.counted = seen.generated;
        seen
    }

    /// The engine has let go without a last word: it says none where the last
    /// token is a part of a character, or where it has stopped itself.
    fn end(&self, seen: &Seen) -> Result<Piece, Problem> {
        if seen.prompt.is_none() || self.queue.is_closed() {
            let message = "the engine stopped while it answered";
            return Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, message));
        }
        let all = self.most.is_some_and(|most| seen.generated >= most);
        Ok(Piece {
            finish: Some(if all { "length" } else { "stop" }.to_owned()),
            ..Piece::default()
        })
    }

    /// A piece without what is not part of the answer.
    fn told(&mut self, mut piece: Piece, seen: &Seen) -> Piece {
        if !self.begun {
            piece.text = piece.text.trim_start().to_owned();
            self.begun = !piece.text.is_empty();
        }
        let (mut text, stopped) = self.stops.push(&piece.text);
        if stopped {
            piece.finish = Some("stop".to_owned());
        } else if piece.finish.is_some() {
            text += &self.stops.rest();
            if seen.full {
                piece.finish = Some("length".to_owned());
            }
        }
        piece.text = std::mem::take(&mut self.echo) + &text;
        // The engine may be ahead of what it has sent: a token for a piece.
        let ready = match piece.finish {
            Some(_) => &seen.scored[..],
            None => &seen.scored[..seen.scored.len().min(1)],
        };
        self.told += ready.len();
        piece.scored = ready.to_vec();
        piece
    }
}

/// All choices of a request on their way, so many at a time as the engine can
/// answer.
pub(super) struct Runs {
    model: Arc<Model>,
    held: Arc<Held>,
    tally: Tally,
    waiting: VecDeque<Prepared>,
    runs: Vec<Run>,
    /// Choices of a prompt.
    choices: usize,
    count: usize,
}

impl Runs {
    /// The requests, `choices` of every prompt, none of them sent.
    pub(super) fn new(
        model: Arc<Model>,
        prepared: Vec<Prepared>,
        held: Arc<Held>,
        tally: Tally,
        choices: usize,
    ) -> Self {
        Self {
            model,
            held,
            tally,
            choices,
            count: prepared.len(),
            runs: Vec::with_capacity(prepared.len()),
            waiting: prepared.into(),
        }
    }

    /// The next piece and the choice that it is of; `None` after the last.
    pub(super) async fn next(&mut self) -> Option<Result<(usize, Piece), Problem>> {
        loop {
            if let Err(problem) = self.send().await {
                return Some(Err(problem));
            }
            let next = poll_fn(|context| self.poll(context)).await;
            if next.is_some() || self.waiting.is_empty() {
                return next;
            }
        }
    }

    /// Sends as many requests as there is room for.
    async fn send(&mut self) -> Result<(), Problem> {
        while !self.waiting.is_empty() {
            let (ended, running): (Vec<_>, Vec<_>) = self.runs.iter().partition(|run| run.ended);
            if running.len() >= self.model.together {
                return Ok(());
            }
            // One that has ended may be in the engine still.
            if self.runs.len() >= self.model.together {
                for run in ended {
                    run.release.wait().await;
                }
            }
            if let Some(one) = self.waiting.pop_front() {
                let run = Run::start(one, &self.model, &self.held).await?;
                self.runs.push(run);
            }
        }
        Ok(())
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<(usize, Piece), Problem>>> {
        let mut all_ended = true;
        for (index, run) in self.runs.iter_mut().enumerate() {
            if run.ended {
                continue;
            }
            match run.poll(context, &self.tally, index % self.choices == 0) {
                Poll::Ready(piece) => return Poll::Ready(Some(piece.map(|it| (index, it)))),
                Poll::Pending => all_ended = false,
            }
        }
        if all_ended {
            Poll::Ready(None)
        } else {
            Poll::Pending
        }
    }

    /// How many choices there are, of all prompts.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Tokens so far. A prompt counts once, however many choices it has.
    pub(super) fn usage(&self) -> Usage {
        let prompts = self.runs.iter().step_by(self.choices);
        Usage {
            prompt: prompts.filter_map(|run| run.watch.seen().prompt).sum(),
            completion: self.runs.iter().map(|run| run.watch.seen().generated).sum(),
        }
    }
}
