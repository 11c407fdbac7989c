//! What is varied, as points and the plans they stand for.

use prune_eval::sweep::{axis, Point};
use router_stats::family::Topology;

use crate::plan::{ExpertBudget, LayerBudget, PlanOptions};
use crate::{allocate, layers, saliency, Result};

/// What is varied: every combination is a point. Where no expert goes, criteria
/// and allocators make no difference and are left out, and so are layer criteria
/// where no layer goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    /// Which experts go: names of [`saliency::CRITERIA`].
    pub criteria: Vec<String>,
    /// How many in which layer: names of [`allocate::ALLOCATORS`].
    pub allocators: Vec<String>,
    /// Fractions of the experts that go; 0 is none.
    pub fractions: Vec<f64>,
    /// Layers that go; 0 is none.
    pub drop_layers: Vec<LayerBudget>,
    /// Which layers go: names of [`layers::LAYER_CRITERIA`].
    pub layer_criteria: Vec<String>,
    /// Domains that decide.
    pub calibrate_on: Vec<CalibrateOn>,
    /// Seeds of the calibration set, and of criteria that draw at random.
    pub seeds: Vec<u64>,
    /// What every plan has in common.
    pub common: PlanOptions,
}

/// Domains of the calibration set that decide a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CalibrateOn {
    /// All, by their weights.
    Mix,
    /// One alone.
    Domain(String),
}

/// A point, and the plan it stands for.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// Its coordinates.
    pub point: Point,
    /// Seed of its calibration set.
    pub seed: u64,
    /// What is asked of its plan.
    pub options: PlanOptions,
}

impl CalibrateOn {
    /// What a person calls it: `mix`, or the domain's name.
    pub fn name(&self) -> &str {
        match self {
            Self::Mix => "mix",
            Self::Domain(name) => name,
        }
    }

    /// Weights of `domains` that leave this one.
    fn weights(&self, domains: &[String]) -> Option<Vec<(String, f64)>> {
        match self {
            Self::Mix => None,
            Self::Domain(name) => {
                let alone = |domain: &String| f64::from(u8::from(domain == name));
                let weights = domains.iter().map(|domain| (domain.clone(), alone(domain)));
                Some(weights.collect())
            }
        }
    }
}

impl Grid {
    /// Every point, those of one seed after another, each once. `domains` are
    /// those of the calibration set.
    pub fn points(&self, domains: &[String]) -> Vec<Wanted> {
        let mut points: Vec<Wanted> = Vec::new();
        for &seed in &self.seeds {
            for on in &self.calibrate_on {
                for budget in self.budgets() {
                    let wanted = self.wanted(&budget, on, seed, domains);
                    if !points.iter().any(|other| other.point == wanted.point) {
                        points.push(wanted);
                    }
                }
            }
        }
        points
    }

    /// What goes and by which method, where anything goes.
    fn budgets(&self) -> Vec<Budget<'_>> {
        let none = [String::new()];
        let mut budgets = Vec::new();
        for &fraction in &self.fractions {
            let (criteria, allocators) = match fraction > 0.0 {
                true => (&self.criteria[..], &self.allocators[..]),
                false => (&none[..], &none[..]),
            };
            for &layers in &self.drop_layers {
                let drops = layers != LayerBudget::Count(0) && layers != LayerBudget::Fraction(0.0);
                if !drops && fraction == 0.0 {
                    continue;
                }
                let layer_criteria = if drops { &self.layer_criteria[..] } else { &[] };
                for criterion in criteria {
                    for allocator in allocators {
                        let budget = Budget {
                            experts: (fraction > 0.0).then_some((criterion, allocator, fraction)),
                            layers: None,
                        };
                        if !drops {
                            budgets.push(budget);
                            continue;
                        }
                        budgets.extend(layer_criteria.iter().map(|by| Budget {
                            layers: Some((layers, by)),
                            ..budget
                        }));
                    }
                }
            }
        }
        budgets
    }

    fn wanted(
        &self,
        budget: &Budget<'_>,
        on: &CalibrateOn,
        seed: u64,
        domains: &[String],
    ) -> Wanted {
        let mut point = Point::default()
            .text(axis::CALIBRATE_ON, on.name())
            .number(axis::SEED, seed as f64);
        let mut options = PlanOptions {
            seed,
            domain_weights: on.weights(domains),
            ..self.common.clone()
        };
        if let Some((criterion, allocator, fraction)) = budget.experts {
            point = point
                .text(axis::CRITERION, criterion)
                .number(axis::PRUNE_EXPERTS, fraction);
            if *allocator != PlanOptions::default().allocator {
                point = point.text(axis::ALLOCATION, allocator);
            }
            options.criterion.clone_from(criterion);
            options.allocator.clone_from(allocator);
            options.experts = Some(ExpertBudget::Fraction(fraction));
        }
        if let Some((layers, by)) = budget.layers {
            let amount = match layers {
                LayerBudget::Count(count) => count as f64,
                LayerBudget::Fraction(fraction) => fraction,
            };
            point = point
                .number(axis::DROP_LAYERS, amount)
                .text(axis::LAYER_CRITERION, by);
            options.drop_layers = Some(layers);
            options.layer_criterion.clone_from(by);
        }
        Wanted {
            point,
            seed,
            options,
        }
    }
}

