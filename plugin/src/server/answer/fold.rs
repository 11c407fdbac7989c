//! A whole answer out of its pieces.

use serde_json::{json, Value};

use super::piece::Piece;
use super::run::Runs;
use super::scored::Scored;
use crate::server::problem::Problem;

/// One choice, whole.
#[derive(Debug, Default)]
pub(super) struct Folded {
    /// Its text.
    pub(super) text: String,
    /// Thoughts, of models that tell them apart.
    pub(super) reasoning: Option<String>,
    /// Calls of tools.
    pub(super) tools: Vec<Value>,
    /// Its tokens, if their log-probabilities are wanted.
    pub(super) scored: Vec<Scored>,
    /// Why it ended.
    pub(super) finish: Option<String>,
}

impl Folded {
    fn add(&mut self, piece: Piece) {
        self.text += &piece.text;
        if let Some(more) = piece.reasoning {
            *self.reasoning.get_or_insert_default() += &more;
        }
        self.tools.extend(piece.tools);
        self.scored.extend(piece.scored);
        self.finish = piece.finish.or(self.finish.take());
    }
}

/// Tokens of a request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    /// Of its prompts.
    pub(super) prompt: usize,
    /// Of all choices.
    pub(super) completion: usize,
}

impl Usage {
    /// As OpenAI has it.
    pub(super) fn json(self) -> Value {
        json!({
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        })
    }
}

/// Waits for all pieces, of which `first` is the first.
///
/// # Errors
/// The first choice that fails, whatever the others are.
pub(super) async fn all(
    mut runs: Runs,
    first: Option<(usize, Piece)>,
) -> Result<(Vec<Folded>, Usage), Problem> {
    let mut folded: Vec<Folded> = Vec::new();
    folded.resize_with(runs.count(), Folded::default);
    let mut next = first;
    while let Some((index, piece)) = next {
        folded[index].add(piece);
        next = runs.next().await.transpose()?;
    }
    Ok((folded, runs.usage()))
}
