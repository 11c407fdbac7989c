//! Read-only memory maps: the one place that needs `unsafe`.

#![allow(unsafe_code)]

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;

use crate::{Error, Result};

/// Ranges from this size are given back. Below it, telling every processor
/// that a page is gone costs more than the page.
const WORTH_RELEASING: usize = 256 << 10;

/// A whole file, mapped read-only.
#[derive(Debug)]
pub(crate) struct Map(Mmap);

impl Map {
    /// Maps the regular file at `path`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be opened or mapped or is no regular file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        // Opening a pipe would block, so the kind is looked at first.
        let metadata = std::fs::metadata(path).map_err(Error::io(path))?;
        if !metadata.is_file() {
            let kind = std::io::Error::from(std::io::ErrorKind::InvalidInput);
            return Err(Error::io(path)(kind));
        }
        let file = File::open(path).map_err(Error::io(path))?;
        // SAFETY: the mapping is read-only and nothing in this program writes
        // to or shortens a checkpoint in place (outputs are renamed into
        // place). As with every memory map, another program that overwrites
        // the file while it is mapped changes the bytes seen here, and one
        // that shortens it makes reads fail with SIGBUS. Every bit pattern is
        // a valid `u8`, and values are checked after they are read.
        let map = unsafe { Mmap::map(&file) }.map_err(Error::io(path))?;
        Ok(Self(map))
    }

    /// The file's bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Lets the system take back the pages that hold `range`, so that they no
    /// longer count as resident, if they are many. Reading them again reads
    /// the file again.
    /// Advice only: failure is ignored, and other systems do nothing.
    pub(crate) fn release(&self, range: Range<usize>) {
        #[cfg(any(target_os = "linux", target_os = "macos"))]
        if range.len() >= WORTH_RELEASING && range.end <= self.0.len() {
            use memmap2::UncheckedAdvice::DontNeed;
            // SAFETY: the mapping is shared and read-only, so dropped pages
            // are refilled from the file: no byte that a live reference sees
            // changes. Pages at the edges, which the system rounds to, are
            // part of the same mapping.
            let _ = unsafe {
                self.0
                    .unchecked_advise_range(DontNeed, range.start, range.len())
            };
        }
        #[cfg(not(any(target_os = "linux", target_os = "macos")))]
        let _ = range;
    }
}
