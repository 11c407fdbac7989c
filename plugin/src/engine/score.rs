//! How probable tokens are to the engine's model, from its raw logits.
//!
//! The engine's own log-probabilities are of generated tokens only, and to the
//! base 10. These are of every token of a prompt, and natural.

use candle_core::{DType, Tensor};
use mistralrs_core::{MistralRs, RequestMessage, Response, SamplingParams};

use super::ask::{ask, Failure, Question};

/// Logits of all tokens of a prompt, [T, V] in f32.
pub(crate) struct Logits {
    values: Vec<f32>,
    vocabulary: usize,
}

/// Runs a prompt through the model, which must have no other request meanwhile
/// and no prefix cache.
///
/// # Errors
/// [`Failure`], also where the logits are of a part of the prompt.
pub(crate) async fn logits(engine: &MistralRs, tokens: &[u32]) -> Result<Logits, Failure> {
    let question = Question {
        message: RequestMessage::CompletionTokens(tokens.to_vec()),
        sampling: SamplingParams::deterministic(),
        logprobs: false,
        raw_logits: true,
    };
    let Response::Raw { logits_chunks, .. } = ask(engine, question).await? else {
        return Err(Failure::other());
    };
    let failed = |error: candle_core::Error| Failure::Failed(error.to_string());
    let logits = Tensor::cat(&logits_chunks, 0).map_err(failed)?;
    let (rows, vocabulary) = logits.dims2().map_err(failed)?;
    if rows != tokens.len() {
        return Err(Failure::Failed(format!(
            "expected logits of {} tokens, found {rows}",
            tokens.len()
        )));
    }
    let values = logits
        .to_dtype(DType::F32)
        .and_then(|logits| logits.flatten_all()?.to_vec1())
        .map_err(failed)?;
    Ok(Logits { values, vocabulary })
}

impl Logits {
    /// The distribution of the token that follows token `index` of the prompt.
    ///
    /// # Errors
    /// [`Failure::Failed`] if the logits are not finite.
    pub(crate) fn after(&self, index: usize) -> Result<Successor<'_>, Failure> {
        let start = index * self.vocabulary;
        Successor::new(&self.values[start..start + self.vocabulary]).ok_or_else(|| {
            Failure::Failed(format!(
                "expected finite logits, found NaN or infinity at token {index}"
            ))
        })
    }
}

/// The distribution of one token given those before it.
pub(crate) struct Successor<'a> {
    /// [V]
    logits: &'a [f32],
    /// ln Σ_v exp z_v
    ln_sum: f64,
}

impl<'a> Successor<'a> {
    /// Of logits [V]; `None` if they are not finite.
    pub(crate) fn new(logits: &'a [f32]) -> Option<Self> {
        let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        let sum: f64 = logits.iter().map(|&z| (f64::from(z) - max).exp()).sum();
        let ln_sum = max + sum.ln();
        ln_sum.is_finite().then_some(Self { logits, ln_sum })
    }

    /// Natural logarithm of a token's probability: z − ln Σ exp z. Of a token
    /// that the model does not have, −∞.
    pub(crate) fn ln_p(&self, token: u32) -> f64 {
        let logit = self.logits.get(token as usize);
        logit.map_or(f64::NEG_INFINITY, |&logit| {
            (f64::from(logit) - self.ln_sum).min(0.0)
        })
    }

    /// The `count` most probable tokens, the most probable first; of equals
    /// the lower id is.
    pub(crate) fn top(&self, count: usize) -> Vec<u32> {
        let mut top: Vec<usize> = Vec::with_capacity(count + 1);
        for (token, &logit) in self.logits.iter().enumerate() {
            if top.len() == count && top.last().is_none_or(|&last| logit <= self.logits[last]) {
                continue;
            }
            let rank = top.partition_point(|&other| self.logits[other] >= logit);
            top.insert(rank, token);
            top.truncate(count);
        }
        top.into_iter().map(|token| token as u32).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_add_up_to_one() {
        let logits: Vec<f32> = (0..50).map(|i| 900.0 + (i as f32 * 0.7).sin()).collect();
        let successor = Successor::new(&logits).unwrap();
        let sum: f64 = (0..50).map(|token| successor.ln_p(token).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-12, "{sum}");
        let ratio = successor.ln_p(3) - successor.ln_p(4);
        assert!((ratio - f64::from(logits[3] - logits[4])).abs() < 1e-12);
        assert_eq!(successor.ln_p(50), f64::NEG_INFINITY);
    }

    #[test]
    fn the_most_probable_come_first_and_of_equals_the_lower_id() {
        let logits = [1.0, 3.0, 2.0, 3.0, -1.0, 2.0];
        let successor = Successor::new(&logits).unwrap();
        assert_eq!(successor.top(1), [1]);
        assert_eq!(successor.top(4), [1, 3, 2, 5]);
        assert_eq!(successor.top(9), [1, 3, 2, 5, 0, 4]);
        assert!(successor.top(0).is_empty());
    }

    #[test]
    fn what_is_not_finite_is_no_distribution() {
        for bad in [f32::NAN, f32::INFINITY] {
            assert!(Successor::new(&[0.0, bad, 1.0]).is_none(), "{bad}");
        }
        assert!(Successor::new(&[f32::NEG_INFINITY; 2]).is_none());
        // A token that cannot come is not an error.
        assert!(Successor::new(&[0.0, f32::NEG_INFINITY]).is_some());
    }
}
