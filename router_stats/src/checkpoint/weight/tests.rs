use super::super::testing::{self, Stored};
use super::*;

const CONFIG: &str = r#"{"quantization_config":
    {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [4, 3]}}"#;

/// Rows and columns; the last blocks of both are partial.
const SHAPE: [usize; 2] = [10, 7];

/// Scales of that many blocks.
const BLOCKS: [usize; 2] = [3, 3];

/// A finite code for element `index`.
fn code(index: usize) -> u8 {
    let code = (index * 37 + 11) as u8;
    code & 0xfe | u8::from(index.is_multiple_of(3) && code & 0x7e != 0x7e)
}

/// The value of a code, by the formula.
fn value(code: u8) -> f64 {
    let (exponent, mantissa) = (i32::from(code >> 3 & 15), f64::from(code & 7) / 8.0);
    let magnitude = match exponent {
        0 => mantissa * 2f64.powi(-6),
        _ => (1.0 + mantissa) * 2f64.powi(exponent - 7),
    };
    if code < 0x80 {
        magnitude
    } else {
        -magnitude
    }
}

fn scale(block: usize) -> f32 {
    // Exact in bf16 and f16 too.
    (block + 3) as f32 / 64.0
}

fn codes(shape: [usize; 2]) -> Stored {
    let codes = (0..shape[0] * shape[1]).map(code).collect();
    ("w".to_owned(), Dtype::F8_E4M3, shape.to_vec(), codes)
}

fn scales(dtype: Dtype, shape: [usize; 2]) -> Stored {
    let values: Vec<f32> = (0..shape[0] * shape[1]).map(scale).collect();
    testing::tensor("w_scale_inv", dtype, &shape, &values)
}

fn matrix() -> [Stored; 2] {
    [codes(SHAPE), scales(Dtype::F32, BLOCKS)]
}

fn checkpoint(config: &str, tensors: &[Stored]) -> (tempfile::TempDir, Checkpoint) {
    let dir = tempfile::tempdir().unwrap();
    testing::write(dir.path(), config, tensors);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    (dir, checkpoint)
}

fn read(config: &str, tensors: &[Stored], shape: &[usize]) -> Result<Vec<f32>> {
    let (_dir, checkpoint) = checkpoint(config, tensors);
    let weight = checkpoint.weight("w", shape)?;
    let mut out = vec![f32::NAN; shape.iter().product()];
    weight.read_f32(&mut out)?;
    weight.release();
    Ok(out)
}

#[test]
fn elements_are_codes_times_the_scales_of_their_blocks() {
    for dtype in [Dtype::F32, Dtype::BF16, Dtype::F16] {
        let out = read(CONFIG, &[codes(SHAPE), scales(dtype, BLOCKS)], &SHAPE).unwrap();
        for (index, &found) in out.iter().enumerate() {
            let (row, column) = (index / SHAPE[1], index % SHAPE[1]);
            let scale = scale(row / 4 * BLOCKS[1] + column / 3);
            let expected = value(code(index)) * f64::from(scale);
            assert_eq!(f64::from(found), expected, "{dtype} {row} {column}");
        }
    }
}

#[test]
fn large_matrices_are_read_in_parallel_alike() {
    let config = r#"{"text_config": {"quantization_config":
        {"quant_method": "fp8", "weight_block_size": [128, 128]}}}"#;
    let shape = [PARALLEL / 500 + 1, 523];
    let blocks = [shape[0].div_ceil(128), 5];
    let mut tensors = [codes(shape), scales(Dtype::F32, blocks)];
    let out = read(config, &tensors, &shape).unwrap();
    assert!(out.len() > PARALLEL);
    for (index, &found) in out.iter().enumerate() {
        let (row, column) = (index / shape[1], index % shape[1]);
        let scale = scale(row / 128 * blocks[1] + column / 128);
        let expected = value(code(index)) * f64::from(scale);
        assert_eq!(f64::from(found), expected, "{row} {column}");
    }
    let last = out.len() - 1;
    for index in [last, last - 1] {
        tensors[0].3[index] = 0xff;
        let error = read(config, &tensors, &shape).unwrap_err();
        assert!(matches!(error, Error::NonFinite { index: found, .. } if found == index));
    }
}

#[test]
fn other_weights_are_read_as_they_are() {
    let plain = testing::tensor("w", Dtype::BF16, &[3], &[1.0, 2.0, 3.0]);
    let out = read(CONFIG, std::slice::from_ref(&plain), &[3]).unwrap();
    assert_eq!(out, [1.0, 2.0, 3.0]);
    assert_eq!(read("{}", &[plain], &[3]).unwrap(), out);
}

