//! What a run that was cut off had finished.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::cache::read_json;
use crate::{Error, Result};

/// File in the folder of a streamed pruning.
const FILE: &str = "journal.json";

/// How far a streamed pruning is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Journal {
    /// What tells this job from any other.
    pub(super) job: String,
    /// The same in words.
    pub(super) what: String,
    /// Where everything goes, once that is known.
    pub(super) places: String,
    /// Steps whose outputs are on the disk.
    pub(super) done: usize,
}

impl Journal {
    /// The journal in `folder`; `None` if there is none that this version reads.
    pub(super) fn read(folder: &Path) -> Option<Self> {
        read_json(&path(folder))
    }

    /// Writes it to `folder`, for good.
    ///
    /// # Errors
    /// I/O errors.
    pub(super) fn write(&self, folder: &Path) -> Result<()> {
        let json = serde_json::to_vec_pretty(self).map_err(Error::Serialize)?;
        Ok(router_stats::atomic::write(&path(folder), |file| {
            file.write_all(&json)
        })?)
    }
}

fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}
