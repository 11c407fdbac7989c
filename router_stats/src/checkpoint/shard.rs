//! One file of a checkpoint, safetensors or GGUF, mapped and validated.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::map::Map;
use super::order::Order;
use super::{header, Element};
use crate::gguf;
use crate::Result;

/// What is known of one tensor without looking at its data.
#[derive(Debug)]
pub(super) struct Stored {
    pub(super) name: String,
    pub(super) element: Element,
    pub(super) shape: Vec<usize>,
    /// Where its bytes lie in the file.
    pub(super) range: Range<usize>,
    /// How its rows lie, if not as the model has them.
    pub(super) order: Option<Order>,
}

/// A mapped file and where its tensors are.
#[derive(Debug)]
pub(super) struct Shard {
    path: PathBuf,
    map: Map,
    /// In file order.
    tensors: Vec<Stored>,
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
        let tensors = header.tensors.into_iter().map(|(name, info)| Stored {
            name,
            element: info.dtype.into(),
            shape: info.shape,
            range: info.data_offsets.0..info.data_offsets.1,
            order: None,
        });
        let tensors = tensors.collect();
        Ok(Self {
            path,
            map,
            tensors,
            stand_in,
        })
    }

    /// Maps the GGUF file at `path` and validates its header against its
    /// length. Its tensors are [set](Self::set_tensors) when their names are
    /// known.
    ///
    /// # Errors
    /// [`Error::Io`](crate::Error::Io), and those of
    /// [`Malformed`](gguf::Malformed).
    pub(super) fn open_gguf(path: PathBuf) -> Result<(Self, gguf::Header)> {
        let map = Map::open(&path)?;
        let header = gguf::Header::parse(map.bytes()).map_err(|malformed| malformed.at(&path))?;
        let shard = Self {
            path,
            map,
            tensors: Vec::new(),
            stand_in: false,
        };
        Ok((shard, header))
    }

    /// Says what the tensors are, in file order; each lies inside the file.
    pub(super) fn set_tensors(&mut self, tensors: Vec<Stored>) {
        self.tensors = tensors;
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

    /// The tensors, in file order.
    pub(super) fn tensors(&self) -> &[Stored] {
        &self.tensors
    }
}
