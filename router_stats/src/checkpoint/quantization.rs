//! What `config.json` says about quantised weights.
//!
//! Read are fp8 weights (`quant_method` "fp8") with a scale for every block of
//! `weight_block_size`, as DeepSeek-V3, Kimi-K2, MiniMax-M2 and the FP8
//! releases of Qwen3 store them. Which tensors are quantised, their dtypes say:
//! lists of modules that were left out are not looked at.

use serde_json::Value;

use crate::family::Config;
use crate::{Error, Result};

/// Rows and columns of the blocks that share a scale.
pub(super) type Block = [usize; 2];

/// How configurations spell the format of fp8 numbers that is read: as
/// DeepSeek does, and as MiniMax does.
const FORMATS: [&str; 2] = ["e4m3", "float8_e4m3fn"];

/// Field of `config.json` that describes quantisation.
const FIELD: &str = "quantization_config";

/// Reads the block size; `None` if nothing is quantised.
///
/// # Errors
/// [`Error::Quantization`] unless the method is fp8 in blocks.
pub(super) fn block(config: &Config) -> Result<Option<Block>> {
    let outer = config.value();
    let present = |value: &&Value| !value.is_null();
    let found = outer.get(FIELD).filter(present);
    let Some(quantization) = found.or_else(|| outer.get("text_config")?.get(FIELD).filter(present))
    else {
        return Ok(None);
    };
    let get = |field| quantization.get(field).filter(present);
    let error = |field, expected| error(config, field, expected, get(field));
    if get("quant_method").and_then(Value::as_str) != Some("fp8") {
        return Err(error("quant_method", "\"fp8\""));
    }
    if get("fmt").is_some_and(|format| !FORMATS.iter().any(|known| format == known)) {
        return Err(error("fmt", "\"e4m3\""));
    }
    let sizes: Option<Vec<usize>> = get("weight_block_size")
        .and_then(Value::as_array)
        .and_then(|sizes| sizes.iter().map(positive).collect());
    match sizes.as_deref() {
        Some(&[rows, columns]) => Ok(Some([rows, columns])),
        _ => Err(error("weight_block_size", BLOCK_SIZE)),
    }
}

/// The error about an fp8 weight where the configuration has no block size.
pub(super) fn no_block(config: &Config) -> Error {
    error(config, "weight_block_size", BLOCK_SIZE, None)
}

const BLOCK_SIZE: &str = "rows and columns of a block, both positive";

fn positive(value: &Value) -> Option<usize> {
    value
        .as_u64()
        .filter(|&size| size > 0)
        .and_then(|size| size.try_into().ok())
}

fn error(config: &Config, field: &str, expected: &str, found: Option<&Value>) -> Error {
    let found = found.map_or("nothing".to_owned(), |value| {
        let text = value.to_string();
        match text.char_indices().nth(80) {
            None => text,
            Some((end, _)) => format!("{}…", &text[..end]),
        }
    });
    Error::Quantization {
        path: config.path().to_path_buf(),
        field: format!("{FIELD}.{field}"),
        expected: expected.to_owned(),
        found,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: Value) -> Result<Option<Block>> {
        block(&Config::new("config.json", value).unwrap())
    }

    #[test]
    fn blocks_are_read_from_either_place() {
        let fp8 = json!({"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
            "weight_block_size": [128, 64], "modules_to_not_convert": ["lm_head"]});
        assert_eq!(read(json!({})).unwrap(), None);
        assert_eq!(read(json!({"quantization_config": null})).unwrap(), None);
        assert_eq!(
            read(json!({"quantization_config": fp8})).unwrap(),
            Some([128, 64])
        );
        let mut minimax = fp8.clone();
        minimax["fmt"] = "float8_e4m3fn".into();
        assert_eq!(
            read(json!({"quantization_config": minimax})).unwrap(),
            Some([128, 64])
        );
        let nested =
            json!({"quantization_config": null, "text_config": {"quantization_config": fp8}});
        assert_eq!(read(nested).unwrap(), Some([128, 64]));
    }

    #[test]
    fn what_is_not_read_is_named() {
        for (quantization, field, found) in [
            (
                json!({"quant_method": "gptq", "bits": 4}),
                "quant_method",
                "\"gptq\"",
            ),
            (json!({"quant_method": "awq"}), "quant_method", "\"awq\""),
            (
                json!({"quant_method": "compressed-tensors"}),
                "quant_method",
                "\"compressed-tensors\"",
            ),
            (
                json!({"quant_method": "mxfp4"}),
                "quant_method",
                "\"mxfp4\"",
            ),
            (json!({"load_in_8bit": true}), "quant_method", "nothing"),
            (json!("fp8"), "quant_method", "nothing"),
            (
                json!({"quant_method": "fp8", "fmt": "e5m2"}),
                "fmt",
                "\"e5m2\"",
            ),
            (
                json!({"quant_method": "fp8"}),
                "weight_block_size",
                "nothing",
            ),
            (
                json!({"quant_method": "fp8", "weight_block_size": null}),
                "weight_block_size",
                "nothing",
            ),
            (
                json!({"quant_method": "fp8", "weight_block_size": [128, 0]}),
                "weight_block_size",
                "[128,0]",
            ),
            (
                json!({"quant_method": "fp8", "weight_block_size": [128]}),
                "weight_block_size",
                "[128]",
            ),
            (
                json!({"quant_method": "fp8", "weight_block_size": [1, 2, 3]}),
                "weight_block_size",
                "[1,2,3]",
            ),
            (
                json!({"quant_method": "fp8", "weight_block_size": [-1, 1.5]}),
                "weight_block_size",
                "[-1,1.5]",
            ),
        ] {
            let error = read(json!({"quantization_config": quantization})).unwrap_err();
            assert!(error.hint().is_some());
            match error {
                Error::Quantization {
                    path,
                    field: named,
                    found: holds,
                    ..
                } => {
                    assert!(path.ends_with("config.json"));
                    assert_eq!(named, format!("quantization_config.{field}"));
                    assert_eq!(holds, found);
                }
                other => panic!("{quantization}: {other}"),
            }
        }
        let long = read(json!({"quantization_config": {"quant_method": "ä".repeat(200)}}));
        assert!(long.unwrap_err().to_string().ends_with('…'));
    }
}
