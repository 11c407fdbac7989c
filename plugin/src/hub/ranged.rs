//! Some bytes of a file, without the rest of it.
//!
//! A part has no digest to be checked against, so whoever asks for one checks
//! it against the whole file later, or does not rely on it.

use std::io::Read;
use std::ops::Range;
use std::sync::atomic::AtomicBool;

use ureq::Response;

use super::transfer::content_range;
use super::wire::{malformed, patiently, Trouble, Wire};
use super::Failure;

/// Bytes `range` of the file at `path` on the hub, which has `size` bytes.
///
/// # Errors
/// [`Failure`]; [`Failure::Corrupted`] if the file turns out to have another
/// size.
pub(super) fn get(
    wire: &Wire,
    path: &str,
    range: &Range<u64>,
    size: u64,
) -> Result<Vec<u8>, Failure> {
    if range.is_empty() {
        return Ok(Vec::new());
    }
    // `bytes=` has the last byte, not the one after it.
    let asked = format!("bytes={}-{}", range.start, range.end - 1);
    let headers = [("accept-encoding", "identity"), ("range", asked.as_str())];
    patiently(&AtomicBool::new(false), || {
        let response = wire.send("GET", path, &headers)?;
        let total = begins(&response, range.start)?;
        if let Some(total) = total.filter(|&total| total != size) {
            return Err(Trouble::Final(Failure::Corrupted {
                file: path.rsplit('/').next().unwrap_or(path).to_owned(),
                expected: format!("{size} bytes"),
                found: format!("{total} bytes"),
            }));
        }
        let wanted = range.end - range.start;
        let mut bytes = Vec::new();
        let read = response.into_reader().take(wanted).read_to_end(&mut bytes);
        let lost = |reason: String| Trouble::Again(Failure::Transport(reason), None);
        read.map_err(|error| lost(error.to_string()))?;
        if bytes.len() as u64 == wanted {
            Ok(bytes)
        } else {
            Err(lost(format!("{path}: the connection broke off")))
        }
    })
}

/// The size of the whole file, if the answer says it and begins at byte `start`.
fn begins(response: &Response, start: u64) -> Result<Option<u64>, Failure> {
    match response.status() {
        206 => match response.header("content-range").and_then(content_range) {
            Some((found, total)) if found == start => Ok(total),
            Some((found, _)) => Err(malformed(&format!(
                "expected bytes from {start}, found {found}"
            ))),
            None => Err(malformed("a part without content-range")),
        },
        // The whole file begins as its first part does.
        200 if start == 0 => Ok(response
            .header("content-length")
            .and_then(|length| length.parse().ok())),
        200 => Err(malformed("the whole file where a part was asked for")),
        status => Err(Failure::Status(status)),
    }
}
