//! What happens at every token of a choice: the engine lets us see the logits
//! and change them.
//!
//! From here come exact counts of tokens, natural log-probabilities (the
//! engine's are to the base 10, and not of probabilities at temperature 0),
//! seeds and biases (which it ignores), and an end where the context is full
//! (past which it fails, with all requests of the batch).

use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::Tensor;
use mistralrs_core::CustomLogitsProcessor;

use super::draw::Draw;
use super::scored::Scored;

/// What is to be done at every token of one choice.
#[derive(Debug)]
pub(super) struct Watch {
    /// Tokens that end a text.
    pub(super) end: Vec<u32>,
    /// Tokens of the prompt and the answer together.
    pub(super) context: usize,
    /// Added to the logits of tokens.
    pub(super) bias: Vec<(u32, f32)>,
    /// How a token is drawn; `None` leaves it to the engine.
    pub(super) draw: Option<Draw>,
    /// Alternatives whose log-probabilities are kept; `None` for none at all.
    pub(super) top: Option<usize>,
    /// What was seen so far.
    pub(super) seen: Mutex<Seen>,
}

/// What was seen of a choice so far.
#[derive(Debug, Default, Clone)]
pub(super) struct Seen {
    /// Tokens of the prompt, once it is read.
    pub(super) prompt: Option<usize>,
    /// Tokens generated.
    pub(super) generated: usize,
    /// Whether the context is full.
    pub(super) full: bool,
    /// Tokens with their log-probabilities, if they are wanted.
    pub(super) scored: Vec<Scored>,
}

impl Watch {
    /// What was seen so far.
    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CustomLogitsProcessor for Watch {
    /// From logits [V] to logits [V]: as they are, with biases, or with one
    /// token that is left. A constrained token may be asked for twice.
    fn apply(&self, logits: &Tensor, context: &[u32]) -> candle_core::Result<Tensor> {
        let mut seen = self.seen();
        let prompt = *seen.prompt.get_or_insert(context.len());
        let position = context.len() - prompt;
        let full = context.len() >= self.context && !self.end.is_empty();
        if full {
            seen.full = true;
            return only(self.end[0], logits);
        }
        seen.generated = position + 1;
        if self.bias.is_empty() && self.draw.is_none() {
            return Ok(logits.clone());
        }
        let mut values = logits.to_vec1::<f32>()?;
        for &(token, bias) in &self.bias {
            if let Some(value) = values.get_mut(token as usize) {
                *value += bias;
            }
        }
        let Some(draw) = &self.draw else {
            let count = values.len();
            return Tensor::from_vec(values, count, logits.device());
        };
        let token = draw.token(&values, position);
        if let Some(top) = self.top {
            seen.scored.truncate(position);
            if !self.end.contains(&token) {
                seen.scored.push(Scored::new(token, top, &values)?);
            }
        }
        drop(seen);
        only(token, logits)
    }
}

/// Logits that leave one token.
fn only(token: u32, like: &Tensor) -> candle_core::Result<Tensor> {
    let count = like.elem_count();
    let mut values = vec![f32::NEG_INFINITY; count];
    if let Some(value) = values.get_mut(token as usize) {
        *value = 0.0;
    }
    Tensor::from_vec(values, count, like.device())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn watch() -> Watch {
        Watch {
            end: vec![2],
            context: 5,
            bias: Vec::new(),
            draw: None,
            top: None,
            seen: Mutex::default(),
        }
    }

    fn apply(watch: &Watch, context: &[u32]) -> Vec<f32> {
        let logits = Tensor::new(&[0.0f32, 1.0, -1.0], &Device::Cpu).unwrap();
        watch.apply(&logits, context).unwrap().to_vec1().unwrap()
    }

    const COLD: Draw = Draw {
        seed: 0,
        temperature: 0.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
    };

    #[test]
    fn a_full_context_ends_the_answer() {
        let watch = watch();
        for length in 3..5 {
            assert_eq!(apply(&watch, &vec![0; length]), [0.0, 1.0, -1.0]);
        }
        let inf = f32::NEG_INFINITY;
        assert_eq!(apply(&watch, &[0; 5]), [inf, inf, 0.0]);
        let seen = watch.seen().clone();
        assert_eq!((seen.prompt, seen.generated, seen.full), (Some(3), 2, true));
    }

    #[test]
    fn biases_come_before_the_draw() {
        let biased = Watch {
            bias: vec![(0, 5.0), (99, 1.0)],
            ..watch()
        };
        assert_eq!(apply(&biased, &[0]), [5.0, 1.0, -1.0]);
        let drawn = Watch {
            draw: Some(COLD),
            top: Some(1),
            ..biased
        };
        let inf = f32::NEG_INFINITY;
        assert_eq!(apply(&drawn, &[0]), [0.0, inf, inf]);
        // Asked for again, it counts once.
        apply(&drawn, &[0]);
        let seen = drawn.seen().clone();
        assert_eq!((seen.generated, seen.scored.len()), (1, 1));
        let expected = 5.0 - (5f64.exp() + 1f64.exp() + (-1f64).exp()).ln();
        assert!((seen.scored[0].ln_p - expected).abs() < 1e-6);
    }
}
