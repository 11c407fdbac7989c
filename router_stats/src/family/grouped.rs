//! Grouped-query attention as configurations have it.

use super::{Config, GroupedQuery, Projections, Topology};
use crate::Result;

/// Heads of grouped-query attention, without norms or biases. A head is
/// `head_dim` wide, by default an equal share of the residual stream.
///
/// # Errors
/// [`Error::Config`](crate::Error::Config) unless heads divide into key-value
/// groups and halve for rotation.
pub(super) fn query(config: &Config, hidden: usize) -> Result<GroupedQuery> {
    let heads = config.count("num_attention_heads")?;
    let kv_heads = config.count_or("num_key_value_heads", heads)?;
    let head_dim = config.count_or("head_dim", hidden / heads)?;
    if !heads.is_multiple_of(kv_heads) {
        let expected = format!("a divisor of {heads} heads");
        return Err(config.error("num_key_value_heads", &expected));
    }
    if head_dim == 0 || !head_dim.is_multiple_of(2) {
        return Err(config.error("head_dim", "a positive even number"));
    }
    Ok(GroupedQuery::plain(heads, kv_heads, head_dim))
}

/// Why the engine does not take a model of some families unless its heads
/// [divide](divides) the residual stream.
pub(super) const UNREAD_HEAD_DIM: &str = "mistral.rs 0.8.1 reads no head_dim for this family";

/// Whether the heads share the width of the residual stream.
pub(super) fn divides(topology: &Topology) -> bool {
    match &topology.attention.projections {
        Projections::Grouped(query) => query.heads * query.head_dim == topology.hidden,
        Projections::Latent(_) => false,
    }
}

/// Whether any projection of the attention has a bias.
pub(super) fn biased(topology: &Topology) -> bool {
    match &topology.attention.projections {
        Projections::Grouped(query) => query.qkv_bias || query.o_bias,
        Projections::Latent(latent) => latent.bias,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{json, Value};

    use super::*;
    use crate::Error;

    fn read(value: Value) -> Result<GroupedQuery> {
        query(&Config::new("config.json", value)?, 64)
    }

    #[test]
    fn heads_share_the_residual_stream_unless_their_width_is_said() {
        let plain = read(json!({"num_attention_heads": 4, "head_dim": null})).unwrap();
        assert_eq!(plain, GroupedQuery::plain(4, 4, 16));
        let said = json!({"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32});
        assert_eq!(read(said).unwrap(), GroupedQuery::plain(4, 2, 32));
    }

    #[test]
    fn heads_that_cannot_be_are_named() {
        for (value, field) in [
            (json!({"num_attention_heads": 0}), "num_attention_heads"),
            (json!({}), "num_attention_heads"),
            (
                json!({"num_attention_heads": 4, "num_key_value_heads": 0}),
                "num_key_value_heads",
            ),
            (
                json!({"num_attention_heads": 4, "num_key_value_heads": 3}),
                "num_key_value_heads",
            ),
            (json!({"num_attention_heads": 4, "head_dim": 7}), "head_dim"),
            (json!({"num_attention_heads": 65}), "head_dim"),
        ] {
            match read(value.clone()) {
                Err(Error::Config { field: named, .. }) => assert_eq!(named, field),
                other => panic!("{value}: {other:?}"),
            }
        }
    }
}
