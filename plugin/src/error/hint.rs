//! What to do about an error.

use super::Error;
use crate::plan::ExpertBudget;

impl Error {
    /// One sentence of advice, where there is any to give.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Stats(error) => return error.hint(),
            Self::Eval(error) => return error.hint(),
            Self::NoSuchModel { .. } => {
                "a model is a local directory, a GGUF file or a hub id such as org/name; without -m it is the demo model".to_owned()
            }
            Self::Hub { failure, .. } => failure.hint().to_owned(),
            Self::NotServed { .. } => {
                "calibrate, plan, eval and prune work: prune with --layout hf, and serve the result with transformers or vLLM".to_owned()
            }
            Self::NotRequantised { .. } => {
                "prune with --layout gguf, which llama.cpp loads, or --layout uqff, which mistral.rs does; for others, prune the model that the file was made of".to_owned()
            }
            Self::NotInGguf { .. } => {
                "--layout hf writes what transformers and vLLM read".to_owned()
            }
            Self::Exposed { .. } => {
                "put a key into a file and name it with --api-key-file; --no-auth serves everyone who can reach the address".to_owned()
            }
            Self::KeyFile { .. } => "the file holds the key and nothing else".to_owned(),
            Self::NoCacheFolder => "choose one with --cache-dir".to_owned(),
            Self::Listen { source, port, .. } => match source.kind() {
                std::io::ErrorKind::AddrInUse => {
                    format!("another program listens there; stop it, or choose another port: --port {}", port.wrapping_add(1).max(1024))
                }
                std::io::ErrorKind::PermissionDenied => "ports below 1024 need privileges; try --port 1234".to_owned(),
                _ => "--host takes an address of this machine: 127.0.0.1, or 0.0.0.0 for every network".to_owned(),
            },
            Self::TooFewExperts { experts, floor, groups: 1, .. } if floor >= experts => {
                "every token is routed to every expert of this model, so none can be removed".to_owned()
            }
            Self::TooFewExperts { experts, floor, .. } if floor >= experts => {
                "the groups of this model are as small as they can be, so no expert can be removed".to_owned()
            }
            Self::TooFewExperts { budget: ExpertBudget::Keep(_), floor, groups: 1, .. } => {
                format!("keep at least {floor}")
            }
            Self::TooFewExperts { budget: ExpertBudget::Keep(_), experts, floor, groups, .. } => {
                format!("keep at least {floor} of {experts}: {groups} groups of {}", floor / groups)
            }
            Self::TooFewExperts { experts, floor, .. } => {
                let most = exact_fraction(experts - floor, *experts);
                let instead = if most > 0.5 { "; try 0.5" } else { "" };
                format!("the most this model can lose is {most} ({floor} experts stay){instead}")
            }
            Self::TooManyExperts { experts, .. } => format!("keep at most {experts}"),
            Self::NoExpertRemoved { budget: ExpertBudget::Keep(_), experts, groups } => {
                format!("each of {groups} groups keeps equally many: keep at most {}", experts - groups)
            }
            Self::NoExpertRemoved { experts, groups, .. } => {
                format!("the least that removes an expert is {}", exact_fraction(*groups, *experts))
            }
            Self::TargetTooSmall { .. } => {
                "drop layers too with --drop-layers, or allow more and quantise what is left: serve --isq 4".to_owned()
            }
            Self::FitTooSmall { .. } => {
                "fewer or shorter requests take less: --max-seqs 1 --max-seq-len 512".to_owned()
            }
            Self::TooFewLayers { there, .. } => {
                format!("the most this model can lose is {}", there.saturating_sub(1))
            }
            Self::NoLayerRemoved { unit, .. } => {
                format!("give a number of {} instead: {} 1", unit.plural(), unit.flag())
            }
            Self::NotWritten { instead, .. } => (*instead).to_owned(),
            Self::ProtectedExperts { .. } => {
                "remove fewer experts, or protect fewer: --prune-super-experts protects only those of --protect".to_owned()
            }
            Self::ProtectedLayers { .. } => {
                "drop less, or protect fewer experts: --prune-super-experts protects only those of --protect".to_owned()
            }
            Self::NoTokens { .. } => "give some weight to a domain that has text".to_owned(),
            Self::OnePart => {
                "raise --calibration-tokens or lower --seq-len; of files, name two that have text of one domain".to_owned()
            }
            Self::NonFiniteScore { .. } => "run `calibrate` again".to_owned(),
            Self::OtherModel { .. } => {
                "plans do not transfer between models; run `plan` on statistics of this one".to_owned()
            }
            Self::MixedModels { .. } => "give files of one model".to_owned(),
            Self::PlanFile { .. } => "`plan STATS -o FILE` writes one".to_owned(),
            Self::PlanVersion { .. } => "run `plan` again with this version".to_owned(),
            Self::Journal { path, .. } => format!(
                "move {} away to measure its candidates again",
                path.display()
            ),
            Self::OutputExists { .. } => {
                "--force replaces a pruned checkpoint; or choose another directory with -o".to_owned()
            }
            Self::NotReplaceable { .. } => "choose another directory with -o".to_owned(),
            Self::OutputBusy { .. } => "wait for it, or choose another directory with -o".to_owned(),
            Self::OtherJob { .. } => {
                "finish that one first, choose another directory with -o, or give its work up with --force".to_owned()
            }
            Self::Space { .. } => {
                "free some space, or write to a larger disk with -o; a smaller plan takes less".to_owned()
            }
            Self::Unclassified { .. } => {
                "this variant of the family is not supported: the family has no such tensor, or config.json \
                 counts other blocks or experts"
                    .to_owned()
            }
            Self::UnevenExperts { .. } => {
                "--layout uqff stores a different number for every layer; or plan the same number for all".to_owned()
            }
            Self::Unknown { .. }
            | Self::Option { .. }
            | Self::Plan { .. }
            | Self::Serialize(_)
            | Self::Engine { .. } => return None,
        })
    }
}

/// The smallest fraction of four decimals that is at least `part / whole`. It
/// rounds up, so that taking it of `whole` and rounding down gives `part`.
fn exact_fraction(part: usize, whole: usize) -> f64 {
    const DECIMALS: f64 = 1e4;
    const ROUNDING: f64 = 1e-6;
    (part as f64 / whole as f64 * DECIMALS - ROUNDING).ceil() / DECIMALS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_that_can_go_is_accepted_when_typed_back() {
        for groups in [1, 3, 8] {
            for experts in (groups..300).step_by(groups) {
                for removed in (0..experts).step_by(groups) {
                    let fraction = exact_fraction(removed, experts);
                    let kept = ExpertBudget::Fraction(fraction).kept(experts, groups);
                    assert_eq!(
                        kept,
                        experts - removed,
                        "{removed} of {experts}: {fraction}"
                    );
                }
            }
        }
    }
}
