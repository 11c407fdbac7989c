//! What may be asked of an echo.

use serde_json::Value;

use crate::server::answer::prompts::{self, Prompt};
use crate::server::problem::Problem;

/// Most alternatives per token, as OpenAI has it.
const MOST_TOP: u64 = 5;

/// A request for the log-probabilities of a prompt.
#[derive(Debug, PartialEq)]
pub(super) struct Asked {
    /// Name of the model.
    pub(super) model: String,
    /// What to score.
    pub(super) prompts: Vec<Prompt>,
    /// Most probable tokens to name at each place; at least 1.
    pub(super) top: usize,
    /// Whether the most probable token is added to the prompt.
    pub(super) continues: bool,
}

/// Fields that would change the answer, with the values that do not.
const UNUSED: &[(&str, &[&str])] = &[
    ("stream", &["false"]),
    ("n", &["1"]),
    ("best_of", &["1"]),
    ("suffix", &["\"\""]),
    ("logit_bias", &["{}"]),
    ("frequency_penalty", &["0", "0.0"]),
    ("presence_penalty", &["0", "0.0"]),
    ("repetition_penalty", &["1", "1.0"]),
    ("grammar", &[]),
];

impl Asked {
    /// Reads the body of a request for a completion. `None` if it does not
    /// ask for an echo with log-probabilities, or is not even JSON.
    pub(super) fn parse(body: &[u8]) -> Option<Result<Self, Problem>> {
        let body: Value = serde_json::from_slice(body).ok()?;
        let asks = body["echo"] == true && !body["logprobs"].is_null();
        asks.then(|| Self::of(&body))
    }

    fn of(body: &Value) -> Result<Self, Problem> {
        for (field, accepted) in UNUSED {
            let value = &body[*field];
            if !value.is_null() && !accepted.contains(&value.to_string().as_str()) {
                let expected = accepted.first().unwrap_or(&"none");
                return Err(refusal(field, expected, value));
            }
        }
        let given = |field: &str| Some(&body[field]).filter(|value| !value.is_null());
        let limit = given("max_tokens").or_else(|| given("max_completion_tokens"));
        let continues = match limit.and_then(Value::as_u64) {
            Some(0) => false,
            Some(1) => true,
            _ => {
                return Err(refusal(
                    "max_tokens",
                    "0 or 1",
                    limit.unwrap_or(&Value::Null),
                ))
            }
        };
        if continues && given("temperature").is_some_and(|it| it.as_f64() != Some(0.0)) {
            return Err(refusal("temperature", "0", &body["temperature"]));
        }
        let top = body["logprobs"].as_u64().filter(|&top| top <= MOST_TOP);
        let Some(top) = top else {
            return Err(refusal(
                "logprobs",
                "a number from 0 to 5",
                &body["logprobs"],
            ));
        };
        let Some(prompts) = prompts::parse(&body["prompt"]) else {
            return Err(refusal(
                "prompt",
                "a text, a list of token ids, or a list of either",
                &body["prompt"],
            ));
        };
        let model = match given("model") {
            None => "default",
            Some(Value::String(model)) => model,
            Some(other) => return Err(refusal("model", "a name", other)),
        };
        Ok(Self {
            model: model.to_owned(),
            prompts,
            top: (top as usize).max(1),
            continues,
        })
    }
}

/// Says that a field has another value than an echo can answer.
fn refusal(field: &str, expected: &str, found: &Value) -> Problem {
    let expected = format!("{expected} with `echo` and `logprobs`");
    Problem::field(field, &expected, found)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(change: &Value) -> Option<Result<Asked, Problem>> {
        let mut body = json!({
            "model": "demo", "prompt": "Once", "echo": true, "logprobs": 1, "max_tokens": 1,
            "temperature": 0, "seed": 1234, "stop": ["\n"]
        });
        for (field, value) in change.as_object().unwrap() {
            body[field] = value.clone();
        }
        Asked::parse(body.to_string().as_bytes())
    }

    #[test]
    fn only_echoes_with_log_probabilities_are_ours() {
        for change in [
            json!({"echo": false}),
            json!({"echo": null}),
            json!({"logprobs": null}),
        ] {
            assert!(parse(&change).is_none(), "{change}");
        }
        assert!(Asked::parse(b"{").is_none());
        assert!(Asked::parse(b"[]").is_none());
        let asked = parse(&json!({})).unwrap().unwrap();
        assert_eq!(
            asked,
            Asked {
                model: "demo".to_owned(),
                prompts: vec![Prompt::Text("Once".to_owned())],
                top: 1,
                continues: true,
            }
        );
    }

    #[test]
    fn prompts_have_four_shapes() {
        let prompts = |prompt: Value| {
            let asked = parse(&json!({ "prompt": prompt })).unwrap().unwrap();
            asked.prompts
        };
        assert_eq!(prompts(json!([1, 2])), [Prompt::Tokens(vec![1, 2])]);
        assert_eq!(
            prompts(json!([[1], [2, 3]])),
            [Prompt::Tokens(vec![1]), Prompt::Tokens(vec![2, 3])]
        );
        assert_eq!(prompts(json!(["a", "b"])).len(), 2);
    }

    #[test]
    fn what_cannot_be_answered_is_named() {
        for (change, field) in [
            (json!({"stream": true}), "stream"),
            (json!({"n": 2}), "n"),
            (json!({"best_of": 3}), "best_of"),
            (json!({"suffix": "end"}), "suffix"),
            (json!({"presence_penalty": 0.5}), "presence_penalty"),
            (json!({"max_tokens": 2}), "max_tokens"),
            (json!({"max_tokens": null}), "max_tokens"),
            (json!({"temperature": 0.7}), "temperature"),
            (json!({"logprobs": 6}), "logprobs"),
            (json!({"logprobs": true}), "logprobs"),
            (json!({"prompt": [1, "a"]}), "prompt"),
            (json!({"prompt": [-1]}), "prompt"),
            (json!({"model": 3}), "model"),
        ] {
            let error = parse(&change).unwrap().unwrap_err().error();
            assert_eq!(error["param"], field, "{change}");
            let message = error["message"].as_str().unwrap();
            assert!(message.contains(&format!("`{field}`: expected")));
        }
        // Without a token to sample, there is nothing to be cold about.
        let cold = json!({"temperature": 0.7, "max_tokens": 0, "n": 1, "stream": false});
        assert!(!parse(&cold).unwrap().unwrap().continues);
        let many = json!({"logprobs": 0, "max_tokens": null, "max_completion_tokens": 0});
        assert_eq!(parse(&many).unwrap().unwrap().top, 1);
    }
}
