//! GGUF files as checkpoints: the tensors of llama.cpp under our names.
//!
//! Owns which files are one model and what of them is read. The format is
//! [`crate::gguf`]'s, and what names and keys mean [`family::gguf`]'s.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use super::order::Order;
use super::shard::{Shard, Stored};
use super::{blocks, Element};
use crate::family::gguf::{config_of, Gguf, Stored as Named};
use crate::family::{self, Config, Names, Topology};
use crate::gguf::{Header, Info, Metadata, Value};
use crate::{Error, Result};

/// The ending of names of files.
const ENDING: &str = ".gguf";

/// Keys of a model in several files.
const PARTS: &str = "split.count";
const TENSORS: &str = "split.tensors.count";

/// What a model's files hold.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) config: Config,
    pub(super) shards: Vec<Shard>,
    /// Name → shard and position in it.
    pub(super) tensors: BTreeMap<String, (usize, usize)>,
    /// What the first file says before its data.
    pub(super) header: Header,
}

/// The GGUF file that `path` is, or that is the only model in the directory
/// `path`: the first of its parts.
///
/// # Errors
/// [`Error::SeveralModels`], [`Error::Io`].
pub(super) fn find(path: &Path) -> Result<Option<PathBuf>> {
    if !path.is_dir() {
        return Ok(has_ending(path).then(|| path.to_path_buf()));
    }
    let mut models = Vec::new();
    for entry in std::fs::read_dir(path).map_err(Error::io(path))? {
        let file = entry.map_err(Error::io(path))?.path();
        if has_ending(&file) && part(&file).is_none_or(|part| part.number == 1) {
            models.push(file);
        }
    }
    models.sort_unstable();
    if models.len() > 1 {
        return Err(Error::SeveralModels {
            path: path.to_path_buf(),
            files: models
                .iter()
                .filter_map(|file| file.file_name())
                .map(|name| name.to_string_lossy().into_owned())
                .collect(),
        });
    }
    Ok(models.pop())
}

fn has_ending(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy());
    name.is_some_and(|name| name.to_ascii_lowercase().ends_with(ENDING))
}

/// The name of a model's file without its ending, and without the number of its
/// part if it is one of several.
pub fn stem(path: &Path) -> String {
    if let Some(part) = part(path) {
        return part.stem;
    }
    let stem = path.file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}

/// One file of several: `{stem}-00002-of-00003.gguf`.
struct Part {
    stem: String,
    number: usize,
    count: usize,
}

/// Digits of a part's number.
const DIGITS: usize = 5;

fn part(path: &Path) -> Option<Part> {
    let number = |digits: &str| {
        let whole = digits.len() == DIGITS && digits.bytes().all(|it| it.is_ascii_digit());
        whole.then(|| digits.parse::<usize>().ok()).flatten()
    };
    let stem = path.file_stem()?.to_str()?;
    let (stem, count) = stem.rsplit_once("-of-")?;
    let (stem, index) = stem.rsplit_once('-')?;
    Some(Part {
        stem: stem.to_owned(),
        number: number(index)?,
        count: number(count)?,
    })
}

/// All files of the model that `first` is a file of.
fn parts(first: &Path) -> Vec<PathBuf> {
    let Some(Part { stem, count, .. }) = part(first) else {
        return vec![first.to_path_buf()];
    };
    let name = |number: usize| format!("{stem}-{number:05}-of-{count:05}{ENDING}");
    (1..=count.max(1))
        .map(|number| first.with_file_name(name(number)))
        .collect()
}

