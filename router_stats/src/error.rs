//! Every way reading, running or measuring a checkpoint can fail.

use std::path::{Path, PathBuf};

use crate::forward::Quantization;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error names the file, the tensor or field, what was expected and what
/// was found; [`Error::hint`] says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused a file operation.
    #[error("{}: {source}", path.display())]
    Io {
        /// File or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The directory has no `config.json` or no weights.
    #[error("{}: not a checkpoint: no {missing}", path.display())]
    NotACheckpoint {
        /// Directory.
        path: PathBuf,
        /// The missing file, or a pattern for it.
        missing: &'static str,
    },
    /// A JSON file does not parse.
    #[error("{}: {source}", path.display())]
    Json {
        /// File.
        path: PathBuf,
        /// Position and reason.
        source: serde_json::Error,
    },
    /// A field of `config.json` is absent or has an unusable value.
    #[error("{}: `{field}`: expected {expected}, found {found}", path.display())]
    Config {
        /// Path of `config.json`.
        path: PathBuf,
        /// Dotted name of the field.
        field: String,
        /// What the field must hold.
        expected: String,
        /// What it holds.
        found: String,
    },
    /// No registered family serves this architecture.
    #[error("{}: unknown model family `{found}`; known: {known}", path.display())]
    UnknownFamily {
        /// Path of `config.json`.
        path: PathBuf,
        /// The architecture or model type found.
        found: String,
        /// Known families, comma separated.
        known: String,
    },
    /// A safetensors header is malformed or hostile.
    #[error("{}: invalid safetensors header: {reason}", path.display())]
    Header {
        /// Shard.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The header of a GGUF file is malformed or hostile.
    #[error("{}: invalid GGUF header: {reason}", path.display())]
    Gguf {
        /// File.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A directory has several GGUF models.
    #[error("{}: expected one model, found {}", path.display(), files.join(", "))]
    SeveralModels {
        /// Directory.
        path: PathBuf,
        /// Their first files.
        files: Vec<String>,
    },
    /// A GGUF file has a tensor that its architecture does not.
    #[error("{}: tensor `{tensor}`: expected a tensor of `{architecture}`, found a name that it does not have", path.display())]
    UnknownTensor {
        /// File.
        path: PathBuf,
        /// Name in the file.
        tensor: String,
        /// What llama.cpp calls the family.
        architecture: &'static str,
    },
    /// The list of shards is malformed or leads out of the directory.
    #[error("{}: invalid shard index: {reason}", path.display())]
    Index {
        /// `model.safetensors.index.json`.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A shard ends before one of its tensors does.
    #[error(
        "{}: tensor `{tensor}`\n       expected {shape:?} {dtype} ({expected} bytes), \
         found {found} bytes before the end of the file",
        path.display()
    )]
    Truncated {
        /// Shard.
        path: PathBuf,
        /// First tensor that is cut off.
        tensor: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Its dtype as safetensors spells it.
        dtype: String,
        /// Bytes it needs.
        expected: u64,
        /// Bytes there are.
        found: u64,
    },
    /// A tensor that the configuration requires is in no shard.
    #[error("{}: tensor `{tensor}` is missing: expected {expected}, found no such name", path.display())]
    MissingTensor {
        /// Checkpoint directory, or the shard an index names for it.
        path: PathBuf,
        /// Name.
        tensor: String,
        /// Expected shape, or where the index says it is.
        expected: String,
    },
    /// The shard of a tensor is a stand-in: its header is here, its data is not.
    #[error("{}: tensor `{tensor}`: expected its data, found only the header of its file", path.display())]
    NotHere {
        /// Shard.
        path: PathBuf,
        /// Name.
        tensor: String,
    },
    /// A file that came in place of its stand-in is not the one that was planned
    /// with.
    #[error("{}: expected {what} as it came first, found another", path.display())]
    Replaced {
        /// Shard.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// A tensor has another shape than the configuration implies.
    #[error("{}: tensor `{tensor}`: expected shape {expected:?}, found {found:?}", path.display())]
    Shape {
        /// Shard.
        path: PathBuf,
        /// Name.
        tensor: String,
        /// Shape that `config.json` implies.
        expected: Vec<usize>,
        /// Shape in the shard.
        found: Vec<usize>,
    },
    /// A weight has a dtype that the forward pass does not read.
    #[error("{}: tensor `{tensor}`: expected dtype {expected}, found {found}", path.display())]
    Dtype {
        /// Shard.
        path: PathBuf,
        /// Name.
        tensor: String,
        /// Dtypes that are read there.
        expected: &'static str,
        /// Dtype in the shard.
        found: String,
    },
    /// The experts of a layer are stored in different dtypes.
    #[error("{}: tensor `{tensor}`: expected dtype {expected}, as the layer's first expert, found {found}", path.display())]
    MixedDtypes {
        /// Shard.
        path: PathBuf,
        /// Name.
        tensor: String,
        /// Dtype of the layer's first expert.
        expected: String,
        /// Dtype in the shard.
        found: String,
    },
    /// A weight is NaN or infinite.
    #[error("{}: tensor `{tensor}`: expected finite weights, found {value} at element {index}", path.display())]
    NonFinite {
        /// Shard.
        path: PathBuf,
        /// Name.
        tensor: String,
        /// Flat index of the first bad element.
        index: usize,
        /// The bad value.
        value: f32,
    },
    /// The scale of an fp8 block is not a positive finite number.
    #[error("{}: tensor `{tensor}`: expected positive finite scales, found {value} at element {index}", path.display())]
    Scale {
        /// Shard.
        path: PathBuf,
        /// Name of the scales.
        tensor: String,
        /// Flat index of the first bad scale.
        index: usize,
        /// The bad value.
        value: f32,
    },
    /// Weights are quantised in a way that is not read.
    #[error("{}: `{field}`: expected {expected}, found {found}", path.display())]
    Quantization {
        /// Path of `config.json`.
        path: PathBuf,
        /// Dotted name of the field.
        field: String,
        /// What the field must hold.
        expected: String,
        /// What it holds.
        found: String,
    },
    /// A matrix cannot be rounded through a GGML type.
    #[error("{}: tensor `{tensor}`: cannot be {quantization}: expected {expected}, found {found}", path.display())]
    Unquantizable {
        /// Checkpoint directory.
        path: PathBuf,
        /// Name.
        tensor: String,
        /// The type.
        quantization: Quantization,
        /// What the type can hold.
        expected: String,
        /// What the matrix is.
        found: String,
    },
    /// The checkpoint has no tokenizer.
    #[error("{}: expected tokenizer.json, found none", path.display())]
    NoTokenizer {
        /// Checkpoint directory.
        path: PathBuf,
    },
    /// A tokenizer cannot be said in GGUF, or that of a GGUF file cannot be read.
    #[error("{}: a tokenizer that llama.cpp's and this build do not have in common: {reason}", path.display())]
    Untranslated {
        /// `tokenizer.json`, or the GGUF file.
        path: PathBuf,
        /// What there is no counterpart for.
        reason: String,
    },
    /// The tokenizer does not load or does not encode.
    #[error("{}: tokenizer: {reason}", path.display())]
    Tokenizer {
        /// `tokenizer.json`.
        path: PathBuf,
        /// What the tokenizer said.
        reason: String,
    },
    /// The chat template is absent or does not render.
    #[error("{}: chat template: {reason}", path.display())]
    ChatTemplate {
        /// File it came from.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },
    /// A calibration or evaluation file cannot be used.
    #[error("{}{}: {reason}", path.display(), line.map(|l| format!(":{l}")).unwrap_or_default())]
    Corpus {
        /// File.
        path: PathBuf,
        /// Line, from 1, for line-based formats.
        line: Option<usize>,
        /// What is wrong.
        reason: String,
    },
    /// There is no text to run.
    #[error("{what}: expected at least {expected} tokens, found {found}")]
    TooLittleText {
        /// Domain or file.
        what: String,
        /// Tokens needed.
        expected: usize,
        /// Tokens there are.
        found: usize,
    },
    /// A statistics file is malformed.
    #[error("{}: not a usable statistics file: {reason}", path.display())]
    StatsFile {
        /// File.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A statistics file was written by another version.
    #[error("{}: statistics version {found}; this build reads {supported}", path.display())]
    StatsVersion {
        /// File.
        path: PathBuf,
        /// Version in the file.
        found: String,
        /// Version this build reads.
        supported: u32,
    },
    /// Statistics lack a table that is asked for.
    #[error("statistics have no table `{table}`; they have: {known}")]
    MissingTable {
        /// Name.
        table: String,
        /// Tables there are, comma separated.
        known: String,
    },
    /// Statistics that must agree do not.
    #[error("statistics disagree on {what}: {left} against {right}")]
    StatsMismatch {
        /// What differs.
        what: String,
        /// Value of the first.
        left: String,
        /// Value of the second.
        right: String,
    },
    /// What is asked for does not fit the model's structure.
    #[error("{what}: expected {expected}, found {found}")]
    Structure {
        /// The property that is violated.
        what: String,
        /// What the model allows.
        expected: String,
        /// What was asked for.
        found: String,
    },
    /// Weights are finite, but what a layer computes from them is not.
    #[error("{}: layer {layer}: expected finite activations, found {value} in table `{table}`", path.display())]
    NonFiniteActivations {
        /// Checkpoint directory.
        path: PathBuf,
        /// Layer, from 0.
        layer: usize,
        /// Table of statistics that shows it.
        table: String,
        /// The bad value.
        value: f64,
    },
    /// Another calibration holds the state folder.
    #[error("{}: expected a state folder of its own, found another run using it", path.display())]
    StateInUse {
        /// State folder.
        path: PathBuf,
    },
    /// The user asked to stop.
    #[error("interrupted")]
    Interrupted,
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    /// Wraps an I/O error with the path it concerns.
    pub fn io(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { path, source }
    }

    /// One sentence of advice, where there is any to give.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => {
                "free some disk space and run the same command again; nothing half-written was kept"
            }
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                "check the permissions, or choose another folder with --cache-dir or -o"
            }
            Self::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                "check the path; a model is a local directory, a GGUF file or a hub id such as org/name"
            }
            Self::NotACheckpoint { .. } => {
                "a checkpoint is a Hugging Face directory, config.json and model.safetensors or an index with its shards, or a GGUF file"
            }
            Self::Config { .. } => {
                "what the model computes depends on this field; compare with the config.json it was published with"
            }
            Self::SeveralModels { .. } => "name one of the files with -m",
            Self::UnknownTensor { .. } => {
                "what the model computes with it is not known here, so it is not left out; \
                 convert the original checkpoint instead"
            }
            Self::UnknownFamily { .. } => {
                "this version prunes the families listed; CONTRIBUTING.md explains how to add one"
            }
            Self::Truncated { .. }
            | Self::Header { .. }
            | Self::Gguf { .. }
            | Self::Index { .. }
            | Self::MissingTensor { .. } => "the file is incomplete or damaged; download it again",
            Self::NotHere { .. } => "download the whole model first: its weights are read at one go here",
            Self::Replaced { .. } => {
                "a part of the file was spoilt on its way; run it again, which plans with the whole file"
            }
            Self::Shape { .. } => "config.json and the weights belong to different models",
            Self::Dtype { .. } | Self::MixedDtypes { .. } => "convert the checkpoint to bf16, f16 or f32 first",
            Self::Quantization { .. } => {
                "use the model's bf16, f16 or f32 weights; of quantised ones only fp8 with block scales is read"
            }
            Self::Unquantizable { .. } => {
                "types that end in `_0` have blocks of 32 weights, the others of 256; larger blocks fit fewer matrices"
            }
            Self::NonFinite { .. } | Self::Scale { .. } => {
                "the checkpoint is damaged or was exported wrongly; download it again"
            }
            Self::NoTokenizer { .. } => {
                "copy tokenizer.json from the original model into the directory"
            }
            Self::Untranslated { .. } => {
                "text would be split into other tokens than the model learnt; `--layout hf` and a converter that knows the tokenizer may do"
            }
            Self::ChatTemplate { .. } => {
                "chat `messages` need the model's chat template; use lines with `text` instead"
            }
            Self::TooLittleText { .. } => "add text, or lower --calibration-tokens or --seq-len",
            Self::StatsVersion { .. } | Self::MissingTable { .. } => "run `calibrate` again with this version",
            Self::StatsMismatch { .. } => {
                "only statistics of one model, made with the same settings, can be merged"
            }
            Self::NonFiniteActivations { .. } => {
                "the weights are finite but activations overflow: the checkpoint is damaged or needs another dtype"
            }
            Self::StateInUse { .. } => {
                "wait for the other run to end, or give this one another output"
            }
            Self::Interrupted => "finished layers are kept; the same command continues after them",
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
