//! How numbers are stored: the types of ggml that candle computes with.

use candle_core::quantized::GgmlDType;

/// ggml's code of a type, and the type.
const CODES: [(u32, GgmlDType); 15] = [
    (0, GgmlDType::F32),
    (1, GgmlDType::F16),
    (2, GgmlDType::Q4_0),
    (3, GgmlDType::Q4_1),
    (6, GgmlDType::Q5_0),
    (7, GgmlDType::Q5_1),
    (8, GgmlDType::Q8_0),
    (9, GgmlDType::Q8_1),
    (10, GgmlDType::Q2K),
    (11, GgmlDType::Q3K),
    (12, GgmlDType::Q4K),
    (13, GgmlDType::Q5K),
    (14, GgmlDType::Q6K),
    (15, GgmlDType::Q8K),
    (30, GgmlDType::BF16),
];

/// ggml's names of types that are not read here, for errors.
const UNREAD: &[(u32, &str)] = &[
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
];

/// The type of a code; `None` if candle has none for it.
pub fn element(code: u32) -> Option<GgmlDType> {
    CODES
        .iter()
        .find(|(known, _)| *known == code)
        .map(|(_, element)| *element)
}

/// The code of a type.
pub fn code(element: GgmlDType) -> u32 {
    // Every variant is in the table, which a test holds.
    CODES
        .iter()
        .find(|(_, known)| *known == element)
        .map_or(0, |(code, _)| *code)
}

/// How an error calls a code that is not read.
pub(super) fn unread(code: u32) -> String {
    UNREAD.iter().find(|(known, _)| *known == code).map_or_else(
        || format!("type {code}"),
        |(_, name)| format!("{name} (type {code})"),
    )
}

/// Bytes of a tensor; `None` on overflow, or if its rows are not whole blocks.
pub fn bytes(element: GgmlDType, shape: &[usize]) -> Option<usize> {
    let row = shape.last().copied().unwrap_or(1);
    if !row.is_multiple_of(element.block_size()) {
        return None;
    }
    let elements = shape
        .iter()
        .try_fold(1usize, |n, &dim| n.checked_mul(dim))?;
    (elements / element.block_size()).checked_mul(element.type_size())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_has_one_code() {
        for (known, dtype) in CODES {
            // A new type of candle's ends this match, not a file.
            match dtype {
                GgmlDType::F32
                | GgmlDType::F16
                | GgmlDType::BF16
                | GgmlDType::Q4_0
                | GgmlDType::Q4_1
                | GgmlDType::Q5_0
                | GgmlDType::Q5_1
                | GgmlDType::Q8_0
                | GgmlDType::Q8_1
                | GgmlDType::Q2K
                | GgmlDType::Q3K
                | GgmlDType::Q4K
                | GgmlDType::Q5K
                | GgmlDType::Q6K
                | GgmlDType::Q8K => {}
            }
            assert_eq!((code(dtype), element(known)), (known, Some(dtype)));
        }
        assert_eq!(element(39), None);
        assert_eq!(unread(39), "MXFP4 (type 39)");
        assert_eq!(unread(99), "type 99");
    }

    #[test]
    fn rows_are_whole_blocks() {
        assert_eq!(bytes(GgmlDType::Q8_0, &[3, 64]), Some(3 * 2 * 34));
        assert_eq!(bytes(GgmlDType::Q8_0, &[32, 48]), None);
        assert_eq!(bytes(GgmlDType::Q4K, &[2, 256]), Some(288));
        assert_eq!(bytes(GgmlDType::BF16, &[]), Some(2));
        assert_eq!(bytes(GgmlDType::F32, &[usize::MAX, 2]), None);
    }
}
