//! A checkpoint's identity, cheap enough to compute on every start.

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use super::{Checkpoint, TensorView};
use crate::Result;

/// SHA-256.
pub(super) type Digested = [u8; 32];

/// Tensors up to this size are hashed whole.
const WHOLE: usize = 64 << 10;

/// Bytes of one sampled block.
const BLOCK: usize = 4 << 10;

/// Larger tensors have one block sampled for each of these many bytes…
const STRIDE: usize = 1 << 20;

/// …but at least and at most this many.
const BLOCKS: (usize, usize) = (4, 64);

/// Hex SHA-256 over the configuration, with sorted keys, and every tensor in
/// name order: its name, dtype, shape and sampled bytes.
///
/// Sampled are the first block, the last, and evenly spaced ones between, so
/// tens of gigabytes cost seconds. The layout of shards does not enter. A change
/// that only touches bytes between the samples is not noticed: this tells
/// models apart, it does not prove that none was tampered with.
///
/// # Errors
/// [`Error::NotHere`](crate::Error::NotHere)
pub(super) fn fingerprint(checkpoint: &Checkpoint) -> Result<String> {
    let tensors: Vec<_> = checkpoint.tensors().collect();
    let digests: Vec<_> = tensors.par_iter().map(digest).collect::<Result<_>>()?;
    Ok(combined(checkpoint, &digests))
}

/// The fingerprint of a configuration and the digests of all tensors, in the
/// order of their names.
pub(super) fn combined(checkpoint: &Checkpoint, digests: &[Digested]) -> String {
    let mut config = checkpoint.config().value().clone();
    config.sort_all_objects();
    let mut hash = Sha256::new();
    field(&mut hash, config.to_string().as_bytes());
    for digest in digests {
        hash.update(digest);
    }
    hex(&hash.finalize())
}

/// What is left of a tensor in the fingerprint.
///
/// # Errors
/// [`Error::NotHere`](crate::Error::NotHere)
pub(super) fn digest(tensor: &TensorView<'_>) -> Result<Digested> {
    let mut hash = Sha256::new();
    field(&mut hash, tensor.name.as_bytes());
    field(&mut hash, tensor.element.to_string().as_bytes());
    hash.update((tensor.shape.len() as u64).to_le_bytes());
    for &dim in tensor.shape {
        hash.update((dim as u64).to_le_bytes());
    }
    let data = tensor.data()?;
    for start in sample(data.len()) {
        let end = if data.len() <= WHOLE {
            data.len()
        } else {
            start + BLOCK
        };
        hash.update(&data[start..end]);
    }
    tensor.release();
    Ok(hash.finalize().into())
}

/// Where the blocks begin that are hashed of a tensor of `bytes` bytes.
fn sample(bytes: usize) -> Vec<usize> {
    if bytes <= WHOLE {
        return vec![0];
    }
    let blocks = (bytes / STRIDE).clamp(BLOCKS.0, BLOCKS.1);
    let last = bytes - BLOCK;
    (0..blocks)
        .map(|block| (last as u128 * block as u128 / (blocks as u128 - 1)) as usize)
        .collect()
}

/// Hashes a length before the bytes, so that fields cannot run together.
fn field(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

/// Reads what [`hex`] writes of a digest.
pub(super) fn unhex(digits: &str) -> Option<Digested> {
    let mut digest = [0; 32];
    let pairs = digits.as_bytes().chunks(2);
    if digits.len() != 2 * digest.len() {
        return None;
    }
    for (byte, pair) in digest.iter_mut().zip(pairs) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(digest)
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_reach_from_the_first_byte_to_the_last() {
        assert_eq!(sample(0), [0]);
        assert_eq!(sample(WHOLE), [0]);
        for (bytes, blocks) in [(WHOLE + 1, 4), (10 << 20, 10), (1 << 40, 64)] {
            let starts = sample(bytes);
            assert_eq!(starts.len(), blocks);
            assert_eq!(starts[0], 0);
            assert_eq!(starts[blocks - 1] + BLOCK, bytes);
            assert!(starts.windows(2).all(|pair| pair[0] + BLOCK <= pair[1]));
        }
    }
}
