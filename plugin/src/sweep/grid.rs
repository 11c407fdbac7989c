//! What is varied, as points and the plans they stand for.

use prune_eval::sweep::{axis, Point};
use router_stats::family::Topology;
use router_stats::forward::Quantization;

use crate::plan::{ExpertBudget, LayerBudget, PlanOptions, SearchOptions};
use crate::search::{SEARCH_TIME, SEARCH_TOKENS};
use crate::{allocate, layers, saliency, Result};

/// Coordinate of searches that run candidates on another amount of text.
const TOKENS: &str = "search_tokens";
/// Coordinate of searches that have another time.
const SECONDS: &str = "search_seconds";

/// What is varied: every combination is a point. Where no expert goes, criteria
/// and allocators make no difference and are left out, and so are layer criteria
/// where no layer goes.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    /// Which experts go: names of [`saliency::CRITERIA`].
    pub criteria: Vec<String>,
    /// How many in which layer: names of [`allocate::ALLOCATORS`].
    pub allocators: Vec<String>,
    /// What looks for better splits than those of allocators, beside them.
    pub searches: Vec<SearchOptions>,
    /// Fractions of the experts that go; 0 is none.
    pub fractions: Vec<f64>,
    /// Layers that go; 0 is none.
    pub drop_layers: Vec<LayerBudget>,
    /// Which layers go: names of [`layers::LAYER_CRITERIA`].
    pub layer_criteria: Vec<String>,
    /// Types that weights are rounded to; `None` leaves them.
    pub quantize: Vec<Option<Quantization>>,
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
    /// What is asked of its plan; `None` where nothing goes.
    pub options: Option<PlanOptions>,
    /// Type that its weights are rounded to.
    pub quantization: Option<Quantization>,
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
                    for &quantization in &self.quantize {
                        if !budget.removes() && quantization.is_none() {
                            // The original.
                            continue;
                        }
                        let mut wanted = self.wanted(&budget, on, seed, domains);
                        if let Some(quantization) = quantization {
                            let name = quantization.name();
                            wanted.point = wanted.point.text(axis::QUANTIZE, name);
                            wanted.quantization = Some(quantization);
                        }
                        if !points.iter().any(|other| other.point == wanted.point) {
                            points.push(wanted);
                        }
                    }
                }
            }
        }
        points
    }

    /// What goes and by which method.
    fn budgets(&self) -> Vec<Budget<'_>> {
        let mut experts = Vec::new();
        for &fraction in &self.fractions {
            if fraction == 0.0 {
                experts.push(None);
                continue;
            }
            for criterion in &self.criteria {
                let splits = self.allocators.iter().map(Split::Allocator);
                let splits = splits.chain(self.searches.iter().map(Split::Search));
                experts.extend(splits.map(|split| Some((criterion, split, fraction))));
            }
        }
        let mut layers = Vec::new();
        for &budget in &self.drop_layers {
            if budget == LayerBudget::Count(0) || budget == LayerBudget::Fraction(0.0) {
                layers.push(None);
            } else {
                layers.extend(self.layer_criteria.iter().map(|by| Some((budget, by))));
            }
        }
        experts
            .iter()
            .flat_map(|&experts| layers.iter().map(move |&layers| Budget { experts, layers }))
            .collect()
    }

    fn wanted(
        &self,
        budget: &Budget<'_>,
        on: &CalibrateOn,
        seed: u64,
        domains: &[String],
    ) -> Wanted {
        if !budget.removes() {
            return Wanted {
                point: Point::default(),
                seed,
                options: None,
                quantization: None,
            };
        }
        let mut point = Point::default()
            .text(axis::CALIBRATE_ON, on.name())
            .number(axis::SEED, seed as f64);
        let mut options = PlanOptions {
            seed,
            domain_weights: on.weights(domains),
            ..self.common.clone()
        };
        if let Some((criterion, split, fraction)) = budget.experts {
            point = point
                .text(axis::CRITERION, criterion)
                .number(axis::PRUNE_EXPERTS, fraction);
            match split {
                Split::Allocator(allocator) => options.allocator.clone_from(allocator),
                Split::Search(search) => {
                    options.search = Some(search.clone());
                    if search.tokens != SEARCH_TOKENS {
                        point = point.number(TOKENS, search.tokens as f64);
                    }
                    if search.time != SEARCH_TIME {
                        point = point.number(SECONDS, search.time.as_secs_f64());
                    }
                }
            }
            if split.name() != PlanOptions::default().allocator {
                point = point.text(axis::ALLOCATION, split.name());
            }
            options.criterion.clone_from(criterion);
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
            options: Some(options),
            quantization: None,
        }
    }
}

/// What goes, by which method.
#[derive(Clone, Copy)]
struct Budget<'a> {
    /// Criterion, split over layers and fraction.
    experts: Option<(&'a String, Split<'a>, f64)>,
    layers: Option<(LayerBudget, &'a String)>,
}

/// What decides how many experts go in which layer.
#[derive(Clone, Copy)]
enum Split<'a> {
    Allocator(&'a String),
    Search(&'a SearchOptions),
}

impl Split<'_> {
    fn name(&self) -> &str {
        match self {
            Self::Allocator(name) => name,
            Self::Search(search) => &search.name,
        }
    }
}

impl Budget<'_> {
    fn removes(&self) -> bool {
        self.experts.is_some() || self.layers.is_some()
    }
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
            searches: Vec::new(),
            fractions: vec![0.0],
            drop_layers: vec![LayerBudget::Count(0)],
            layer_criteria: vec![layers::LAYER_CRITERIA[0].name().to_owned()],
            quantize: vec![None],
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
    fn a_search_is_a_split_and_its_limits_tell_points_apart() {
        let search = |tokens, time| SearchOptions {
            name: "evolution".to_owned(),
            tokens,
            time,
        };
        let grid = Grid {
            searches: vec![
                search(SEARCH_TOKENS, SEARCH_TIME),
                search(512, std::time::Duration::from_secs(60)),
            ],
            fractions: vec![0.5],
            ..Grid::default()
        };
        assert_eq!(
            labels(&grid),
            [
                "reap 0.5, on mix, seed 0",
                "reap evolution 0.5, on mix, seed 0",
                "reap evolution 0.5, on mix, seed 0, search_seconds 60, search_tokens 512",
            ]
        );
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
        let weights = |index: usize| {
            let options: &PlanOptions = points[index].options.as_ref().unwrap();
            options.domain_weights.clone()
        };
        assert_eq!(weights(0), None);
        let weights = weights(1).unwrap();
        assert_eq!(
            weights,
            [("code".to_owned(), 0.0), ("math".to_owned(), 1.0)]
        );
        assert_eq!(points[1].point.label(&[]), "reap 0.5, on math, seed 0");
    }

    #[test]
    fn quantised_points_need_no_plan_where_nothing_goes() {
        let grid = Grid {
            fractions: vec![0.0, 0.5],
            quantize: vec![None, Some(Quantization::Q8_0)],
            seeds: vec![0, 1],
            ..Grid::default()
        };
        let points = grid.points(&[]);
        assert_eq!(
            labels(&grid),
            [
                "q8_0",
                "reap 0.5, on mix, seed 0",
                "reap 0.5, on mix, q8_0, seed 0",
                "reap 0.5, on mix, seed 1",
                "reap 0.5, on mix, q8_0, seed 1",
            ]
        );
        assert_eq!(points[0].options, None);
        assert_eq!(points[2].quantization, Some(Quantization::Q8_0));
    }
}
