//! Where tokens are routed, before and after.

use prune_eval::figure::{Load, LoadLayer};
use prune_eval::page::Section;

use super::{figure, section as of, Inputs};
use crate::format;
use crate::Result;

/// The load of every expert: counted in both models, or of the original alone
/// from its statistics, which cannot tell where tokens of an expert that goes
/// are routed instead.
pub(super) fn section(inputs: &Inputs) -> Result<Option<Section>> {
    let Some(load) = load(inputs)? else {
        return Ok(None);
    };
    let mut text = Vec::new();
    if inputs.plan().is_some() && inputs.counted.is_none() {
        text.push(
            "Statistics of the original do not say where its tokens go once experts are gone; `report --load` runs both and counts."
                .to_owned(),
        );
    }
    Ok(of("Routing", text, vec![figure(&load)?]))
}

fn load(inputs: &Inputs) -> Result<Option<Load>> {
    let (text, before, after) = match (&inputs.counted, inputs.stats()) {
        (Some(counted), _) => (
            format!("{} tokens of held-out text", format::count(counted.tokens)),
            counted.before.clone(),
            Some(&counted.after),
        ),
        (None, Some(stats)) => {
            let weights = inputs.weights(stats);
            let mut before = Vec::new();
            for layer in 0..stats.provenance.experts.len() {
                let layer = stats.layer(layer, &weights)?;
                let share = |count: &f64| count / layer.tokens.max(f64::MIN_POSITIVE);
                before.push(layer.count.iter().map(share).collect());
            }
            let tokens: u64 = stats.provenance.domains.iter().map(|d| d.tokens).sum();
            let text = format!("{} tokens of calibration text", format::count(tokens));
            (text, before, None)
        }
        (None, None) => return Ok(None),
    };
    let layers: Vec<LoadLayer> = before
        .into_iter()
        .enumerate()
        .filter(|(_, before)| !before.is_empty())
        .map(|(layer, before)| {
            let planned = inputs.plan().and_then(|plan| plan.layers.get(layer));
            let dropped = planned.is_some_and(|planned| !planned.keeps_mlp());
            let kept = planned.map_or_else(Vec::new, |planned| {
                (0..before.len())
                    .map(|expert| planned.kept.contains(&expert))
                    .collect()
            });
            let after = after
                .and_then(|after| after.get(layer))
                .filter(|after| !after.is_empty())
                .cloned();
            LoadLayer {
                layer,
                dropped,
                before,
                kept,
                after,
            }
        })
        .collect();
    Ok((!layers.is_empty()).then_some(Load { text, layers }))
}
