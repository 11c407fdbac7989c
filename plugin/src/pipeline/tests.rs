//! The steps together, on a golden checkpoint.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::Device;
use router_stats::calibration::Source;
use router_stats::progress::{Progress, Silent, Update};

use super::*;
use crate::cache::Cache;
use crate::plan::{ExpertBudget, PlanOptions};
use crate::surgery::{UqffWeights, REPORT_FILE};

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// A copy of the golden Mixtral, which has no chat template, to be changed.
fn copy(place: &Path) -> PathBuf {
    let copy = place.join("model");
    fs::create_dir(&copy).unwrap();
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        let from = repository("tests/golden/mixtral").join(name);
        fs::copy(from, copy.join(name)).unwrap();
    }
    copy
}

fn open(dir: &Path) -> Model {
    Model::open(dir, "model".to_owned(), &Device::Cpu).unwrap()
}

fn stories() -> Source {
    Source {
        domain: "stories".to_owned(),
        path: repository("models/demo/held-out/stories.txt"),
        weight: 1.0,
    }
}

fn calibration() -> Calibration {
    Calibration {
        tokens: 512,
        seq_len: 64,
        ..Calibration::default()
    }
}

/// Keeps what was hinted and reported.
#[derive(Default)]
struct Notes(Mutex<Vec<String>>);

impl Notes {
    fn note(&self, text: String) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(text);
    }

    fn take(&self) -> String {
        std::mem::take(&mut *self.0.lock().unwrap()).join("\n")
    }
}

impl Progress for Notes {
    fn update(&self, _: &Update<'_>) {}
}

impl Reporter for Notes {
    fn report(&self, verb: &str, text: &str) {
        self.note(format!("{verb} {text}"));
    }
    fn text(&self, _: &str) {}
    fn hint(&self, text: &str) {
        self.note(format!("hint: {text}"));
    }
}

fn job(model: &Path, place: &Path, reporter: Arc<Notes>) -> Job {
    Job {
        source: ModelSource {
            model: Some(model.display().to_string()),
            ..ModelSource::default()
        },
        change: Change::Make(Box::new(PlanOptions {
            experts: Some(ExpertBudget::Fraction(0.5)),
            ..PlanOptions::default()
        })),
        texts: vec![stories()],
        calibration: calibration(),
        evaluation: None,
        uneven_weights: Some(UqffWeights::Float),
        max_seq_len: None,
        stream: false,
        device: Device::Cpu,
        cache: Cache::new(place.join("cache")),
        reporter,
    }
}

fn evaluation() -> EvaluationOptions {
    EvaluationOptions {
        tokens: 256,
        seq_len: 64,
        ..EvaluationOptions::default()
    }
}

#[test]
fn another_tokenizer_is_another_entry() {
    let place = tempfile::tempdir().unwrap();
    let (dir, cache) = (copy(place.path()), Cache::new(place.path().join("cache")));
    let corpus = |model: &Model| read(&[stories()], model).unwrap();
    let key = |model: &Model| {
        measure(model, &corpus(model), &calibration(), &cache, &Silent)
            .unwrap()
            .key
    };
    let before = key(&open(&dir));
    assert_eq!(key(&open(&dir)), before);
    // The weights, and so the fingerprint, stay.
    let fingerprint = open(&dir).fingerprint;
    fs::write(dir.join("generation_config.json"), r#"{"eos_token_id": 3}"#).unwrap();
    let changed = open(&dir);
    assert_eq!(changed.fingerprint, fingerprint);
    assert_ne!(key(&changed), before);
}

#[test]
fn a_loss_measured_later_reaches_the_checkpoint_and_stays_with_it() {
    let place = tempfile::tempdir().unwrap();
    let notes = Arc::new(Notes::default());
    let model = copy(place.path());
    let without = job(&model, place.path(), notes.clone());
    let first = without.run().unwrap();
    let card = || fs::read_to_string(first.dir.join("README.md")).unwrap();
    assert!(card().contains("Not measured."));
    assert!(!first.dir.join(REPORT_FILE).exists());

    let with = Job {
        evaluation: Some(evaluation()),
        ..without.clone()
    };
    let second = with.run().unwrap();
    assert_eq!(second.dir, first.dir);
    assert!(!card().contains("Not measured."), "{}", card());
    assert_eq!(card().matches("### Measured loss").count(), 1);
    assert!(notes.take().contains("Cached checkpoint"));
    // A run that does not measure keeps what is known.
    without.run().unwrap();
    assert!(!card().contains("Not measured."));

    // The directory moves, and is served as it is.
    let moved = place.path().join("moved");
    fs::rename(&second.dir, &moved).unwrap();
    let as_it_is = Job {
        change: Change::Nothing,
        ..job(&moved, place.path(), notes)
    };
    let outcome = as_it_is.run().unwrap();
    assert_eq!(outcome.plan, second.plan);
    assert!(outcome.report.is_some());
    assert_eq!(outcome.report, second.report);
}

#[test]
fn a_model_may_have_any_name() {
    let place = tempfile::tempdir().unwrap();
    let named = place.path().join("pruned");
    fs::rename(copy(place.path()), &named).unwrap();
    let outcome = Job {
        evaluation: Some(evaluation()),
        ..job(&named, place.path(), Arc::default())
    }
    .run()
    .unwrap();
    let report = outcome.report.unwrap();
    assert_eq!(
        (&*report.reference.name, &*report.variants[0].name),
        ("pruned", "pruned-pruned")
    );
}

#[test]
fn domains_that_cannot_be_checked_are_named() {
    let place = tempfile::tempdir().unwrap();
    let single = place.path().join("single.txt");
    fs::write(&single, "one document of a few words, and no other").unwrap();
    let single = Source {
        domain: "single".to_owned(),
        path: single,
        weight: 1.0,
    };
    let model = copy(place.path());
    let notes = Arc::new(Notes::default());
    let said = |texts: Vec<Source>| {
        let job = Job {
            evaluation: Some(evaluation()),
            texts,
            ..job(&model, place.path(), notes.clone())
        };
        job.run().unwrap();
        notes.take()
    };
    assert!(!said(vec![stories()]).contains("hint: "));
    let both = said(vec![stories(), single.clone()]);
    assert!(both.contains("held-out text: single;"), "{both}");
    let alone = said(vec![single]);
    assert!(alone.contains("measured on the bundled text"), "{alone}");
}

#[test]
fn bundled_chats_need_no_template() {
    let place = tempfile::tempdir().unwrap();
    let model = open(&copy(place.path()));
    let cache = Cache::new(place.path().join("cache"));
    for corpus in [
        bundled_calibration(&model, &cache, &Silent).unwrap(),
        bundled_held_out(&model, &cache, &Silent).unwrap(),
    ] {
        let chat = corpus.domains.iter().find(|domain| domain.name == "chat");
        assert!(chat.unwrap().documents[0].starts_with("User: "));
    }
}
