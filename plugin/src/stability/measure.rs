//! How alike the decisions from all parts and from draws of them are.

use serde::Serialize;

use crate::plan::LayerPlan;

/// An expert that stays in more than this share of draws and fewer than one
/// less it is undecided.
const DECIDED: f64 = 0.05;

/// Share of draws inside an interval.
const CONFIDENCE: f64 = 0.95;

/// What draws of the text change.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stability {
    /// Parts that were drawn from.
    pub parts: usize,
    /// Draws.
    pub draws: usize,
    /// Mean over draws of |A ∩ B| / |A ∪ B|, A being the experts that stay by
    /// the draw and B those that stay by all parts.
    pub jaccard: f64,
    /// The index that one draw in twenty is below.
    pub jaccard_low: f64,
    /// Experts of the model.
    pub experts: usize,
    /// Experts that stay in more than 5% of the draws and fewer than 95%.
    pub undecided: usize,
    /// Every layer that has experts.
    pub layers: Vec<LayerStability>,
    /// Domains whose text is in one part, so that no draw varies it.
    pub fixed: Vec<String>,
}

/// What draws change in one layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerStability {
    /// Index in the model.
    pub layer: usize,
    /// Experts that stay by all parts; 0 if the layer goes or loses them all.
    pub kept: usize,
    /// Share of draws in which the layer goes or loses its experts.
    pub dropped: f64,
    /// Mean Jaccard index of the layer alone; of two empty sets it is 1.
    pub jaccard: f64,
    /// Undecided experts of the layer.
    pub undecided: usize,
    /// The experts around the cut, by descending score: the undecided, the
    /// weakest that stays and the strongest that goes.
    pub around: Vec<ExpertStability>,
}

/// What draws change about one expert.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ExpertStability {
    /// Index in the layer.
    pub expert: usize,
    /// Whether it stays by all parts.
    pub kept: bool,
    /// Share of draws in which it stays.
    pub share: f64,
    /// Saliency by all parts.
    pub score: f64,
    /// Ends of the interval that holds the saliency of 95% of the draws.
    pub interval: [f64; 2],
}

impl ExpertStability {
    /// Whether draws disagree on it.
    pub fn is_undecided(&self) -> bool {
        self.share > DECIDED && self.share < 1.0 - DECIDED
    }
}

/// Compares `draws` with `all`: the layers of plans for one model.
pub(super) fn measure(all: &[LayerPlan], draws: &[Vec<LayerPlan>]) -> Stability {
    let mut indices: Vec<f64> = draws.iter().map(|draw| jaccard(all, draw)).collect();
    let jaccard = mean(&indices);
    indices.sort_by(f64::total_cmp);
    let layers: Vec<LayerStability> = all
        .iter()
        .enumerate()
        .filter(|(_, layer)| !layer.scores.is_empty())
        .map(|(index, layer)| {
            let draws: Vec<&LayerPlan> = draws.iter().filter_map(|draw| draw.get(index)).collect();
            of_layer(layer, &draws)
        })
        .collect();
    Stability {
        parts: 0,
        draws: draws.len(),
        jaccard,
        jaccard_low: quantile(&indices, 0.05),
        experts: all.iter().map(|layer| layer.scores.len()).sum(),
        undecided: layers.iter().map(|layer| layer.undecided).sum(),
        layers,
        fixed: Vec::new(),
    }
}

/// |A ∩ B| / |A ∪ B| of the experts that stay by two plans for one model; 1 if
/// none stays by either.
///
/// P. Jaccard, "Étude comparative de la distribution florale dans une portion
/// des Alpes et des Jura", 1901.
pub fn jaccard(left: &[LayerPlan], right: &[LayerPlan]) -> f64 {
    let (mut both, mut either) = (0, 0);
    for (left, right) in left.iter().zip(right) {
        let (left, right) = (left.staying(), right.staying());
        let common = left
            .iter()
            .filter(|&expert| right.binary_search(expert).is_ok())
            .count();
        both += common;
        either += left.len() + right.len() - common;
    }
    if either == 0 {
        return 1.0;
    }
    f64::from(both as u32) / f64::from(either as u32)
}

fn of_layer(all: &LayerPlan, draws: &[&LayerPlan]) -> LayerStability {
    let experts: Vec<ExpertStability> = (0..all.scores.len())
        .map(|expert| of_expert(expert, all, draws))
        .collect();
    let by_score = |a: &&ExpertStability, b: &&ExpertStability| a.score.total_cmp(&b.score);
    let weakest = experts.iter().filter(|it| it.kept).min_by(by_score);
    let strongest = experts.iter().filter(|it| !it.kept).max_by(by_score);
    let at_the_cut = |it: &ExpertStability| {
        let is = |edge: Option<&ExpertStability>| edge.is_some_and(|e| e.expert == it.expert);
        all.keeps_mlp() && is(weakest).max(is(strongest))
    };
    let mut around: Vec<ExpertStability> = experts
        .iter()
        .filter(|it| it.is_undecided() || at_the_cut(it))
        .copied()
        .collect();
    around.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.expert.cmp(&b.expert)));
    let one = std::slice::from_ref::<LayerPlan>;
    let indices: Vec<f64> = draws
        .iter()
        .map(|draw| jaccard(one(all), one(draw)))
        .collect();
    LayerStability {
        layer: all.layer,
        kept: all.staying().len(),
        dropped: share(draws, |draw| !draw.keeps_mlp()),
        jaccard: mean(&indices),
        undecided: experts.iter().filter(|it| it.is_undecided()).count(),
        around,
    }
}

fn of_expert(expert: usize, all: &LayerPlan, draws: &[&LayerPlan]) -> ExpertStability {
    let stays = |layer: &LayerPlan| layer.staying().binary_search(&expert).is_ok();
    let mut scores: Vec<f64> = draws.iter().map(|draw| draw.scores[expert]).collect();
    scores.sort_by(f64::total_cmp);
    let tail = (1.0 - CONFIDENCE) / 2.0;
    ExpertStability {
        expert,
        kept: stays(all),
        share: share(draws, |draw| stays(draw)),
        score: all.scores[expert],
        interval: [quantile(&scores, tail), quantile(&scores, 1.0 - tail)],
    }
}

fn share(draws: &[&LayerPlan], holds: impl Fn(&LayerPlan) -> bool) -> f64 {
    let held = draws.iter().filter(|draw| holds(draw)).count();
    held as f64 / draws.len().max(1) as f64
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

/// The value below which the fraction `at` of `sorted` lies, between
/// neighbours linear; 0 of none.
fn quantile(sorted: &[f64], at: f64) -> f64 {
    let position = at * sorted.len().saturating_sub(1) as f64;
    let value = |index: usize| sorted.get(index).copied();
    let low = value(position.floor() as usize).unwrap_or(0.0);
    let high = value(position.ceil() as usize).unwrap_or(low);
    low + (high - low) * position.fract()
}
