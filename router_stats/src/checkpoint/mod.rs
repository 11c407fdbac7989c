//! Checkpoints on disk: a Hugging Face directory, or GGUF files, as named,
//! mapped tensors.
//!
//! Owns `config.json` as read, the shards and their headers, the block scales
//! of fp8 weights, the layouts of experts, the fingerprint and the tokenizer
//! file. It does not know what a tensor is for (see [`crate::family`]) and never
//! writes. Headers and indices may be hostile: whatever they say, opening ends
//! in a checkpoint whose every tensor lies inside its file, or in a named error.

mod blocks;
mod element;
mod experts;
mod fingerprint;
mod gguf;
pub(crate) mod header;
mod index;
pub(crate) mod map;
mod order;
mod quantization;
mod shard;
mod stand_in;
mod tensor;
#[cfg(test)]
pub(crate) mod testing;
mod transpose;
mod weight;
mod widen;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

pub use element::Element;
pub use experts::{ExpertReader, Layout};
pub(crate) use fingerprint::hex;
pub use gguf::stem as file_stem;
pub use stand_in::header_bytes;
pub use tensor::{Rows, TensorView};
pub use transpose::transpose;
pub use weight::Weight;

use crate::family::Config;
use crate::gguf::Header;
use crate::{Error, Result};
use shard::Shard;

const CONFIG: &str = "config.json";
const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const TOKENIZER: &str = "tokenizer.json";

/// An opened checkpoint: headers are parsed and validated, data is mapped.
#[derive(Debug)]
pub struct Checkpoint {
    /// The directory, or the GGUF file.
    dir: PathBuf,
    config: Config,
    /// Of a GGUF file, what comes before its data.
    gguf: Option<Header>,
    /// Rows and columns that share a scale in fp8 weights.
    block: Option<quantization::Block>,
    shards: Vec<Shard>,
    /// Name → shard and position in it.
    tensors: BTreeMap<String, (usize, usize)>,
    /// Once it was asked for.
    fingerprint: OnceLock<String>,
}

impl Checkpoint {
    /// Opens `config.json` and `model.safetensors`, or the shards that
    /// `model.safetensors.index.json` names, in `dir`; or the GGUF file that it
    /// is, or that is the only one there, with all its parts.
    ///
    /// # Errors
    /// [`Error::NotACheckpoint`] if a file is absent, [`Error::Io`] if one
    /// cannot be read, [`Error::Json`], [`Error::Config`], [`Error::Index`],
    /// [`Error::Header`] or [`Error::Truncated`] if one is malformed,
    /// [`Error::Quantization`] if weights are quantised in a way that is not
    /// read, those of GGUF files, and [`Error::MissingTensor`] if a shard lacks what the index
    /// promises.
    pub fn open(dir: &Path) -> Result<Self> {
        if !dir.join(SINGLE).exists() && !dir.join(INDEX).exists() {
            if let Some(file) = gguf::find(dir)? {
                return Self::open_gguf(&file);
            }
        }
        if !dir.is_dir() {
            std::fs::read_dir(dir).map_err(Error::io(dir))?;
        }
        let config = read_config(dir)?;
        let block = quantization::block(&config)?;
        let (shards, tensors) = if dir.join(SINGLE).exists() {
            single(dir.join(SINGLE))?
        } else if dir.join(INDEX).exists() {
            sharded(dir)?
        } else {
            return Err(not_a_checkpoint(
                dir,
                "model.safetensors or model.safetensors.index.json",
            ));
        };
        Ok(Self {
            dir: dir.to_path_buf(),
            config,
            gguf: None,
            block,
            shards,
            tensors,
            fingerprint: OnceLock::new(),
        })
    }

    fn open_gguf(file: &Path) -> Result<Self> {
        let opened = gguf::open(file)?;
        Ok(Self {
            dir: file.to_path_buf(),
            config: opened.config,
            gguf: Some(opened.header),
            block: None,
            shards: opened.shards,
            tensors: opened.tensors,
            fingerprint: OnceLock::new(),
        })
    }

    /// What a GGUF file, the first if there are several, says before its data.
    pub fn gguf(&self) -> Option<&Header> {
        self.gguf.as_ref()
    }

    /// The directory, or the GGUF file.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What people call the model: the directory's name, or `org/name` for a
    /// snapshot in the hub's cache, whose directory is named by a commit. A GGUF
    /// file says it, else it is that of the file.
    pub fn name(&self) -> String {
        if let Some(header) = &self.gguf {
            let said = header.metadata.optional_text("general.name").ok().flatten();
            let said = said.filter(|name| !name.trim().is_empty());
            return said.map_or_else(|| gguf::stem(&self.dir), str::to_owned);
        }
        let dir = std::path::absolute(&self.dir).unwrap_or_else(|_| self.dir.clone());
        let part = |path: Option<&Path>| {
            path.and_then(Path::file_name)
                .map(|name| name.to_string_lossy().into_owned())
        };
        let repository = dir
            .parent()
            .filter(|parent| parent.ends_with("snapshots"))
            .and_then(|parent| part(parent.parent()))
            .and_then(|name| {
                name.strip_prefix("models--")
                    .map(|name| name.replace("--", "/"))
            });
        repository
            .or_else(|| part(Some(&dir)))
            .unwrap_or_else(|| "model".to_owned())
    }

