//! An answer in events, as its pieces come.

use std::convert::Infallible;
use std::sync::Arc;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use serde_json::{json, Value};
use tokio::time::{timeout_at, Instant};

use super::piece::Piece;
use super::run::Runs;
use super::Shape;
use crate::server::limits::too_slow;

/// A stream that is being sent.
struct Stream {
    runs: Runs,
    shape: Arc<dyn Shape>,
    /// The piece that came while the headers had not been sent.
    first: Option<(usize, Piece)>,
    /// Choices that have begun.
    begun: Vec<bool>,
    until: Instant,
    usage: bool,
    state: State,
}

enum State {
    Pieces,
    Done,
    End,
}

/// The events of `runs`, of which `first` is the first piece. One that is not
/// whole at `until` ends with an error.
pub(super) fn stream(
    runs: Runs,
    first: Option<(usize, Piece)>,
    shape: Arc<dyn Shape>,
    until: Instant,
    usage: bool,
) -> Response {
    let stream = Stream {
        begun: vec![false; runs.count()],
        state: State::Pieces,
        runs,
        shape,
        first,
        until,
        usage,
    };
    let events = futures_util::stream::unfold(stream, |mut stream| async move {
        let data = stream.next().await?;
        Some((Ok::<_, Infallible>(Event::default().data(data)), stream))
    });
    Sse::new(events)
        .keep_alive(KeepAlive::new())
        .into_response()
}

impl Stream {
    /// The data of the next event.
    async fn next(&mut self) -> Option<String> {
        match self.state {
            State::Pieces => Some(self.piece().await),
            State::Done => {
                self.state = State::End;
                Some("[DONE]".to_owned())
            }
            State::End => None,
        }
    }

    async fn piece(&mut self) -> String {
        let next = match self.first.take() {
            Some(first) => Some(Ok(first)),
            None => match timeout_at(self.until, self.runs.next()).await {
                Ok(next) => next,
                Err(_) => Some(Err(too_slow())),
            },
        };
        match next {
            Some(Ok((index, piece))) => {
                let first = !std::mem::replace(&mut self.begun[index], true);
                self.shape.event(index, &piece, first).to_string()
            }
            Some(Err(problem)) => {
                self.state = State::End;
                error(&problem.error())
            }
            None if self.usage => {
                self.state = State::Done;
                self.shape.usage(self.runs.usage()).to_string()
            }
            None => {
                self.state = State::End;
                "[DONE]".to_owned()
            }
        }
    }
}

/// A failure in the midst of a stream, whose status is sent already.
fn error(error: &Value) -> String {
    json!({ "error": error }).to_string()
}
