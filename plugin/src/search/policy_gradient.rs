//! Policy gradient: which experts stay, by trial.
//!
//! Every expert i stays with a probability s_i = σ(θ_i). A step draws masks m,
//! measures f = E Σ_v min(p_v, q_v) of each, and follows the score-function
//! estimate of ∇_θ E[f], whose terms are (f(m) − b) · (m_i − s_i) for Bernoulli
//! masks (REINFORCE: Williams, Machine Learning 8, 1992; pruning by it without
//! back-propagation: arXiv 2406.10576). The baseline b is the mean of the step's
//! draws, which come in pairs of opposite noise, and gains are divided by their
//! deviation, so that the rate does not depend on the model.
//!
//! A mask that misses the budget is completed by the experts that are likeliest
//! to stay, or loses those that are least likely; floors, groups and protection
//! are kept in the same way. θ moves by one number for all so that Σ s_i of the
//! bytes stays at the budget. After each step the likeliest mask is measured too.
//!
//! Shapes: θ, s, m [L][E].

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use router_stats::family::Keep;

use super::{Search, Trials};
use crate::plan::Space;
use crate::Result;

/// Steps at most.
const STEPS: usize = 40;
/// Pairs of masks of a step.
const PAIRS: usize = 4;
/// How far θ follows the estimate.
const RATE: f64 = 1.0;
/// One in so many ranks of a layer are undecided at first.
const DECIDED: f64 = 16.0;
/// Largest |θ|: nothing is ever decided for good.
const SUREST: f64 = 4.0;
/// Halvings of the range in which the shift of θ lies.
const HALVINGS: usize = 50;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct PolicyGradient;

impl Search for PolicyGradient {
    fn name(&self) -> &'static str {
        "policy-gradient"
    }

    fn about(&self) -> &'static str {
        "learn which experts stay, one by one"
    }

    fn source(&self) -> &'static str {
        "REINFORCE (Williams 1992; arXiv 2406.10576)"
    }

    fn run(&self, trials: &mut Trials<'_, '_>, rng: &mut ChaCha8Rng) -> Result<()> {
        let space = trials.space();
        let Some(start) = trials.starts().first() else {
            return Ok(());
        };
        let mut policy = Policy::new(space, &start.ranks);
        for step in 1..=STEPS {
            let mut draws = Vec::with_capacity(2 * PAIRS);
            let left = (STEPS - step + 1) * (2 * PAIRS + 1);
            trials.describe(&format!("step {step}"), left);
            for _ in 0..PAIRS {
                let noise = policy.noise(rng);
                for opposite in [false, true] {
                    let keep = policy.draw(&noise, opposite);
                    let Some(overlap) = trials.measure(&keep)? else {
                        return Ok(());
                    };
                    draws.push((keep, overlap));
                }
            }
            policy.follow(&draws);
            if trials.measure(&policy.likeliest())?.is_none() {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// How likely every expert is to stay.
struct Policy<'a> {
    space: &'a Space,
    /// θ: `[L][E]`.
    logits: Vec<Vec<f64>>,
}

impl<'a> Policy<'a> {
    /// Experts are the likelier to stay the more ranks they are above the last
    /// that `ranks` keep.
    fn new(space: &'a Space, ranks: &[usize]) -> Self {
        let layers = space.layers().iter().zip(ranks);
        let logits = layers.map(|(open, &kept)| {
            let mut logits = vec![0.0; open.experts()];
            let scale = (open.ranks() as f64 / DECIDED).max(1.0);
            for group in open.groups() {
                for (rank, &expert) in group.iter().enumerate() {
                    let above = kept as f64 - 0.5 - rank as f64;
                    logits[expert] = (above / scale).clamp(-SUREST, SUREST);
                }
            }
            logits
        });
        let mut policy = Self {
            logits: logits.collect(),
            space,
        };
        policy.meet_budget();
        policy
    }

    /// Uniform numbers in [0, 1): `[L][E]`.
    fn noise(&self, rng: &mut ChaCha8Rng) -> Vec<Vec<f64>> {
        let mut row = |logits: &Vec<f64>| logits.iter().map(|_| rng.random::<f64>()).collect();
        self.logits.iter().map(&mut row).collect()
    }

    /// The mask of some noise, or of 1 − noise, cut or completed to the budget.
    fn draw(&self, noise: &[Vec<f64>], opposite: bool) -> Keep {
        let worth = self.logits.iter().zip(noise).map(|(logits, noise)| {
            let pairs = logits.iter().zip(noise);
            let worth = pairs.map(|(&logit, &noise)| {
                let noise = if opposite { 1.0 - noise } else { noise };
                let s = sigmoid(logit);
                // The drawn before the others, and either by likelihood.
                f64::from(u8::from(noise < s)) + s
            });
            worth.collect()
        });
        self.space.of_worth(&worth.collect::<Vec<_>>())
    }

    /// The mask of the experts that are likeliest to stay.
    fn likeliest(&self) -> Keep {
        self.space.of_worth(&self.logits)
    }

    /// One step along the estimated gradient.
    fn follow(&mut self, draws: &[(Keep, f64)]) {
        let count = draws.len() as f64;
        let mean = draws.iter().map(|(_, f)| f).sum::<f64>() / count;
        let variance = draws.iter().map(|(_, f)| (f - mean).powi(2)).sum::<f64>() / count;
        // All draws are worth the same: nothing is learnt.
        if variance <= 0.0 {
            return;
        }
        let deviation = variance.sqrt();
        for (open, logits) in self.space.layers().iter().zip(&mut self.logits) {
            let chances: Vec<f64> = logits.iter().map(|&logit| sigmoid(logit)).collect();
            for (keep, f) in draws {
                let gain = (f - mean) / deviation;
                let mut stays = vec![0.0; logits.len()];
                for &expert in &keep.experts[open.layer] {
                    stays[expert] = 1.0;
                }
                for ((logit, s), m) in logits.iter_mut().zip(&chances).zip(stays) {
                    *logit += RATE * gain * (m - s) / count;
                }
            }
        }
        self.meet_budget();
    }

    /// Shifts all θ together until the bytes that are expected to stay are those
    /// of the budget.
    fn meet_budget(&mut self) {
        let budget = self.space.budget() as f64;
        let expected = |shift: f64| -> f64 {
            let layers = self.space.layers().iter().zip(&self.logits);
            let bytes = layers.map(|(open, logits)| {
                let stay: f64 = logits.iter().map(|&logit| sigmoid(logit + shift)).sum();
                stay * open.rank_bytes() as f64 / open.groups().len().max(1) as f64
            });
            bytes.sum()
        };
        let (mut low, mut high) = (-2.0 * SUREST, 2.0 * SUREST);
        for _ in 0..HALVINGS {
            let middle = (low + high) / 2.0;
            if expected(middle) > budget {
                high = middle;
            } else {
                low = middle;
            }
        }
        for logit in self.logits.iter_mut().flatten() {
            *logit = (*logit + low).clamp(-SUREST, SUREST);
        }
    }
}

/// 1 / (1 + e^−x).
fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
