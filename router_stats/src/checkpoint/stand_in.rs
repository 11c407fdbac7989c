//! Checkpoints of which some shards are elsewhere.
//!
//! A stand-in is a file with the header and the length of a shard, and holes in
//! place of its data, so that names and shapes are known before the weights
//! come. Shards come and go one by one; a fingerprint is put together from what
//! each showed while it was here. Where shards come from is not known here.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;

use super::shard::Shard;
use super::{fingerprint, header, Checkpoint, TensorView};
use crate::{Error, Result};

/// Bytes that come before the data of a safetensors file of `size` bytes, which
/// begins with `first`: the length of its header and that.
///
/// # Errors
/// [`Error::Header`] at `path` if there is no length or no room for as much.
pub fn header_bytes(path: &Path, first: &[u8], size: u64) -> Result<u64> {
    header::before_data(first, size).map_err(|malformed| malformed.at(path))
}

impl Checkpoint {
    /// Opens `dir` as [`open`](Self::open) does, where the files called
    /// `stand_ins` have no data.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn open_stand_ins(dir: &Path, stand_ins: &[&str]) -> Result<Self> {
        let mut checkpoint = Self::open(dir)?;
        for shard in &mut checkpoint.shards {
            if stand_ins.contains(&shard.file()) {
                shard.hide();
            }
        }
        Ok(checkpoint)
    }

    /// Opens the file called `file` again, which has become a whole shard.
    ///
    /// # Errors
    /// [`Error::Replaced`] if it begins with another header, or holds other
    /// bytes where some were here before; those of opening it.
    pub fn replace(&mut self, file: &str) -> Result<()> {
        self.shard_mut(file)?.reopen(None)
    }

    /// Opens the file called `file` again, which has become a stand-in that has
    /// the data of tensors `present` and no other.
    ///
    /// # Errors
    /// Those of [`replace`](Self::replace).
    pub fn withdraw(&mut self, file: &str, present: &[&str]) -> Result<()> {
        let present = present
            .iter()
            .map(|tensor| Ok(self.tensor(tensor)?.place()))
            .collect::<Result<Vec<_>>>()?;
        self.shard_mut(file)?.reopen(Some(present))
    }

    /// Whether the file called `file` has its data.
    pub fn is_here(&self, file: &str) -> bool {
        let mut shards = self.shards.iter();
        shards.any(|shard| shard.file() == file && shard.is_whole())
    }

    /// Where the data of the tensor called `name` lies: the name of a file, and
    /// bytes of it.
    ///
    /// # Errors
    /// [`Error::MissingTensor`]
    pub fn place(&self, name: &str) -> Result<(&str, Range<u64>)> {
        let place = self.tensor(name)?.place();
        let shard = &self.shards[self.tensors[name].0];
        Ok((shard.file(), place.start as u64..place.end as u64))
    }

    /// A digest of every tensor in the file called `file`, by name: what
    /// [`fingerprint_of`](Self::fingerprint_of) is made of.
    ///
    /// # Errors
    /// [`Error::NotHere`]
    pub fn digests(&self, file: &str) -> Result<BTreeMap<String, String>> {
        let in_file = |&&(shard, _): &&(usize, usize)| self.shards[shard].file() == file;
        let places = self.tensors.values().filter(in_file);
        let views = places.map(|&(shard, index)| TensorView::new(&self.shards[shard], index));
        let views: Vec<_> = views.collect();
        let digest = |tensor: &TensorView<'_>| {
            let digest = fingerprint::digest(tensor)?;
            Ok((tensor.name.to_owned(), fingerprint::hex(&digest)))
        };
        views.par_iter().map(digest).collect()
    }

    /// The [`fingerprint`](Self::fingerprint) of all shards, from the digests
    /// that were taken while each was here.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] for the first tensor without a digest.
    pub fn fingerprint_of(&self, digests: &BTreeMap<String, String>) -> Result<String> {
        let digest = |name: &str| {
            let known = digests
                .get(name)
                .and_then(|digits| fingerprint::unhex(digits));
            known.ok_or_else(|| Error::MissingTensor {
                path: self.dir.clone(),
                tensor: name.to_owned(),
                expected: "a digest of it".to_owned(),
            })
        };
        let digests = self.names().map(digest).collect::<Result<Vec<_>>>()?;
        Ok(fingerprint::combined(self, &digests))
    }

    /// Takes `fingerprint` for that of a checkpoint whose weights are not here;
    /// whoever says so compares it once they have been.
    pub fn claim_fingerprint(&mut self, fingerprint: String) {
        self.fingerprint = fingerprint.into();
    }

    fn shard_mut(&mut self, file: &str) -> Result<&mut Shard> {
        let dir = &self.dir;
        let mut shards = self.shards.iter_mut();
        let shard = shards.find(|shard| shard.file() == file);
        shard.ok_or_else(|| Error::Index {
            path: dir.clone(),
            reason: format!("no shard is called {file}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use safetensors::Dtype;

    use super::super::testing::{file, tensor, write_sharded, Stored};
    use super::*;

    const FIRST: &str = "model-00001-of-00002.safetensors";
    const SECOND: &str = "model-00002-of-00002.safetensors";

    fn stored() -> Vec<Stored> {
        vec![
            tensor("a", Dtype::F32, &[2], &[0.5, -0.5]),
            tensor("b", Dtype::BF16, &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
            tensor("c", Dtype::F16, &[3, 1], &[1.0, 2.0, 4.0]),
        ]
    }

    fn whole(stored: &[Stored]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        write_sharded(dir.path(), "{}", &[&stored[..2], &stored[2..]]);
        dir
    }

    /// Puts a file of holes in the place of the shard called `name`, with the
    /// bytes `present`; what was there.
    fn hide(dir: &Path, name: &str, present: Range<usize>) -> Vec<u8> {
        let bytes = fs::read(dir.join(name)).unwrap();
        let end = header_bytes(dir, &bytes, bytes.len() as u64).unwrap() as usize;
        let mut holes = vec![0; bytes.len()];
        holes[..end].copy_from_slice(&bytes[..end]);
        holes[present.clone()].copy_from_slice(&bytes[present]);
        put(dir, name, &holes);
        bytes
    }

    /// As a rename does, so that what is mapped stays as it is.
    fn put(dir: &Path, name: &str, bytes: &[u8]) {
        fs::write(dir.join("next"), bytes).unwrap();
        fs::rename(dir.join("next"), dir.join(name)).unwrap();
    }

    #[test]
    fn shards_come_and_go_and_no_hole_is_read() {
        let dir = whole(&stored());
        let fingerprint = Checkpoint::open(dir.path()).unwrap().fingerprint().unwrap();
        let shards = [FIRST, SECOND].map(|name| (name, hide(dir.path(), name, 0..0)));
        let mut checkpoint = Checkpoint::open_stand_ins(dir.path(), &[FIRST, SECOND]).unwrap();
        assert_eq!(checkpoint.tensor("b").unwrap().shape, [2, 3]);
        let mut digests = BTreeMap::new();
        for (name, bytes) in &shards {
            assert!(!checkpoint.is_here(name));
            assert!(matches!(
                checkpoint.digests(name),
                Err(Error::NotHere { .. })
            ));
            assert!(matches!(
                checkpoint.fingerprint(),
                Err(Error::NotHere { .. })
            ));
            put(dir.path(), name, bytes);
            checkpoint.replace(name).unwrap();
            assert!(checkpoint.is_here(name));
            digests.extend(checkpoint.digests(name).unwrap());
            hide(dir.path(), name, 0..0);
            checkpoint.withdraw(name, &[]).unwrap();
        }
        for name in ["a", "b", "c"] {
            let tensor = checkpoint.tensor(name).unwrap();
            assert!(matches!(tensor.data(), Err(Error::NotHere { tensor, .. }) if tensor == name));
        }
        assert_eq!(checkpoint.fingerprint_of(&digests).unwrap(), fingerprint);
        digests.remove("b");
        assert!(checkpoint.fingerprint_of(&digests).is_err());
    }

    #[test]
    fn what_was_taken_ahead_is_compared() {
        let dir = whole(&stored());
        let open = || Checkpoint::open_stand_ins(dir.path(), &[FIRST]).unwrap();
        let mut checkpoint = open();
        let (file, range) = checkpoint.place("b").unwrap();
        assert_eq!(file, FIRST);
        let range = range.start as usize..range.end as usize;
        let mut bytes = hide(dir.path(), FIRST, range.clone());
        checkpoint.withdraw(FIRST, &["b"]).unwrap();
        let b = checkpoint.tensor("b").unwrap();
        assert_eq!(b.data().unwrap(), stored()[1].3);
        assert!(checkpoint.tensor("a").unwrap().data().is_err());
        bytes[range.start] ^= 1;
        put(dir.path(), FIRST, &bytes);
        assert!(matches!(
            checkpoint.replace(FIRST),
            Err(Error::Replaced { .. })
        ));
        bytes[range.start] ^= 1;
        put(dir.path(), FIRST, &bytes);
        checkpoint.replace(FIRST).unwrap();
        assert_eq!(
            checkpoint.tensor("a").unwrap().data().unwrap(),
            stored()[0].3
        );
    }

    #[test]
    fn another_header_is_refused() {
        let dir = whole(&stored());
        let mut checkpoint = Checkpoint::open_stand_ins(dir.path(), &[FIRST]).unwrap();
        let mut other = stored();
        other.swap(0, 1);
        put(dir.path(), FIRST, &file(&other[..2]));
        assert!(matches!(
            checkpoint.replace(FIRST),
            Err(Error::Replaced { what, .. }) if what == "its header"
        ));
        assert!(checkpoint.replace("other.safetensors").is_err());
    }

    #[test]
    fn headers_that_lie_about_their_length_are_refused() {
        let bytes = file(&stored());
        let size = bytes.len() as u64;
        let end = header_bytes(Path::new("x"), &bytes[..8], size).unwrap();
        assert_eq!(size - end, 8 + 12 + 6);
        for (length, size) in [(u64::MAX, u64::MAX), (100, 107), (1 << 40, 1 << 50)] {
            let refused = header_bytes(Path::new("x"), &length.to_le_bytes(), size);
            assert!(matches!(refused, Err(Error::Header { .. })), "{length}");
        }
        assert!(header_bytes(Path::new("x"), &[1, 2], 9).is_err());
    }
}
