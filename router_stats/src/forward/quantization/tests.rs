use candle_core::quantized::QTensor;
use candle_core::{Device, Tensor};

use super::*;

/// Columns and rows of a matrix that takes several tasks, the last not full.
const SHAPE: (usize, usize) = (24, 768);

/// Normally distributed values of standard deviation 0.02 (Box and Muller),
/// whose blocks differ in scale.
fn weights() -> Vec<f32> {
    let mut state = 1u32;
    let mut uniform = || {
        // Numerical Recipes' linear congruential generator; high bits are best.
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (f64::from(state >> 8) + 0.5) / f64::from(1 << 24)
    };
    (0..SHAPE.0 * SHAPE.1)
        .map(|index| {
            let radius = (-2.0 * uniform().ln()).sqrt();
            let value = radius * (std::f64::consts::TAU * uniform()).cos();
            (0.02 * value * (1.0 + (index / 1024 % 3) as f64)) as f32
        })
        .collect()
}

fn rounded(quantization: Quantization, values: &[f32]) -> Vec<f32> {
    let mut values = values.to_vec();
    quantization.round(&mut values).unwrap();
    values
}

#[test]
fn values_are_what_candle_reads_back() {
    let weights = weights();
    let matrix = Tensor::from_slice(&weights, SHAPE, &Device::Cpu).unwrap();
    for quantization in Quantization::ALL {
        let stored = QTensor::quantize(&matrix, quantization.dtype()).unwrap();
        let bytes = quantization.bytes(weights.len() as u64);
        assert_eq!(bytes, stored.storage_size_in_bytes() as u64);
        let expected = stored.dequantize(&Device::Cpu).unwrap();
        let expected = expected.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(rounded(quantization, &weights), expected, "{quantization}");
    }
}

#[test]
fn bits_are_those_of_the_formats() {
    let bits = Quantization::ALL.map(|quantization| (quantization.name(), quantization.bits()));
    assert_eq!(
        bits,
        [
            ("q8_0", 8.5),
            ("q6k", 6.5625),
            ("q5k", 5.5),
            ("q5_0", 5.5),
            ("q4k", 4.5),
            ("q4_0", 4.5),
            ("q3k", 3.4375),
            ("q2k", 2.625),
        ]
    );
    assert_eq!(Quantization::Q8_0.bytes(33), 68);
}

#[test]
fn errors_grow_as_bits_go() {
    let weights = weights();
    let power: f64 = weights.iter().map(|&w| f64::from(w).powi(2)).sum();
    let noise = |quantization| -> f64 {
        let rounded = rounded(quantization, &weights);
        let pairs = weights.iter().zip(rounded);
        pairs.map(|(&w, r)| f64::from(w - r).powi(2)).sum()
    };
    // Root mean square of the error against that of normal weights.
    for (quantization, limit) in [
        (Quantization::Q8_0, 0.007),
        (Quantization::Q6K, 0.02),
        (Quantization::Q5K, 0.04),
        (Quantization::Q5_0, 0.05),
        (Quantization::Q4K, 0.08),
        (Quantization::Q4_0, 0.1),
        (Quantization::Q3K, 0.17),
        (Quantization::Q2K, 0.35),
    ] {
        let error = (noise(quantization) / power).sqrt();
        assert!(error < limit, "{quantization}: {error}");
        assert!(error > limit / 2.0, "{quantization}: {error}");
    }
}

#[test]
fn blocks_do_not_see_each_other() {
    let weights = weights();
    for quantization in Quantization::ALL {
        let whole = rounded(quantization, &weights);
        let pieces = weights.chunks(quantization.block());
        let pieces = pieces.flat_map(|piece| rounded(quantization, piece));
        assert!(pieces.eq(whole), "{quantization}");
    }
}

#[test]
fn zeros_stay_and_what_scales_cannot_hold_is_refused() {
    for quantization in Quantization::ALL {
        assert_eq!(rounded(quantization, &[0.0; 512]), [0.0; 512]);
        let mut huge = vec![0.0; 512];
        huge[300] = 1e12;
        assert!(quantization.round(&mut huge).is_err(), "{quantization}");
    }
}

#[test]
fn names_are_read_back() {
    for quantization in Quantization::ALL {
        assert_eq!(
            quantization.name().parse::<Quantization>().unwrap(),
            quantization
        );
        let json = serde_json::to_string(&quantization).unwrap();
        assert_eq!(json, format!("\"{quantization}\""));
    }
    assert_eq!("Q4K".parse::<Quantization>().unwrap(), Quantization::Q4K);
    let error = "q7k".parse::<Quantization>().unwrap_err();
    assert!(error.to_string().contains("one of q8_0, q6k"), "{error}");
}
