//! What holds of every search: it respects what a plan has to, it never ends
//! with less than it began with, and a stop changes nothing but the time.

use std::sync::atomic::{AtomicUsize, Ordering};

use rand::RngExt;
use router_stats::stats::Stats;

use super::*;
use crate::pipeline::{measure, searched, Calibration, Grounds, SearchOn};
use crate::plan::{ExpertBudget, ExpertId, PlanOptions, Planner, SearchOptions, ValidPlan};

/// A model, its text and its statistics.
struct Case {
    model: Model,
    corpus: Corpus,
    stats: Stats,
}

impl Case {
    /// A golden checkpoint with random weights.
    fn golden(family: &str) -> Self {
        let dir = repository("tests/golden").join(family);
        let model = Model::open(&dir, "model".to_owned(), &Device::Cpu).unwrap();
        let corpus = corpus(&model);
        let place = tempfile::tempdir().unwrap();
        let cache = Cache::new(place.path());
        let stats = measure(&model, &corpus, &calibration(), &cache, &Silent);
        let stats = stats.unwrap().read().unwrap();
        Self {
            model,
            corpus,
            stats,
        }
    }

    fn searched(
        &self,
        options: &PlanOptions,
        cache: &Cache,
        reporter: &dyn crate::pipeline::Reporter,
    ) -> crate::Result<ValidPlan> {
        let pack = calibration().pack();
        let on = SearchOn {
            corpus: &self.corpus,
            pack: &pack,
        };
        let grounds = Grounds {
            stats: &self.stats,
            text: Some(on),
        };
        let by = options.search.as_ref().unwrap();
        searched(&self.model, grounds, options, by, cache, reporter)
    }

    fn planner<'a>(&'a self, options: &'a PlanOptions) -> Planner<'a> {
        let model = &self.model;
        Planner::new(
            &self.stats,
            model.checkpoint(),
            model.family(),
            model.topology(),
            options,
        )
        .unwrap()
    }
}

fn calibration() -> Calibration {
    Calibration {
        tokens: 512,
        seq_len: 32,
        ..Calibration::default()
    }
}

fn asked(search: &str, fraction: f64) -> PlanOptions {
    PlanOptions {
        experts: Some(ExpertBudget::Fraction(fraction)),
        search: Some(SearchOptions {
            name: search.to_owned(),
            tokens: 96,
            time: Duration::from_secs(3600),
        }),
        ..PlanOptions::default()
    }
}

/// Experts that stay in all layers.
fn kept(plan: &ValidPlan) -> usize {
    plan.keep().experts.iter().map(Vec::len).sum()
}

#[test]
fn names_are_unique_and_found() {
    for named in SEARCHES {
        assert_eq!(search(named.name()).unwrap().name(), named.name());
        assert!(!named.about().is_empty() && !named.source().is_empty());
    }
    assert!(search("none").unwrap_err().is_usage());
}

#[test]
fn every_search_spends_the_budget_and_respects_the_model() {
    // Sixteen experts in three layers, and sixteen in four groups.
    for family in ["phimoe", "deepseek_v3"] {
        let case = Case::golden(family);
        let topology = case.model.topology();
        let last = (0..topology.layers())
            .rev()
            .find(|&l| topology.moe(l).is_some());
        let worst = ExpertId {
            layer: last.unwrap(),
            expert: 5,
        };
        for by in SEARCHES {
            let place = tempfile::tempdir().unwrap();
            let options = PlanOptions {
                protect: vec![worst],
                ..asked(by.name(), 0.25)
            };
            let found = case
                .searched(&options, &Cache::new(place.path()), &Silent)
                .unwrap();
            found.keep().check(topology).unwrap();
            assert!(found.keep().experts[worst.layer].contains(&worst.expert));
            let none = PlanOptions {
                search: None,
                ..options.clone()
            };
            let plain = case.planner(&none).plan().unwrap();
            assert_eq!(kept(&found), kept(&plain), "{family} {}", by.name());
            assert_eq!(found.plan().after.bytes, plain.plan().after.bytes);
            let search = found.plan().method.search.as_ref().unwrap();
            assert_eq!(search.name, by.name());
            assert!(search.tokens <= 96 && search.candidates > 2, "{search:?}");
        }
    }
}

