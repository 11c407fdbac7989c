//! One file of a checkpoint, safetensors or GGUF, mapped and validated.

use std::ops::Range;
use std::path::{Path, PathBuf};

use super::map::Map;
use super::order::Order;
use super::{header, Element};
use crate::gguf;
use crate::{Error, Result};

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
    /// Of a stand-in, the bytes that are here nevertheless; `None` of a file
    /// that is whole.
    present: Option<Vec<Range<usize>>>,
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
            present: stand_in.then(Vec::new),
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
            present: None,
        };
        Ok((shard, header))
    }

    /// Says what the tensors are, in file order; each lies inside the file.
    pub(super) fn set_tensors(&mut self, tensors: Vec<Stored>) {
        self.tensors = tensors;
    }

    /// Maps the file again, in whose place another has been put: whole, or a
    /// stand-in that has the bytes `present`.
    ///
    /// # Errors
    /// [`Error::Replaced`] if it has another header, or other bytes where this
    /// one has some that were taken ahead; those of [`open`](Self::open).
    pub(super) fn reopen(&mut self, present: Option<Vec<Range<usize>>>) -> Result<()> {
        let next = Self::open(self.path.clone(), present.is_some())?;
        let replaced = |what: String| Error::Replaced {
            path: self.path.clone(),
            what,
        };
        if next.before_data() != self.before_data() {
            return Err(replaced("its header".to_owned()));
        }
        let taken = self.present.iter().flatten();
        for range in taken.filter(|_| present.is_none()) {
            if self.map.bytes()[range.clone()] != next.map.bytes()[range.clone()] {
                return Err(replaced(format!("bytes {}..{}", range.start, range.end)));
            }
        }
        *self = Self { present, ..next };
        Ok(())
    }

    /// Takes its data for holes.
    pub(super) fn hide(&mut self) {
        self.present = Some(Vec::new());
    }

    /// The length of the header, and the header.
    fn before_data(&self) -> &[u8] {
        let first = self.tensors.first();
        let end = first.map_or(self.map.bytes().len(), |tensor| tensor.range.start);
        &self.map.bytes()[..end]
    }

    /// The name of the file.
    pub(super) fn file(&self) -> &str {
        let name = self.path.file_name().and_then(|name| name.to_str());
        name.unwrap_or_default()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn map(&self) -> &Map {
        &self.map
    }

    /// Whether all of the data is here.
    pub(super) fn is_whole(&self) -> bool {
        self.present.is_none()
    }

    /// Whether the bytes `range` are here.
    pub(super) fn holds(&self, range: &Range<usize>) -> bool {
        let holds =
            |present: &Range<usize>| present.start <= range.start && range.end <= present.end;
        self.present
            .as_ref()
            .is_none_or(|present| present.iter().any(holds))
    }

    /// The tensors, in file order.
    pub(super) fn tensors(&self) -> &[Stored] {
        &self.tensors
    }
}
