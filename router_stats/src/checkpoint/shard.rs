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
}

impl Shard {
    /// Maps the file at `path` and validates its header against its length.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), [`Error::Header`](crate::Error::Header) or
    /// [`Error::Truncated`](crate::Error::Truncated).
    pub(super) fn open(path: PathBuf) -> Result<Self> {
        let map = Map::open(&path)?;
        let header = header::parse(map.bytes()).map_err(|malformed| malformed.at(&path))?;
        Ok(Self { path, map, header })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn map(&self) -> &Map {
        &self.map
    }

    /// Names and what the header says of them, in file order.
    pub(super) fn tensors(&self) -> &[(String, TensorInfo)] {
        &self.header.tensors
    }
}
