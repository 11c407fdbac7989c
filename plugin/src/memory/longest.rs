//! The longest sequence that the engine can be told to take.

use router_stats::family::{Scaling, Topology};

use super::cache::GROWTH;
use crate::{Error, Result};

/// The longest sequence that the engine can be limited to for `asked` tokens:
/// as many, rounded up to the steps in which its cache grows, which may not end
/// beyond the longest sequence.
///
/// # Errors
/// [`Error::Option`] if the model takes no sequences as long, or computes
/// otherwise with a shorter longest one.
pub fn longest(asked: usize, topology: &Topology) -> Result<usize> {
    let most = topology.max_positions;
    let refused = |expected: String| Error::Option {
        option: "--max-seq-len",
        expected,
        found: asked.to_string(),
    };
    if asked == 0 || asked > most {
        return Err(refused(format!(
            "1 to {most} tokens, which the model was made for"
        )));
    }
    if asked < most && matches!(topology.attention.rotary.scaling, Scaling::Long(_)) {
        return Err(refused(format!(
            "{most} tokens for this model: mistral.rs 0.8.1 takes the magnitude of its positions from the longest sequence"
        )));
    }
    Ok(asked.next_multiple_of(GROWTH).min(most))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::fixture::{model, Stored};

    #[test]
    fn lengths_end_where_the_cache_does() {
        let mut topology = model(Stored::PerExpert).topology;
        topology.max_positions = 2000;
        for (asked, longest_) in [(1, 512), (512, 512), (513, 1024), (1900, 2000)] {
            assert_eq!(longest(asked, &topology).unwrap(), longest_);
        }
        for asked in [0, 2001] {
            let error = longest(asked, &topology).unwrap_err();
            assert!(
                error.is_usage() && error.to_string().contains("1 to 2000"),
                "{error}"
            );
        }
    }
}
