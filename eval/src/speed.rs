//! How fast a model answers and how much memory that takes.
//!
//! A round of a model is a process of its own that loads the model, answers
//! once without a clock and then a few times with one. Rounds of the models
//! alternate, so that what else a machine does falls on all of them alike. The
//! median of a round is one observation, and what is reported is the median of
//! a model's rounds, and of its ratios to the reference in the same round.
//!
//! This owns observations and their estimates. Who loads and asks models is not
//! known here.

use serde::{Deserialize, Serialize};

use crate::compare::Estimate;

/// One request of `prompt` tokens that generates `generated` more.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timing {
    /// Tokens of the prompt.
    pub prompt: u32,
    /// Tokens that were generated; at least 2.
    pub generated: u32,
    /// Seconds until the first one came.
    pub first: f64,
    /// Seconds from the first to the last.
    pub rest: f64,
}

/// One process that loaded a model and answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Round {
    /// Every timed request; at least one.
    pub timings: Vec<Timing>,
    /// The most memory that the process had resident, in bytes: pages of files
    /// that are mapped count. Absent where the system does not tell.
    pub peak_resident: Option<u64>,
}

/// Speed and memory of the models of a report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Speed {
    /// What ran the models, and on what.
    pub engine: String,
    /// Coverage that intervals have at least.
    pub confidence: f64,
    /// The reference, then the others.
    pub models: Vec<ModelSpeed>,
}

/// Speed and memory of one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelSpeed {
    /// Name of the model.
    pub name: String,
    /// Bytes of its weights, as stored.
    pub weights: u64,
    /// The most bytes that any round had resident.
    pub peak_resident: Option<u64>,
    /// Tokens of the prompt per second until the first token came.
    pub prefill: Measured,
    /// Tokens per second after the first.
    pub decode: Measured,
    /// Seconds until the first token came.
    pub first_token: Measured,
    /// What it was made of.
    pub rounds: Vec<Round>,
}

/// One quantity of a model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    /// Median over rounds.
    pub median: Estimate,
    /// Median of the ratios to the reference, round by round; absent for the
    /// reference itself.
    pub ratio: Option<Estimate>,
}

impl Speed {
    /// Estimates from the rounds of every model, the reference first: name,
    /// bytes of weights, rounds in the order in which they alternated.
    pub fn new(engine: String, confidence: f64, models: Vec<(String, u64, Vec<Round>)>) -> Self {
        let of = |rounds: &[Round], quantity: fn(&Timing) -> f64| -> Vec<f64> {
            let values = |round: &Round| round.timings.iter().map(quantity).collect();
            rounds.iter().map(|round| median(values(round))).collect()
        };
        let reference = models.first().map(|(_, _, rounds)| rounds.clone());
        let measure = |index: usize, rounds: &[Round], quantity: fn(&Timing) -> f64| {
            let own = of(rounds, quantity);
            let others = reference.as_deref().filter(|_| index > 0);
            let ratio = others.map(|others| {
                let others = of(others, quantity);
                let ratios = own.iter().zip(others).map(|(own, other)| own / other);
                estimate(ratios.collect(), confidence)
            });
            Measured {
                median: estimate(own, confidence),
                ratio,
            }
        };
        let models = models.iter().enumerate();
        let models = models
            .map(|(index, (name, weights, rounds))| ModelSpeed {
                name: name.clone(),
                weights: *weights,
                peak_resident: rounds.iter().filter_map(|round| round.peak_resident).max(),
                prefill: measure(index, rounds, |timing| {
                    f64::from(timing.prompt) / timing.first
                }),
                decode: measure(index, rounds, |timing| {
                    f64::from(timing.generated - 1) / timing.rest
                }),
                first_token: measure(index, rounds, |timing| timing.first),
                rounds: rounds.clone(),
            })
            .collect();
        Self {
            engine,
            confidence,
            models,
        }
    }
}

/// The middle value, or the mean of both; NaN of none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n => (values[(n - 1) / 2] + values[n / 2]) / 2.0,
    }
}

/// The median with the narrowest interval between two order statistics, x_(k)
/// and x_(n+1−k), that covers the true median with at least `confidence`
/// whatever the distribution: 1 − 2·P(B < k), B binomial with n and ½. With too
/// few values there is none.
fn estimate(mut values: Vec<f64>, confidence: f64) -> Estimate {
    let n = values.len();
    let most = (1.0 - confidence) / 2.0;
    let (mut below, mut term, mut rank) = (0.0, 0.5f64.powi(n as i32), 0);
    while rank < n / 2 && below + term <= most {
        below += term;
        term *= (n - rank) as f64 / (rank + 1) as f64;
        rank += 1;
    }
    let value = median(values.clone());
    values.sort_by(f64::total_cmp);
    let interval = (rank > 0).then(|| (values[rank - 1], values[n - rank]));
    Estimate {
        value,
        low: interval.map(|(low, _)| low),
        high: interval.map(|(_, high)| high),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_between_order_statistics() {
        let values = |n: u32| (1..=n).rev().map(f64::from).collect::<Vec<_>>();
        // 1 − 2/2⁵ = 0.9375 is too little; 1 − 2/2⁶ = 0.969 is enough.
        let five = estimate(values(5), 0.95);
        assert_eq!((five.value, five.interval()), (3.0, None));
        let six = estimate(values(6), 0.95);
        assert_eq!((six.value, six.interval()), (3.5, Some((1.0, 6.0))));
        // Of 20, the 6th and the 15th: the classic table of the sign interval.
        assert_eq!(estimate(values(20), 0.95).interval(), Some((6.0, 15.0)));
        assert!(estimate(Vec::new(), 0.95).value.is_nan());
    }

    fn round(first: f64, rest: f64, peak: u64) -> Round {
        let timing = Timing {
            prompt: 100,
            generated: 11,
            first,
            rest,
        };
        Round {
            // One request that was held up does not count.
            timings: vec![
                timing,
                timing,
                Timing {
                    first: 9.0,
                    rest: 9.0,
                    ..timing
                },
            ],
            peak_resident: Some(peak),
        }
    }

    #[test]
    fn ratios_are_of_the_same_round() {
        let slow = [1.0, 2.0, 4.0];
        let rounds = |scale: f64| slow.map(|s| round(scale * s, s / scale, 7)).to_vec();
        let models = vec![
            ("whole".to_owned(), 10, rounds(1.0)),
            ("half".to_owned(), 5, rounds(0.5)),
        ];
        let speed = Speed::new("here".to_owned(), 0.95, models);
        let [whole, half] = &speed.models[..] else {
            panic!("two models");
        };
        assert_eq!(whole.prefill.median.value, 50.0);
        assert_eq!(whole.prefill.ratio, None);
        assert_eq!(half.prefill.ratio.unwrap().value, 2.0);
        assert_eq!(half.first_token.ratio.unwrap().value, 0.5);
        assert_eq!(half.decode.median.value, 2.5);
        assert_eq!(half.decode.ratio.unwrap().value, 0.5);
        assert_eq!((half.weights, half.peak_resident), (5, Some(7)));
        let text = serde_json::to_string(&speed).unwrap();
        assert_eq!(serde_json::from_str::<Speed>(&text).unwrap(), speed);
    }
}
