//! The steps for a model that is never here whole.
//!
//! With a plan every shard comes once. Without one they come twice: to calibrate
//! with, and, once all have been seen, to be pruned. The loss is not measured,
//! and nothing that measures decides, as either takes the whole model.

use std::path::Path;

use router_stats::calibration::{CalibrateOptions, Sequences};

use super::super::measure::measure_by;
use super::super::write::write_by;
use super::{decide, expect_possible, Change, Job, Outcome, SearchOn, Texts};
use crate::format;
use crate::pipeline::Model;
use crate::plan::{self, Plan, PlanOptions, ValidPlan};
use crate::stream::{self, Remote, Request};
use crate::surgery::{CardFacts, SurgeryOptions};
use crate::{Error, Result};

/// The flag that asks for it.
const FLAG: &str = "--stream-prune";

impl Job {
    /// Does what has not been done before, with few shards at a time.
    ///
    /// # Errors
    /// Those of every step; [`Error::Option`] for what takes the whole model.
    pub(super) fn streamed(&self) -> Result<Outcome> {
        let (cache, reporter) = (&self.cache, &*self.reporter);
        let listed = self.source.listed(FLAG, reporter)?;
        let root = cache.stream(&listed.key());
        let _lock = cache.lock(&listed.key(), reporter)?;
        let name = self.source.name();
        let mut remote = Remote::open(&listed, &root, name, &self.device, reporter)?;
        let images = self.served(remote.model())?;
        let longest = self.longest(remote.model().topology())?;
        let (plan, label) = match &self.change {
            Change::Nothing => {
                return Err(Error::Option {
                    option: FLAG,
                    expected: "a budget or a plan".to_owned(),
                    found: "neither".to_owned(),
                });
            }
            Change::Plan(path) => (plan::read(path)?, path.display().to_string()),
            Change::Given { name, plan } => ((**plan).clone(), name.clone()),
            Change::Make(options) => (self.decided(&mut remote, options)?, "this plan".to_owned()),
        };
        remote.claim(&plan.model.fingerprint)?;
        let model = remote.model();
        let valid = valid(model, plan, &label)?;
        let layout = self.layout(model, &valid)?;
        let card = CardFacts {
            source: self.source.hub_id(),
            report: None,
            prediction_layers: model.topology().prediction_layers,
        };
        let make = |out: &Path, options: &SurgeryOptions| {
            let request = Request {
                plan: valid.plan().clone(),
                label,
                out,
                root: Some(root.clone()),
                options: options.clone(),
            };
            Ok(stream::prune(&listed, &request, reporter)?.summary)
        };
        let dir = write_by(model, &valid, (layout, card), cache, reporter, make)?;
        Ok(Outcome {
            dir: self.limited(dir, longest)?,
            ..Outcome::planned(model, &valid, layout, images)
        })
    }

    /// The plan that `options` make of the statistics of a model whose shards
    /// come for them.
    fn decided(&self, remote: &mut Remote, options: &PlanOptions) -> Result<Plan> {
        let (cache, reporter) = (&self.cache, &*self.reporter);
        let model = remote.model();
        expect_possible(options, model)?;
        if let Some(found) = measures(options, model)? {
            return Err(Error::Option {
                option: FLAG,
                expected: "a plan that follows from statistics".to_owned(),
                found: format!("{found}, which runs the whole model"),
            });
        }
        let corpus = Texts::new(&self.texts, model, cache, reporter)?.calibration;
        let run = |remote: &mut Remote, sequences: &Sequences, how: &CalibrateOptions| {
            let bytes = format::bytes(remote.bytes());
            reporter.hint(&format!(
                "all shards come twice, 2 × {bytes}: to calibrate, then to prune; with --plan they come once"
            ));
            remote.calibrate(sequences, how, reporter)
        };
        let what = (&corpus, &self.calibration);
        let measured = measure_by(remote, Remote::model, run, what, cache, reporter)?;
        remote.claim_of(&measured.read()?)?;
        let on = SearchOn {
            corpus: &corpus,
            pack: &self.calibration.pack(),
        };
        let plan = decide(remote.model(), &measured, on, options, cache, reporter)?;
        Ok(plan.plan().clone())
    }
}

fn valid(model: &Model, plan: Plan, label: &str) -> Result<ValidPlan> {
    let (checkpoint, family) = (model.checkpoint(), model.family());
    ValidPlan::named(plan, label, checkpoint, family, model.topology())
}

/// The flag by which `options` need measurements beside statistics.
fn measures(options: &PlanOptions, model: &Model) -> Result<Option<&'static str>> {
    Ok(if options.fit.is_some() {
        Some("--fit")
    } else if options.search.is_some() {
        Some("--search")
    } else if options.max_loss.is_some() {
        Some("--max-loss")
    } else if plan::measurements(options, model.topology())? > 0 {
        Some("--layer-criterion greedy")
    } else {
        None
    })
}
