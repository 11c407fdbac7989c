//! Where in a sweep something was measured.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Names of coordinates that tables and fits know. Others may be added; they
/// tell points apart like these.
pub mod axis {
    /// Which experts go.
    pub const CRITERION: &str = "criterion";
    /// How many go in which layer.
    pub const ALLOCATION: &str = "allocation";
    /// Fraction of the experts that goes.
    pub const PRUNE_EXPERTS: &str = "prune_experts";
    /// Which layers go.
    pub const LAYER_CRITERION: &str = "layer_criterion";
    /// How many layers go.
    pub const DROP_LAYERS: &str = "drop_layers";
    /// Domains that decide.
    pub const CALIBRATE_ON: &str = "calibrate_on";
    /// Type that weights are rounded to.
    pub const QUANTIZE: &str = "quantize";
    /// Seed of the calibration set.
    pub const SEED: &str = "seed";

    /// In the order in which they are written.
    pub(crate) const ALL: [&str; 8] = [
        CRITERION,
        ALLOCATION,
        PRUNE_EXPERTS,
        LAYER_CRITERION,
        DROP_LAYERS,
        CALIBRATE_ON,
        QUANTIZE,
        SEED,
    ];
}

/// A value on one axis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Coordinate {
    /// A quantity.
    Number(f64),
    /// A name.
    Text(String),
}

impl fmt::Display for Coordinate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// Coordinates by name. An axis that means nothing at a point (a criterion where
/// no expert goes) is left out.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Point(BTreeMap<String, Coordinate>);

impl Point {
    /// Adds a number.
    #[must_use]
    pub fn number(mut self, axis: &str, value: f64) -> Self {
        self.0.insert(axis.to_owned(), Coordinate::Number(value));
        self
    }

    /// Adds a name.
    #[must_use]
    pub fn text(mut self, axis: &str, value: &str) -> Self {
        self.0
            .insert(axis.to_owned(), Coordinate::Text(value.to_owned()));
        self
    }

    /// A coordinate.
    pub fn get(&self, axis: &str) -> Option<&Coordinate> {
        self.0.get(axis)
    }

    /// A coordinate that is a number.
    pub fn number_of(&self, axis: &str) -> Option<f64> {
        match self.get(axis) {
            Some(Coordinate::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// The point without some of its coordinates: what it has in common with
    /// others.
    #[must_use]
    pub fn without(&self, axes: &[&str]) -> Self {
        let mut rest = self.clone();
        rest.0.retain(|name, _| !axes.contains(&name.as_str()));
        rest
    }

    /// `reap 0.25, drop 2, on python, seed 1`, without what `left_out` names.
    pub fn label(&self, left_out: &[&str]) -> String {
        let shown = |axis: &str| self.get(axis).filter(|_| !left_out.contains(&axis));
        let mut parts = Vec::new();
        let experts: Vec<String> = [axis::CRITERION, axis::ALLOCATION, axis::PRUNE_EXPERTS]
            .into_iter()
            .filter_map(|axis| shown(axis).map(ToString::to_string))
            .collect();
        if !experts.is_empty() {
            parts.push(experts.join(" "));
        }
        let layers = (shown(axis::DROP_LAYERS), shown(axis::LAYER_CRITERION));
        match layers {
            (Some(count), Some(by)) => parts.push(format!("drop {count} by {by}")),
            (Some(count), None) => parts.push(format!("drop {count}")),
            (None, Some(by)) => parts.push(format!("layers by {by}")),
            (None, None) => {}
        }
        parts.extend(shown(axis::CALIBRATE_ON).map(|domain| format!("on {domain}")));
        parts.extend(shown(axis::QUANTIZE).map(ToString::to_string));
        parts.extend(shown(axis::SEED).map(|seed| format!("seed {seed}")));
        let others = self
            .0
            .iter()
            .filter(|(name, _)| !axis::ALL.contains(&name.as_str()))
            .filter(|(name, _)| !left_out.contains(&name.as_str()));
        parts.extend(others.map(|(name, value)| format!("{name} {value}")));
        parts.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_name_every_coordinate_once() {
        let point = Point::default()
            .text(axis::CRITERION, "reap")
            .number(axis::PRUNE_EXPERTS, 0.25)
            .number(axis::DROP_LAYERS, 2.0)
            .text(axis::LAYER_CRITERION, "block-influence")
            .text(axis::CALIBRATE_ON, "python")
            .number(axis::SEED, 1.0)
            .text("order", "random");
        assert_eq!(
            point.label(&[]),
            "reap 0.25, drop 2 by block-influence, on python, seed 1, order random"
        );
        let rest = [axis::SEED, axis::PRUNE_EXPERTS, axis::LAYER_CRITERION];
        assert_eq!(point.label(&rest), "reap, drop 2, on python, order random");
        assert_eq!(
            point.without(&rest).label(&[]),
            "reap, drop 2, on python, order random"
        );
    }

    #[test]
    fn points_survive_json() {
        let point = Point::default()
            .number(axis::PRUNE_EXPERTS, 0.1)
            .text(axis::CALIBRATE_ON, "7");
        let text = serde_json::to_string(&point).unwrap();
        assert_eq!(text, r#"{"calibrate_on":"7","prune_experts":0.1}"#);
        assert_eq!(serde_json::from_str::<Point>(&text).unwrap(), point);
    }
}
