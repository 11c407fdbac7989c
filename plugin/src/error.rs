//! Every way planning, pruning or serving can fail.

mod hint;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use crate::layers::Unit;
use crate::plan::{ExpertBudget, LayerBudget, Size, SizeTarget};

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error names what was asked for, what was expected and what was found;
/// [`Error::hint`] says what to do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Reading, running or measuring the checkpoint failed.
    #[error(transparent)]
    Stats(#[from] router_stats::Error),
    /// Measuring the loss failed.
    #[error(transparent)]
    Eval(#[from] prune_eval::Error),
    /// A name that no registry or statistics file holds.
    #[error("unknown {what} `{found}`; known: {known}")]
    Unknown {
        /// What is named: `criterion`, `domain`.
        what: &'static str,
        /// The name.
        found: String,
        /// Accepted names, comma separated.
        known: String,
    },
    /// An option has a value that no model could satisfy.
    #[error("{option}: expected {expected}, found {found}")]
    Option {
        /// The flag: `--prune-experts`.
        option: &'static str,
        /// Accepted values.
        expected: String,
        /// The value.
        found: String,
    },
    /// The engine does not take the model.
    #[error("{model} cannot be served: {reason}")]
    NotServed {
        /// Name of the model.
        model: String,
        /// What the engine lacks.
        reason: &'static str,
    },
    /// A model in GGUF is to be stored with other numbers than it has.
    #[error("{model} cannot be stored as {asked}: it is in GGUF, whose numbers stay as they are")]
    NotRequantised {
        /// Name of the model.
        model: String,
        /// The layout that was asked for.
        asked: String,
    },
    /// GGUF cannot say what the model is, or llama.cpp would compute another.
    #[error("{model} cannot be written as GGUF: {reason}")]
    NotInGguf {
        /// Name of the model.
        model: String,
        /// What the format or llama.cpp lacks.
        reason: String,
    },
    /// Fewer experts would be left than the router chooses from.
    #[error(
        "{budget} would leave {left} of {experts} experts, but the model {}",
        needs(*floor, *groups)
    )]
    TooFewExperts {
        /// What was asked for.
        budget: ExpertBudget,
        /// Experts that would stay in a layer.
        left: usize,
        /// Experts of that layer.
        experts: usize,
        /// Experts that its router needs.
        floor: usize,
        /// Groups that its router chooses among; 1 if there are none.
        groups: usize,
    },
    /// More experts are to stay than there are.
    #[error("{budget} asks for more than the {experts} experts there are in layer {layer}")]
    TooManyExperts {
        /// What was asked for.
        budget: ExpertBudget,
        /// First layer that has fewer.
        layer: usize,
        /// Experts of that layer.
        experts: usize,
    },
    /// So little is to go that it rounds to nothing.
    #[error("{budget} would remove none of {experts} experts")]
    NoExpertRemoved {
        /// What was asked for.
        budget: ExpertBudget,
        /// Experts of the largest layer.
        experts: usize,
        /// Groups that its router chooses among; 1 if there are none.
        groups: usize,
    },
    /// What has to stay is larger than the model may be.
    #[error(
        "{target}: the smallest this model can be is {} ({} experts in a layer)",
        target.measure(smallest),
        crate::format::range(smallest.experts_per_layer.iter().copied())
    )]
    TargetTooSmall {
        /// What was asked for.
        target: SizeTarget,
        /// The smallest size that pruning experts leads to.
        smallest: Size,
    },
    /// No plan takes as little memory as there is.
    #[error(
        "{fit}: the smallest this model can be served in is {}, of which {} are weights",
        crate::format::bytes(*smallest),
        crate::format::bytes(*weights)
    )]
    FitTooSmall {
        /// What was asked for.
        fit: String,
        /// Bytes of memory of the smallest plan.
        smallest: u64,
        /// Bytes of its weights.
        weights: u64,
    },
    /// No layer, or sublayer of a kind, would be left.
    #[error("{} {budget} would leave 0 of {there} {}", unit.flag(), unit.plural())]
    TooFewLayers {
        /// What goes.
        unit: Unit,
        /// How much was asked for.
        budget: LayerBudget,
        /// How many the model has, or keeps in the layers that stay.
        there: usize,
    },
    /// The fraction is so small that nothing would go.
    #[error("{} {budget} would remove none of {there} {}", unit.flag(), unit.plural())]
    NoLayerRemoved {
        /// What goes.
        unit: Unit,
        /// How much was asked for.
        budget: LayerBudget,
        /// How many the model has.
        there: usize,
    },
    /// What is to stay has no room for the protected experts.
    #[error(
        "{budget} leaves {left} experts in layer {layer}, but it takes {needed} to keep those that are protected"
    )]
    ProtectedExperts {
        /// What was asked for.
        budget: ExpertBudget,
        /// First layer without room.
        layer: usize,
        /// Experts that would stay in it.
        left: usize,
        /// The fewest that hold all protected ones.
        needed: usize,
    },
    /// What would go holds protected experts.
    #[error("{asked} finds nothing to drop: {held}")]
    ProtectedLayers {
        /// The flags that asked.
        asked: String,
        /// What has to stay: `layers 0, 3 hold protected experts`.
        held: String,
    },
    /// No configuration of the family describes what is left of a layer.
    #[error("{model} cannot be written without {what}: {reason}")]
    NotWritten {
        /// Name of the model.
        model: String,
        /// What goes: `the experts of layer 7`.
        what: String,
        /// What its configuration lacks.
        reason: &'static str,
        /// What would work instead.
        instead: &'static str,
    },
    /// The domains that have tokens weigh nothing.
    #[error("the statistics hold no tokens under the domain weights {weights}")]
    NoTokens {
        /// `name=weight` of every domain.
        weights: String,
    },
    /// There is nothing to draw from.
    #[error("stability: expected a domain with text in at least two parts, found none")]
    OnePart,
    /// A saliency or layer score is NaN or infinite.
    #[error("{what}: expected a finite score, found {value}: the statistics are damaged")]
    NonFiniteScore {
        /// Criterion, layer and expert.
        what: String,
        /// The value.
        value: f64,
    },
    /// A plan or statistics file belongs to another model.
    #[error(
        "{what} made for model {} ({name}), this is {} ({found_name})",
        short(fingerprint, found),
        short(found, fingerprint)
    )]
    OtherModel {
        /// File or object, with its verb: `half.plan.json was`.
        what: String,
        /// Fingerprint it was made for.
        fingerprint: String,
        /// Name of the model it was made for.
        name: String,
        /// Fingerprint of the checkpoint at hand.
        found: String,
        /// Name of the checkpoint at hand.
        found_name: String,
    },
    /// Files that belong together are of different models.
    #[error(
        "{} is of model {} ({name}), {} of {} ({other_name})",
        first.display(),
        short(fingerprint, other),
        second.display(),
        short(other, fingerprint)
    )]
    MixedModels {
        /// The first file.
        first: Box<Path>,
        /// Name of its model.
        name: Box<str>,
        /// Fingerprint of its model.
        fingerprint: Box<str>,
        /// The first file of another model.
        second: Box<Path>,
        /// Name of that model.
        other_name: Box<str>,
        /// Fingerprint of that model.
        other: Box<str>,
    },
    /// A file is not a plan.
    #[error("{}: not a plan: {source}", path.display())]
    PlanFile {
        /// File.
        path: PathBuf,
        /// Position and reason.
        source: serde_json::Error,
    },
    /// A plan was written by another version.
    #[error("{plan}: plan version {found}; this build reads 1 to {supported}")]
    PlanVersion {
        /// The plan's file, or `the plan`.
        plan: String,
        /// Version in the file.
        found: u32,
        /// Newest version that this build reads.
        supported: u32,
    },
    /// A plan contradicts itself or the model.
    #[error("{plan}: {field}: expected {expected}, found {found}")]
    Plan {
        /// The plan's file, or `the plan`.
        plan: String,
        /// Entry of the plan.
        field: String,
        /// What the entry must hold.
        expected: String,
        /// What it holds.
        found: String,
    },
    /// Kept layers keep different numbers of experts.
    #[error(
        "{plan}: layer {first} keeps {first_count} experts but layer {other} keeps {other_count}: \
         this layout states one number of experts for all layers"
    )]
    UnevenExperts {
        /// The plan's file, or `the plan`.
        plan: String,
        /// First kept MoE layer.
        first: usize,
        /// Experts it keeps.
        first_count: usize,
        /// First layer that differs.
        other: usize,
        /// Experts that one keeps.
        other_count: usize,
    },
    /// The directory to write is already there.
    #[error("{}: already exists", path.display())]
    OutputExists {
        /// Directory.
        path: PathBuf,
    },
    /// The directory to replace is not one that pruning made.
    #[error("{}: expected {expected}, found {found}", path.display())]
    NotReplaceable {
        /// Directory.
        path: PathBuf,
        /// What can be replaced.
        expected: &'static str,
        /// What is there.
        found: &'static str,
    },
    /// Another run is writing the same directory.
    #[error("{}: another run is writing it", path.display())]
    OutputBusy {
        /// Directory.
        path: PathBuf,
    },
    /// Another job's unfinished work lies where this one's would.
    #[error("{}: expected the unfinished {expected}, found that of {found}", path.display())]
    OtherJob {
        /// Its folder.
        path: PathBuf,
        /// This job.
        expected: String,
        /// The other one.
        found: String,
    },
    /// A disk has less room than is needed.
    #[error("{}: expected {expected} of free space, found {found}", path.display())]
    Space {
        /// What would be written.
        path: PathBuf,
        /// What is needed.
        expected: String,
        /// What is free.
        found: String,
    },
    /// A checkpoint holds a tensor that would be wrong after pruning, whether
    /// it were carried over or left out.
    #[error("{}: tensor `{tensor}`: expected {expected}", path.display())]
    Unclassified {
        /// Checkpoint directory.
        path: PathBuf,
        /// Name.
        tensor: String,
        /// What the family has in its place.
        expected: String,
    },
    /// What is named is neither a directory nor a hub id.
    #[error("{model}: no such directory, and not a hub id")]
    NoSuchModel {
        /// What was named.
        model: String,
    },
    /// A model cannot be had from the hub.
    #[error("{id} @ {revision}: {failure}")]
    Hub {
        /// `org/name`.
        id: String,
        /// Branch, tag or commit.
        revision: String,
        /// Why.
        failure: Box<crate::hub::Failure>,
    },
    /// No environment variable says where intermediate files go.
    #[error("no folder for intermediate files: neither XDG_CACHE_HOME nor HOME is set")]
    NoCacheFolder,
    /// A value cannot be written as JSON.
    #[error("writing JSON: {0}")]
    Serialize(#[source] serde_json::Error),
    /// A journal of a search that cannot be continued.
    #[error("{}:{line}: not this search's journal: {reason}", path.display())]
    Journal {
        /// The file.
        path: PathBuf,
        /// Line of the file, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// The server cannot listen.
    #[error("{host}:{port}: {source}")]
    Listen {
        /// Address.
        host: String,
        /// Port.
        port: u16,
        /// What the system said.
        source: std::io::Error,
    },
    /// Everyone who can reach the server could use it.
    #[error("--host {host}: expected --api-key or --api-key-file where others can reach the server, found neither")]
    Exposed {
        /// Address.
        host: String,
    },
    /// The file of an API key cannot be read.
    #[error("--api-key-file {}: {source}", path.display())]
    KeyFile {
        /// File.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The engine failed.
    #[error("{what}: {reason}")]
    Engine {
        /// What it was doing.
        what: &'static str,
        /// What it said.
        reason: String,
    },
}

impl Error {
    /// Whether the request was wrong, rather than the work having failed.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Unknown { .. }
                | Self::Option { .. }
                | Self::TooFewExperts { .. }
                | Self::TooManyExperts { .. }
                | Self::NoExpertRemoved { .. }
                | Self::TargetTooSmall { .. }
                | Self::FitTooSmall { .. }
                | Self::TooFewLayers { .. }
                | Self::NoLayerRemoved { .. }
                | Self::ProtectedExperts { .. }
                | Self::ProtectedLayers { .. }
                | Self::NoTokens { .. }
                | Self::OnePart
                | Self::Exposed { .. }
        )
    }
}

/// What a router needs, after "the model".
fn needs(floor: usize, groups: usize) -> String {
    match groups {
        1 => format!("routes each token to {floor}"),
        _ => format!("needs {} in each of {groups} groups", floor / groups),
    }
}

/// The first digits of a fingerprint: four, or eight if `other` begins alike.
fn short(fingerprint: &str, other: &str) -> String {
    let prefix = |text: &str, digits| text.chars().take(digits).collect::<String>();
    let digits = if prefix(fingerprint, 4) == prefix(other, 4) {
        8
    } else {
        4
    };
    prefix(fingerprint, digits) + "…"
}