    /// The files that hold the tensors, in the order they were opened.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.shards.iter().map(Shard::path)
    }

    /// `config.json`.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// All tensors, sorted by name.
    pub fn tensors(&self) -> impl Iterator<Item = TensorView<'_>> {
        self.tensors
            .values()
            .map(|&(shard, index)| TensorView::new(&self.shards[shard], index))
    }

    /// Whether there is a tensor called `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// [`Error::MissingTensor`]
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>> {
        match self.tensors.get(name) {
            Some(&(shard, index)) => Ok(TensorView::new(&self.shards[shard], index)),
            None => Err(Error::MissingTensor {
                path: self.dir.clone(),
                tensor: name.to_owned(),
                expected: "it in a shard".to_owned(),
            }),
        }
    }

    /// The tensor called `name`, if it has this shape.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], which names the shape, or [`Error::Shape`].
    pub fn tensor_of_shape(&self, name: &str, shape: &[usize]) -> Result<TensorView<'_>> {
        if !self.contains(name) {
            return Err(Error::MissingTensor {
                path: self.dir.clone(),
                tensor: name.to_owned(),
                expected: format!("{shape:?}"),
            });
        }
        self.tensor(name)?.expect_shape(shape)
    }

    /// The weight called `name`, if it has this shape, with the block scales of
    /// an fp8 matrix.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], [`Error::Shape`], [`Error::Dtype`] or
    /// [`Error::Quantization`].
    pub fn weight(&self, name: &str, shape: &[usize]) -> Result<Weight<'_>> {
        Weight::open(self, name, shape)
    }

    /// Bytes of all tensors together.
    pub fn bytes(&self) -> u64 {
        self.tensors().map(|tensor| tensor.bytes() as u64).sum()
    }

    /// Hex SHA-256 of the configuration and of every tensor's name, dtype,
    /// shape and a sample of its bytes. Independent of how tensors are
    /// distributed over shards; changes between the samples go unnoticed.
    /// Computed once, by the first call.
    ///
    /// # Errors
    /// [`Error::NotHere`] if a shard is a stand-in for one elsewhere.
    pub fn fingerprint(&self) -> Result<String> {
        if let Some(known) = self.fingerprint.get() {
            return Ok(known.clone());
        }
        let found = fingerprint::fingerprint(self)?;
        Ok(self.fingerprint.get_or_init(|| found).clone())
    }

    /// `tokenizer.json`, if it is there: in the directory, or beside the GGUF file.
    pub fn tokenizer_file(&self) -> Option<PathBuf> {
        let path = match &self.gguf {
            None => self.dir.join(TOKENIZER),
            Some(_) => self.dir.with_file_name(TOKENIZER),
        };
        path.is_file().then_some(path)
    }

    /// Whether there is a tokenizer, which may still not load.
    pub fn has_tokenizer(&self) -> bool {
        let stored = self.gguf.as_ref().map(|header| &header.metadata);
        self.tokenizer_file().is_some()
            || stored.is_some_and(|metadata| metadata.has("tokenizer.ggml.tokens"))
    }

    /// Reads `tokenizer.json`, or else what a GGUF file says of its tokenizer.
    ///
    /// # Errors
    /// [`Error::NoTokenizer`] if there is neither, [`Error::Tokenizer`] if it
    /// does not load, [`Error::Untranslated`] if a file's is of a kind that is
    /// not read.
    pub fn tokenizer(&self) -> Result<tokenizers::Tokenizer> {
        let Some(path) = self.tokenizer_file() else {
            return match &self.gguf {
                Some(header) if self.has_tokenizer() => {
                    crate::gguf::tokenizer(&header.metadata).map_err(|it| it.at(&self.dir))
                }
                _ => Err(Error::NoTokenizer {
                    path: self.dir.clone(),
                }),
            };
        };
        tokenizers::Tokenizer::from_file(&path).map_err(|error| Error::Tokenizer {
            path,
            reason: error.to_string(),
        })
    }
}

fn not_a_checkpoint(dir: &Path, missing: &'static str) -> Error {
    Error::NotACheckpoint {
        path: dir.to_path_buf(),
        missing,
    }
}

fn read_config(dir: &Path) -> Result<Config> {
    let path = dir.join(CONFIG);
    if !path.exists() {
        return Err(not_a_checkpoint(dir, CONFIG));
    }
    let text = std::fs::read(&path).map_err(Error::io(&path))?;
    match serde_json::from_slice(&text) {
        Ok(value) => Config::new(path, value),
        Err(source) => Err(Error::Json { path, source }),
    }
}

type Shards = (Vec<Shard>, BTreeMap<String, (usize, usize)>);

fn single(path: PathBuf) -> Result<Shards> {
    let shard = Shard::open(path, false)?;
    let names = shard.tensors().iter().enumerate();
    let tensors = names
        .map(|(index, tensor)| (tensor.name.clone(), (0, index)))
        .collect();
    Ok((vec![shard], tensors))
}

fn sharded(dir: &Path) -> Result<Shards> {
    let weights = index::read(&dir.join(INDEX))?;
    let mut shards: Vec<Shard> = Vec::new();
    // File name → its position and the positions of its tensors.
    let mut opened: HashMap<&str, (usize, HashMap<String, usize>)> = HashMap::new();
    let mut tensors = BTreeMap::new();
    for (tensor, file) in &weights {
        if !opened.contains_key(file.as_str()) {
            let shard = Shard::open(dir.join(file), false)?;
            let names = shard.tensors().iter().enumerate();
            let positions = names
                .map(|(index, tensor)| (tensor.name.clone(), index))
                .collect();
            opened.insert(file, (shards.len(), positions));
            shards.push(shard);
        }
        let (shard, positions) = &opened[file.as_str()];
        let Some(&position) = positions.get(tensor) else {
            return Err(Error::MissingTensor {
                path: shards[*shard].path().to_path_buf(),
                tensor: tensor.clone(),
                expected: format!("it here, as {INDEX} says"),
            });
        };
        tensors.insert(tensor.clone(), (*shard, position));
    }
    Ok((shards, tensors))
}

#[cfg(test)]
mod tests;