#[test]
fn codes_and_products_that_are_no_numbers_are_named() {
    for code in [0x7f, 0xff] {
        let mut tensors = matrix();
        tensors[0].3[23] = code;
        match read(CONFIG, &tensors, &SHAPE).unwrap_err() {
            Error::NonFinite {
                tensor,
                index,
                value,
                ..
            } => assert_eq!((&tensor[..], index, value.is_nan()), ("w", 23, true)),
            other => panic!("{other}"),
        }
    }
    let mut tensors = matrix();
    tensors[0].3[69] = 0xfe;
    tensors[1].3[32..].copy_from_slice(&f32::MAX.to_le_bytes());
    tensors[0].3[62] = 0;
    match read(CONFIG, &tensors, &SHAPE).unwrap_err() {
        Error::NonFinite { index, value, .. } => {
            assert_eq!((index, value), (69, f32::NEG_INFINITY));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn scales_must_be_positive_and_finite() {
    for bad in [0.0, -0.5, f32::NAN, f32::INFINITY] {
        let mut tensors = matrix();
        tensors[1].3[16..20].copy_from_slice(&bad.to_le_bytes());
        let error = read(CONFIG, &tensors, &SHAPE).unwrap_err();
        assert!(error.hint().is_some());
        match error {
            Error::Scale {
                tensor,
                index,
                value,
                ..
            } => {
                assert_eq!((&tensor[..], index), ("w_scale_inv", 4));
                assert_eq!(value.is_nan(), bad.is_nan());
            }
            other => panic!("{other}"),
        }
    }
}

#[test]
fn scales_that_do_not_fit_are_named() {
    let [weight, good] = matrix();
    let read = |scales| read(CONFIG, &[weight.clone(), scales], &SHAPE).unwrap_err();
    for shape in [[2, 3], [3, 2], [10, 7], [1, 9]] {
        match read(scales(Dtype::F32, shape)) {
            Error::Shape {
                tensor,
                expected,
                found,
                ..
            } => {
                assert_eq!(tensor, "w_scale_inv");
                assert_eq!((expected, found), (BLOCKS.to_vec(), shape.to_vec()));
            }
            other => panic!("{other}"),
        }
    }
    let mut exponents = good.clone();
    (exponents.1, exponents.3) = (Dtype::F8_E8M0, vec![127; 9]);
    assert!(
        matches!(read(exponents), Error::Dtype { tensor, expected: "F32, BF16 or F16", .. }
            if tensor == "w_scale_inv")
    );
    let absent = ("v".to_owned(), good.1, good.2, good.3);
    match read(absent) {
        Error::MissingTensor {
            tensor, expected, ..
        } => assert_eq!((&tensor[..], &expected[..]), ("w_scale_inv", "[3, 3]")),
        other => panic!("{other}"),
    }
}

#[test]
fn fp8_needs_a_block_size_and_two_dimensions() {
    match read("{}", &matrix(), &SHAPE).unwrap_err() {
        Error::Quantization { field, found, .. } => {
            assert_eq!(field, "quantization_config.weight_block_size");
            assert_eq!(found, "nothing");
        }
        other => panic!("{other}"),
    }
    let mut vector = codes(SHAPE);
    vector.2 = vec![70];
    let error = read(CONFIG, &[vector], &[70]).unwrap_err();
    assert!(matches!(error, Error::Dtype { found, .. } if found == "F8_E4M3"));
    // Codes alone are no numbers.
    let (_dir, checkpoint) = checkpoint(CONFIG, &matrix());
    let bare = checkpoint.tensor("w").unwrap().read_f32(&mut [0.0; 70]);
    assert!(matches!(bare, Err(Error::Dtype { .. })));
}

#[test]
fn scales_beside_another_dtype_are_refused() {
    let weight = testing::tensor("w", Dtype::F16, &SHAPE, &[0.5; 70]);
    match read(CONFIG, &[weight, matrix()[1].clone()], &SHAPE).unwrap_err() {
        Error::Dtype {
            expected, found, ..
        } => {
            assert!(expected.starts_with("F8_E4M3"));
            assert_eq!(found, "F16");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn empty_matrices_and_wrong_buffers_do_not_panic() {
    let none = [codes([0, 7]), scales(Dtype::F32, [0, 3])];
    assert!(read(CONFIG, &none, &[0, 7]).unwrap().is_empty());
    let (_dir, checkpoint) = checkpoint(CONFIG, &matrix());
    let weight = checkpoint.weight("w", &SHAPE).unwrap();
    assert!(matches!(
        weight.read_f32(&mut [0.0; 69]),
        Err(Error::Shape { .. })
    ));
}

#[test]
fn unread_quantisation_is_refused_when_the_checkpoint_is_opened() {
    let dir = tempfile::tempdir().unwrap();
    let config = r#"{"quantization_config": {"quant_method": "gptq", "bits": 4}}"#;
    testing::write(dir.path(), config, &matrix());
    let error = Checkpoint::open(dir.path()).unwrap_err();
    assert!(matches!(error, Error::Quantization { field, .. }
        if field == "quantization_config.quant_method"));
}