/// What goes, by which method.
#[derive(Clone, Copy)]
struct Budget<'a> {
    /// Criterion, allocator and fraction.
    experts: Option<(&'a String, &'a String, f64)>,
    layers: Option<(LayerBudget, &'a String)>,
}

/// Every fraction of the experts at which a layer keeps a different number, in
/// steps of one expert, or of one of each group, down to what the router needs:
/// of E experts 1/E, 2/E and so on.
///
/// # Errors
/// [`Error::Option`](crate::Error::Option) for a model without experts.
pub fn every_fraction(topology: &Topology) -> Result<Vec<f64>> {
    let largest = topology.moes().max_by_key(|moe| moe.experts);
    let Some(moe) = largest else {
        return Err(crate::Error::Option {
            option: "--cliff",
            expected: "a model with experts".to_owned(),
            found: "none".to_owned(),
        });
    };
    let step = moe.router.group_count();
    let floor = topology.moes().map(|moe| moe.router.floor()).max();
    let most = moe.experts.saturating_sub(floor.unwrap_or(0));
    Ok((step..=most)
        .step_by(step)
        .map(|gone| gone as f64 / moe.experts as f64)
        .collect())
}

/// The default of every list: the first of each registry, nothing that goes.
impl Default for Grid {
    fn default() -> Self {
        Self {
            criteria: vec![saliency::CRITERIA[0].name().to_owned()],
            allocators: vec![allocate::ALLOCATORS[0].name().to_owned()],
            fractions: vec![0.0],
            drop_layers: vec![LayerBudget::Count(0)],
            layer_criteria: vec![layers::LAYER_CRITERIA[0].name().to_owned()],
            calibrate_on: vec![CalibrateOn::Mix],
            seeds: vec![0],
            common: PlanOptions::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(grid: &Grid) -> Vec<String> {
        let domains = ["code".to_owned(), "math".to_owned()];
        let points = grid.points(&domains);
        points
            .iter()
            .map(|wanted| wanted.point.label(&[]))
            .collect()
    }

    #[test]
    fn every_combination_is_a_point_once() {
        let grid = Grid {
            criteria: vec!["reap".to_owned(), "ean".to_owned()],
            fractions: vec![0.25, 0.5],
            seeds: vec![0, 1],
            ..Grid::default()
        };
        let labels = labels(&grid);
        assert_eq!(labels.len(), 8);
        assert_eq!(labels[0], "reap 0.25, on mix, seed 0");
        assert_eq!(labels[7], "ean 0.5, on mix, seed 1");
    }

    #[test]
    fn what_makes_no_difference_is_left_out() {
        let grid = Grid {
            criteria: vec!["reap".to_owned(), "ean".to_owned()],
            allocators: vec!["uniform".to_owned(), "lamp".to_owned()],
            fractions: vec![0.0, 0.5],
            drop_layers: vec![LayerBudget::Count(0), LayerBudget::Count(2)],
            layer_criteria: vec!["block-influence".to_owned(), "angular-span".to_owned()],
            ..Grid::default()
        };
        let labels = labels(&grid);
        // Layers alone by two criteria; experts alone by four methods; both by eight.
        assert_eq!(labels.len(), 2 + 4 + 8, "{labels:#?}");
        assert_eq!(labels[0], "drop 2 by block-influence, on mix, seed 0");
        assert!(labels.contains(&"reap lamp 0.5, on mix, seed 0".to_owned()));
        assert!(labels.contains(&"ean 0.5, drop 2 by angular-span, on mix, seed 0".to_owned()));
        assert!(super::Grid::default().points(&[]).is_empty());
    }

    #[test]
    fn a_domain_alone_has_all_the_weight() {
        let grid = Grid {
            fractions: vec![0.5],
            calibrate_on: vec![CalibrateOn::Mix, CalibrateOn::Domain("math".to_owned())],
            ..Grid::default()
        };
        let domains = ["code".to_owned(), "math".to_owned()];
        let points = grid.points(&domains);
        assert_eq!(points[0].options.domain_weights, None);
        let weights = points[1].options.domain_weights.clone().unwrap();
        assert_eq!(
            weights,
            [("code".to_owned(), 0.0), ("math".to_owned(), 1.0)]
        );
        assert_eq!(points[1].point.label(&[]), "reap 0.5, on math, seed 0");
    }
}