/// Opens the model whose file, or one of whose files, is at `path`.
///
/// # Errors
/// [`Error::Gguf`], [`Error::Truncated`] or [`Error::Dtype`] if a file is
/// malformed or holds what is not read; [`Error::UnknownFamily`] or
/// [`Error::Config`] if its keys are of no model that is read;
/// [`Error::UnknownTensor`]; [`Error::Io`].
pub(super) fn open(path: &Path) -> Result<Opened> {
    let files = parts(path);
    let mut shards = Vec::new();
    let mut headers = Vec::new();
    for file in &files {
        let missing = file != path && !file.exists();
        if missing {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            return Err(malformed(
                path,
                format!("one of {} files, without {name}", files.len()),
            ));
        }
        let (shard, header) = Shard::open_gguf(file.clone())?;
        shards.push(shard);
        headers.push(header);
    }
    let metadata = &headers[0].metadata;
    check_parts(path, metadata, &headers)?;
    let shapes: HashMap<&str, &[usize]> = infos(&headers)
        .map(|info| (&info.name[..], &info.shape[..]))
        .collect();
    let (gguf, config) = config_of(&files[0], metadata, |name| shapes.get(name).copied())?;
    let family = family::detect(&config)?;
    let topology = family.topology(&config)?;
    let naming = Naming::new(gguf, family.names(), &topology);
    let mut tensors = BTreeMap::new();
    for (index, (shard, header)) in shards.iter_mut().zip(&headers).enumerate() {
        let mut stored = Vec::with_capacity(header.tensors.len());
        for info in &header.tensors {
            let tensor = naming.stored(&files[index], header, info)?;
            let place = (index, stored.len());
            if tensors.insert(tensor.name.clone(), place).is_some() {
                let reason = format!("duplicate tensor `{}`", info.name);
                return Err(malformed(&files[index], reason));
            }
            stored.push(tensor);
        }
        shard.set_tensors(stored);
    }
    Ok(Opened {
        config,
        shards,
        tensors,
        header: headers.swap_remove(0),
    })
}

fn malformed(path: &Path, reason: String) -> Error {
    Error::Gguf {
        path: path.to_path_buf(),
        reason,
    }
}

fn infos(headers: &[Header]) -> impl Iterator<Item = &Info> {
    headers.iter().flat_map(|header| &header.tensors)
}

/// Checks that the first file counts as many files and tensors as there are.
fn check_parts(path: &Path, metadata: &Metadata, headers: &[Header]) -> Result<()> {
    let count = |key: &str| metadata.get(key).map(Value::natural);
    let tensors = infos(headers).count();
    for (key, found) in [(PARTS, headers.len()), (TENSORS, tensors)] {
        let Some(expected) = count(key) else { continue };
        if expected != Some(found as u64) {
            return Err(metadata
                .unusable(key, &format!("{found}, as there are"))
                .at(path));
        }
    }
    Ok(())
}

/// What tensors are called and how they lie.
struct Naming<'a> {
    gguf: &'static Gguf,
    names: &'static Names,
    topology: &'a Topology,
    /// Shapes of all but the experts.
    shapes: HashMap<String, Vec<usize>>,
}

impl<'a> Naming<'a> {
    fn new(gguf: &'static Gguf, names: &'static Names, topology: &'a Topology) -> Self {
        let expected = topology.tensors_beside_experts(names);
        Self {
            gguf,
            names,
            topology,
            shapes: expected.into_iter().map(|it| (it.name, it.shape)).collect(),
        }
    }

    /// What `info` is to us.
    fn stored(&self, path: &Path, header: &Header, info: &Info) -> Result<Stored> {
        let names = self.names;
        let name = match self.gguf.ours(names, &info.name) {
            Some(Named::Tensor(name)) => name,
            Some(Named::Experts { layer, projection }) => {
                names.in_block(layer, &names.stack(projection))
            }
            Some(Named::Expert {
                layer,
                expert,
                projection,
            }) => names.expert(layer, expert, projection),
            None => {
                return Err(Error::UnknownTensor {
                    path: path.to_path_buf(),
                    tensor: info.name.clone(),
                    architecture: self.gguf.architecture,
                })
            }
        };
        let element = Element::from(info.element);
        if matches!(element, Element::Blocks(blocks) if !blocks::is_read(blocks)) {
            return Err(Error::Dtype {
                path: path.to_path_buf(),
                tensor: info.name.clone(),
                expected: "F32, F16, BF16, Q2_K to Q6_K, or Q4_0 to Q8_0",
                found: element.to_string(),
            });
        }
        let start = header.data + info.offset as usize;
        // The header has been checked against the file: it lies inside.
        let bytes = info.bytes().unwrap_or(0);
        Ok(Stored {
            order: Order::of(&name, names, self.topology, self.gguf.pairs),
            shape: self.shape(&name, &info.shape),
            name,
            element,
            range: start..start + bytes,
        })
    }

    /// A shape as we have it: a file leaves out dimensions of 1.
    fn shape(&self, name: &str, stored: &[usize]) -> Vec<usize> {
        let wide = |shape: &[usize]| -> Vec<usize> {
            shape
                .iter()
                .copied()
                .filter(|&extent| extent != 1)
                .collect()
        };
        match self.shapes.get(name) {
            Some(expected) if wide(expected) == wide(stored) => expected.clone(),
            _ => stored.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests;