#[test]
fn nothing_found_is_worse_than_the_even_split_or_any_allocators() {
    let case = Case::golden("phimoe");
    for by in SEARCHES {
        for (seed, time) in [(0, 3_600_000_000_000), (1, 3_600_000_000_000), (0, 1)] {
            let place = tempfile::tempdir().unwrap();
            let cache = Cache::new(place.path());
            let mut options = asked(by.name(), 0.375);
            options.seed = seed;
            let search = options.search.as_mut().unwrap();
            search.time = Duration::from_nanos(time);
            let found = case.searched(&options, &cache, &Silent).unwrap();
            let recorded = found.plan().method.search.clone().unwrap();
            let text = {
                let mut text = case.corpus.clone();
                text.domains
                    .iter_mut()
                    .for_each(|domain| domain.weight = 1.0);
                let pack = PackOptions {
                    tokens: 96,
                    ..calibration().pack()
                };
                let sequences = sequences(&text, &case.model, &pack).unwrap();
                SearchText::new(&case.model.forward, sequences, &case.model.companions)
            };
            // What the plan says is what its experts are worth.
            let mut objective = objective(&text, &cache, None);
            assert_eq!(objective.measure(found.keep()).unwrap(), recorded.after);
            let none = PlanOptions {
                search: None,
                ..options.clone()
            };
            let planner = case.planner(&none);
            let space = planner.space(&planner.plan().unwrap()).unwrap().unwrap();
            let splits = space.splits();
            let tried = if time == 1 { 1 } else { splits.len() };
            for ranks in &splits[..tried] {
                let split = objective.measure(&space.of_ranks(ranks)).unwrap();
                assert!(
                    recorded.after.overlap >= split.overlap,
                    "{} {ranks:?}",
                    by.name()
                );
            }
            assert!(recorded.after.overlap >= recorded.before.overlap);
            if time == 1 {
                assert_eq!(recorded.candidates, 1);
            } else {
                // Random weights leave something to find.
                assert!(
                    recorded.after.overlap > recorded.before.overlap,
                    "{recorded:?}"
                );
            }
        }
    }
}

/// Stops after some updates.
struct After(AtomicUsize);

impl Progress for After {
    fn update(&self, _: &Update<'_>) {
        let left = self.0.load(Ordering::Relaxed);
        self.0.store(left.saturating_sub(1), Ordering::Relaxed);
    }
    fn cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }
}

impl crate::pipeline::Reporter for After {
    fn report(&self, _: &str, _: &str) {}
    fn text(&self, _: &str) {}
    fn hint(&self, _: &str) {}
}

#[test]
fn stopped_anywhere_and_resumed_it_makes_the_same_plan() {
    let case = Case::golden("phimoe");
    for (round, by) in SEARCHES.iter().enumerate() {
        let options = asked(by.name(), 0.5);
        let places = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [whole, torn] = places.each_ref().map(|place| Cache::new(place.path()));
        let expected = case.searched(&options, &whole, &Silent).unwrap();
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(round as u64);
        let mut stops = 0;
        let found = loop {
            // Several updates for every candidate.
            let stop = After(AtomicUsize::new(rng.random_range(1..80)));
            match case.searched(&options, &torn, &stop) {
                Ok(plan) => break plan,
                Err(error) => assert!(error.to_string().contains("interrupted"), "{error}"),
            }
            stops += 1;
            assert!(stops < 1000, "it does not get on");
        };
        assert!(stops > 2, "{stops} stops");
        let bytes = |plan: &ValidPlan, at: usize| {
            let path = places[at].path().join("x.plan.json");
            crate::plan::write(plan.plan(), &path).unwrap();
            fs::read(path).unwrap()
        };
        assert!(bytes(&expected, 0) == bytes(&found, 1), "{}", by.name());
    }
}

#[test]
fn text_without_a_domain_of_the_statistics_is_refused() {
    let mut case = Case::golden("phimoe");
    case.corpus.domains.remove(0);
    let place = tempfile::tempdir().unwrap();
    let options = asked("evolution", 0.5);
    let error = case
        .searched(&options, &Cache::new(place.path()), &Silent)
        .unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("--calibration: expected text of the domains"),
        "{text}"
    );
    assert!(text.ends_with("found python"), "{text}");
    // A domain that does not count need not be there.
    let options = PlanOptions {
        domain_weights: Some(vec![("stories".to_owned(), 0.0)]),
        ..options
    };
    case.searched(&options, &Cache::new(place.path()), &Silent)
        .unwrap();
}
