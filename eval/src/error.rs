//! Every way an evaluation can fail.

use std::path::{Path, PathBuf};

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error names the model, file or option, what was expected and what was
/// found; [`Error::hint`] says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading or running a checkpoint failed.
    #[error(transparent)]
    RouterStats(#[from] router_stats::Error),
    /// An option has an unusable value.
    #[error("{option}: expected {expected}, found {found}")]
    Option {
        /// Name of the option.
        option: &'static str,
        /// What it accepts.
        expected: &'static str,
        /// What was given.
        found: String,
    },
    /// Two models, domains or tasks have one name, so that a report could not
    /// tell them apart.
    #[error("{what} `{name}`: expected unique names, found it twice")]
    DuplicateName {
        /// `model`, `domain` or `task`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A variant's vocabulary is not the reference's.
    #[error("`{variant}`: expected a vocabulary of {expected} as in `{reference}`, found {found}")]
    Vocabulary {
        /// Name of the reference.
        reference: String,
        /// Name of the variant.
        variant: String,
        /// Vocabulary of the reference.
        expected: usize,
        /// Vocabulary of the variant.
        found: usize,
    },
    /// A token of the text is not in the vocabulary.
    #[error(
        "`{model}`: expected token ids below {vocabulary}, found {token} in sequence {sequence}"
    )]
    Token {
        /// Name of the model.
        model: String,
        /// Its vocabulary.
        vocabulary: usize,
        /// The token id.
        token: u32,
        /// Index of the sequence.
        sequence: usize,
    },
    /// No domain of positive weight has a token to predict.
    #[error(
        "evaluation text: expected a domain of positive weight with at least 2 tokens, found none"
    )]
    NoPredictions,
    /// A model's next-token distribution is NaN or infinite.
    #[error("`{model}`: expected finite logits, found NaN or infinity at token {position} of sequence {sequence}")]
    NonFinite {
        /// Name of the model.
        model: String,
        /// Index of the sequence.
        sequence: usize,
        /// Index of the token whose successor is predicted.
        position: usize,
    },
    /// No metric has this name.
    #[error("metric: expected one of {known}, found `{found}`")]
    UnknownMetric {
        /// What was asked for.
        found: String,
        /// Known metrics, comma separated.
        known: String,
    },
    /// A report has no such variant.
    #[error("variant: expected an index below {count}, found {found}")]
    UnknownVariant {
        /// Variants there are.
        count: usize,
        /// What was asked for.
        found: usize,
    },
    /// A report has no text of this domain.
    #[error("domain: expected one of {known}, found `{found}`")]
    UnknownDomain {
        /// What was asked for.
        found: String,
        /// Domains with text, comma separated.
        known: String,
    },
    /// The operating system refused a file operation.
    #[error("{}: {source}", path.display())]
    Io {
        /// File.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A report file is malformed.
    #[error("{}: not a usable evaluation report: {reason}", path.display())]
    ReportFile {
        /// File.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A report was written by another version.
    #[error("{}: report version {found}; this build reads {supported}", path.display())]
    ReportVersion {
        /// File.
        path: PathBuf,
        /// Version in the file.
        found: u64,
        /// Version this build reads.
        supported: u32,
    },
    /// A figure cannot be drawn.
    #[error("figure `{figure}`: {what}: expected {expected}, found {found}")]
    Figure {
        /// Its short name.
        figure: String,
        /// The number or list.
        what: String,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A tokenizer does not encode or decode.
    #[error("tokenizer: {reason}")]
    Tokenizer {
        /// What is wrong.
        reason: String,
    },
    /// A field of a task's record is absent or has an unusable value.
    #[error("`{field}`: expected {expected}, found {found}")]
    Field {
        /// Name of the field.
        field: String,
        /// What it must hold.
        expected: String,
        /// What it holds.
        found: String,
    },
    /// A file of a task is malformed.
    #[error("{}{}: {reason}", path.display(), line.map_or(String::new(), |line| format!(":{line}")))]
    TaskFile {
        /// File.
        path: PathBuf,
        /// Line, from 1, if one is to blame.
        line: Option<usize>,
        /// What is wrong.
        reason: String,
    },
    /// A server or an engine does not answer as it should.
    #[error("{name}: expected {expected}, found {found}")]
    Backend {
        /// Which, and what was asked of it.
        name: String,
        /// What a usable answer is.
        expected: String,
        /// What came.
        found: String,
        /// What to do about it.
        advice: Option<&'static str>,
    },
    /// A sweep file is malformed.
    #[error("{}: not a usable sweep: line {line}: {reason}", path.display())]
    SweepFile {
        /// File.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// A sweep was written by another version.
    #[error("{}: sweep version {found}; this build reads {supported}", path.display())]
    SweepVersion {
        /// File.
        path: PathBuf,
        /// Version in the file.
        found: u64,
        /// Version this build reads.
        supported: u32,
    },
    /// A sweep was started with other settings than it is to be continued with.
    #[error("{}: {setting}: expected {expected}, found {found}", path.display())]
    OtherSweep {
        /// File.
        path: PathBuf,
        /// Name of the setting.
        setting: String,
        /// What it is now.
        expected: String,
        /// What it was when the file was started.
        found: String,
    },
    /// Another process writes the sweep.
    #[error("{}: another process is writing it", path.display())]
    SweepLocked {
        /// File.
        path: PathBuf,
    },
    /// A tensor operation failed.
    #[error(transparent)]
    Tensor(#[from] candle_core::Error),
}

impl Error {
    /// Wraps an I/O error with the path it concerns.
    pub(crate) fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_path_buf();
        move |source| Self::Io { path, source }
    }

    /// Wraps what a tokenizer says.
    pub(crate) fn tokenizer(error: impl std::fmt::Display) -> Self {
        Self::Tokenizer {
            reason: error.to_string(),
        }
    }

    /// One sentence of advice, where there is any to give.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::RouterStats(error) => return error.hint(),
            Self::DuplicateName { what: "model", .. } => {
                "give each plan or checkpoint a file name of its own"
            }
            Self::DuplicateName { what: "task", .. } => "name it, as in NAME=FILE.jsonl",
            Self::Vocabulary { .. } => {
                "only models that share a tokenizer can be compared token by token"
            }
            Self::Token { .. } => "the tokenizer and the weights belong to different models",
            Self::NoPredictions => "give more text, or a positive weight to one of the domains",
            Self::NonFinite { .. } => {
                "the checkpoint is damaged, or a plan removed what it cannot do without"
            }
            Self::SweepFile { .. } | Self::SweepVersion { .. } => {
                "nothing was changed in it; name another file to start a sweep"
            }
            Self::OtherSweep { .. } => {
                "points of one file must be comparable: name another file, or give the options it was started with"
            }
            Self::SweepLocked { .. } => "wait for it, or name another file",
            Self::ReportFile { .. } | Self::ReportVersion { .. } => {
                "run `eval` again with this version"
            }
            Self::TaskFile { .. } => {
                "a line holds query, choices, gold; contexts, continuation, gold; context, \
                 continuation; question, answer; or prompt, answer"
            }
            Self::Backend {
                advice: Some(advice),
                ..
            } => advice,
            _ => return None,
        };
        Some(hint.to_owned())
    }
}
