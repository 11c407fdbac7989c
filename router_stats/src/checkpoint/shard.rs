//! One safetensors file of a checkpoint, mapped and validated.

use std::path::{Path, PathBuf};

use safetensors::tensor::TensorInfo;

use super::header::{self, Header};
use super::map::Map;
use crate::Result;

/// A mapped file and where its tensors are.
#[derive(Debug)]
pub(super) struct Shard {
    path: PathBuf,
    map: Map,
    header: Header,
    /// Whether the data is elsewhere.
    stand_in: bool,
}

impl Shard {
    /// Maps the file at `path` and validates its header against its length. A
    /// stand-in has the header and the length of a file elsewhere, and holes in
    /// place of its data, which is then never read.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), [`Error::Header`](crate::Error::Header) or
    /// [`Error::Truncated`](crate::Error::Truncated).
    pub(super) fn open(path: PathBuf, stand_in: bool) -> Result<Self> {
        let map = Map::open(&path)?;
        let header = header::parse(map.bytes()).map_err(|malformed| malformed.at(&path))?;
        Ok(Self {
            path,
            map,
            header,
            stand_in,
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn map(&self) -> &Map {
        &self.map
    }

    /// Whether the data is elsewhere.
    pub(super) fn is_stand_in(&self) -> bool {
        self.stand_in
    }

    /// Names and what the header says of them, in file order.
    pub(super) fn tensors(&self) -> &[(String, TensorInfo)] {
        &self.header.tensors
    }
}
