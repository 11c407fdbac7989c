//! All the steps behind one call: what `serve` does before it listens.

mod outcome;
mod streamed;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Device;
use router_stats::calibration::Source;
use router_stats::family::{Serving, Topology};

use super::{
    decide, evaluate, limit, measure, searched, solved, uneven, within_loss, Calibration,
    EvaluationOptions, Grounds, LossLimit, Model, ModelSource, Reporter, SearchOn, Texts,
};
use crate::cache::Cache;
use crate::memory;
use crate::plan::{self, ExpertBudget, Plan, PlanOptions, SizeTarget, ValidPlan};
use crate::surgery::{self, CardFacts, Layout, Uqff, UqffWeights, PLAN_FILE};
use crate::{Error, Result};
pub use outcome::Outcome;
use outcome::{caveat, stacked};

/// What is to become of the model.
#[derive(Debug, Clone)]
pub enum Change {
    /// It stays as it is.
    Nothing,
    /// What a plan file says.
    Plan(PathBuf),
    /// What this plan says.
    Given {
        /// What the plan is called.
        name: String,
        /// The plan, not yet checked.
        plan: Box<Plan>,
    },
    /// What these options make of the statistics.
    Make(Box<PlanOptions>),
}

/// A model and what is to become of it.
#[derive(Clone)]
pub struct Job {
    /// The model.
    pub source: ModelSource,
    /// What is to become of it.
    pub change: Change,
    /// Text to calibrate and check with; none is the bundled text.
    pub texts: Vec<Source>,
    /// How statistics are made.
    pub calibration: Calibration,
    /// How the loss is measured; `None` does not.
    pub evaluation: Option<EvaluationOptions>,
    /// Numbers of linear layers if layers keep different numbers of experts,
    /// which are then quantised when they are written; none if the engine is
    /// to quantise them to a type that is not written here.
    pub uneven_weights: Option<UqffWeights>,
    /// Tokens of the longest sequence that the engine is to take; none for what
    /// the model was made for.
    pub max_seq_len: Option<usize>,
    /// Whether shards of a model on the hub come one by one and go, so that it is
    /// never here whole.
    pub stream: bool,
    /// Where computations run.
    pub device: Device,
    /// Where intermediate files are kept.
    pub cache: Cache,
    /// Who is told.
    pub reporter: Arc<dyn Reporter>,
}

impl Job {
    /// What the result is called: `demo-reap-0.5`.
    pub fn id(&self) -> String {
        let name = self.source.name();
        match &self.change {
            Change::Nothing => name,
            Change::Plan(path) => format!("{name}-{}", plan_name(path)),
            Change::Given { name: of, .. } => format!("{name}-{of}"),
            Change::Make(options) => {
                let mut id = name;
                let mut method = options.criterion.clone();
                if options.allocator != PlanOptions::default().allocator {
                    method = format!("{method}-{}", options.allocator);
                }
                if let Some(search) = &options.search {
                    method = format!("{method}-{}", search.name);
                }
                if let Some(budget) = &options.fit {
                    id += &format!("-fit-{}", SizeTarget::Bytes(budget.bytes).value());
                }
                if let Some(target) = options.target {
                    id += &format!("-{method}-{}", target.value());
                }
                if let Some(most) = options.max_loss {
                    id += &format!("-{method}-loss{most}");
                }
                match options.experts.filter(|_| options.target.is_none()) {
                    Some(ExpertBudget::Fraction(fraction)) => {
                        id += &format!("-{method}-{fraction}");
                    }
                    Some(ExpertBudget::Keep(kept)) => {
                        id += &format!("-{method}-keep{kept}");
                    }
                    None => {}
                }
                for (unit, budget) in options.drops() {
                    id += &format!("-{}{budget}", unit.short());
                }
                if let Some(top_k) = options.top_k {
                    id += &format!("-top{top_k}");
                }
                id
            }
        }
    }

    /// Does what has not been done before.
    ///
    /// # Errors
    /// Those of every step; what is finished is kept for the next time.
    pub fn run(&self) -> Result<Outcome> {
        if self.stream {
            return self.streamed();
        }
        let (cache, reporter) = (&self.cache, &*self.reporter);
        let model = self.source.open(&self.device, cache, reporter)?;
        let images = self.served(&model)?;
        let longest = self.longest(model.topology())?;
        let texts = || Texts::new(&self.texts, &model, cache, reporter);
        let given = |plan: ValidPlan| -> Result<_> {
            reporter.report("Planned", &decide::summary(&plan));
            Ok((plan, self.evaluation.as_ref().map(|_| texts()).transpose()?))
        };
        let (plan, texts) = match &self.change {
            Change::Nothing => return self.unchanged(&model, images, longest),
            Change::Plan(path) => given(ValidPlan::read(
                path,
                model.checkpoint(),
                model.family(),
                model.topology(),
            )?)?,
            Change::Given { plan, .. } => {
                let (checkpoint, family) = (model.checkpoint(), model.family());
                given(ValidPlan::new(
                    (**plan).clone(),
                    checkpoint,
                    family,
                    model.topology(),
                )?)?
            }
            Change::Make(options) => {
                expect_possible(options, &model)?;
                let texts = texts()?;
                let plan = self.made(&model, &texts, options)?;
                (plan, Some(texts))
            }
        };
        // What cannot be served is refused before the loss is measured.
        let layout = self.layout(&model, &plan)?;
        let report = match (&self.evaluation, texts) {
            (Some(options), Some(texts)) => {
                let report = evaluate(&model, &plan, &texts.held_out, options, cache, reporter)?;
                if let Some(warning) = texts.unchecked(&report) {
                    reporter.hint(&warning);
                }
                Some(report)
            }
            _ => None,
        };
        let card = CardFacts {
            source: self.source.hub_id(),
            report: report.clone(),
            prediction_layers: model.topology().prediction_layers,
        };
        let dir = super::write(&model, &plan, layout, card, cache, reporter)?;
        Ok(Outcome {
            dir: self.limited(dir, longest)?,
            report,
            ..Outcome::planned(&model, &plan, layout, images)
        })
    }

    /// What `options` make of the statistics of `texts`.
    ///
    /// # Errors
    /// Those of calibrating and planning; [`Error::Option`] for a largest loss
    /// that nothing measures.
    fn made(&self, model: &Model, texts: &Texts, options: &PlanOptions) -> Result<ValidPlan> {
        let (cache, reporter) = (&self.cache, &*self.reporter);
        let corpus = &texts.calibration;
        let measured = measure(model, corpus, &self.calibration, cache, reporter)?;
        let on = SearchOn {
            corpus,
            pack: &self.calibration.pack(),
        };
        let text = Some(on);
        match (&options.fit, &options.search, options.max_loss) {
            (None, None, None) => decide(model, &measured, on, options, cache, reporter),
            (Some(budget), ..) => {
                let stats = &measured.read()?;
                let grounds = Grounds { stats, text };
                solved(model, grounds, options, budget, cache, reporter)
            }
            (None, Some(by), _) => {
                let stats = &measured.read()?;
                let grounds = Grounds { stats, text };
                // What could not be served is not searched for.
                if let Some(uneven) = uneven(model, grounds, options, cache, reporter)? {
                    self.layout(model, &uneven)?;
                }
                searched(model, grounds, options, by, cache, reporter)
            }
            (None, None, Some(most)) => {
                let evaluation = self.evaluation.as_ref().ok_or_else(|| Error::Option {
                    option: "--max-loss",
                    expected: "an evaluation to measure it".to_owned(),
                    found: format!("{most} without one"),
                })?;
                let limit = LossLimit {
                    most,
                    held_out: &texts.held_out,
                    evaluation,
                };
                let stats = &measured.read()?;
                let grounds = Grounds { stats, text };
                within_loss(model, grounds, options, limit, cache, reporter)
            }
        }
    }

    /// How the engine reads what `plan` leaves of the model.
    ///
    /// # Errors
    /// [`Error::NotServed`], or [`Error::Option`] for a type of quantisation, if
    /// layers keep different numbers of experts and the engine cannot load that.
    fn layout(&self, model: &Model, plan: &ValidPlan) -> Result<Layout> {
        let (keep, topology) = (plan.keep(), model.topology());
        let device = model.uqff_device();
        let layout = if model.checkpoint().gguf().is_some() && plan.plan().weights.is_none() {
            self.blocks(model)?
        } else if let Some(weights) = plan.plan().weights {
            if self.uneven_weights != Some(UqffWeights::Float) {
                return Err(Error::Option {
                    option: "--isq",
                    expected: format!("none, as the plan says {}", weights.name()),
                    found: "one".to_owned(),
                });
            }
            Layout::Uqff(Uqff { weights, device })
        } else if keep.uniform_experts(topology).is_some() {
            Layout::Engine
        } else {
            let weights = self.uneven_weights.ok_or_else(|| Error::Option {
                option: "--isq",
                expected: format!(
                    "one of {} where layers keep different numbers of experts",
                    UqffWeights::ALL[1..]
                        .iter()
                        .map(|it| it.name())
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
                found: "another type".to_owned(),
            })?;
            Layout::Uqff(Uqff { weights, device })
        };
        surgery::check_counts(model.checkpoint(), model.family(), topology, plan, layout)?;
        Ok(layout)
    }

    /// How the engine reads a GGUF model: as UQFF, whose blocks are the same.
    ///
    /// # Errors
    /// [`Error::Option`] if they are to be quantised again.
    fn blocks(&self, model: &Model) -> Result<Layout> {
        if self.uneven_weights != Some(UqffWeights::Float) {
            return Err(Error::Option {
                option: "--isq",
                expected: "none, as the blocks of a GGUF file are served as they are".to_owned(),
                found: "one".to_owned(),
            });
        }
        Ok(Layout::for_engine(model.checkpoint(), model.uqff_device()))
    }

    /// The model as it is, in a layout that the engine reads. A directory that
    /// was pruned before says how, and what that cost.
    fn unchanged(&self, model: &Model, images: bool, longest: Option<usize>) -> Result<Outcome> {
        let (cache, reporter) = (&self.cache, &*self.reporter);
        let mut dir = model.checkpoint().dir();
        let is_gguf = model.checkpoint().gguf().is_some();
        let layout = if is_gguf {
            dir = dir.parent().unwrap_or(dir);
            self.blocks(model)?
        } else {
            Layout::Engine
        };
        let served = if is_gguf || super::needs_relayout(model)? {
            super::relayout(model, layout, cache, reporter)?
        } else {
            dir.to_path_buf()
        };
        Ok(Outcome {
            dir: self.limited(served, longest)?,
            before: model.size()?,
            plan: plan::read(dir.join(PLAN_FILE)).ok(),
            report: super::write::loss(dir),
            images,
            uqff: layout.uqff(),
            stacked: !is_gguf && stacked(model),
            caveat: caveat(model),
        })
    }

    /// Tokens of the longest sequence that the engine is to take, if fewer than
    /// it could.
    ///
    /// # Errors
    /// [`Error::Option`]
    fn longest(&self, topology: &Topology) -> Result<Option<usize>> {
        let budget = match &self.change {
            Change::Make(options) => options.fit.as_ref(),
            Change::Nothing | Change::Plan(_) | Change::Given { .. } => None,
        };
        match (budget, self.max_seq_len) {
            (Some(budget), _) => Ok(Some(budget.traffic(topology)?.tokens)),
            (None, Some(asked)) => memory::longest(asked, topology).map(Some),
            (None, None) => Ok(None),
        }
    }

    /// The checkpoint in `dir` with sequences of at most `longest` tokens.
    fn limited(&self, dir: PathBuf, longest: Option<usize>) -> Result<PathBuf> {
        match longest {
            Some(tokens) => limit::limited(&dir, tokens, &self.cache),
            None => Ok(dir),
        }
    }

    /// Whether the model also sees images.
    ///
    /// # Errors
    /// [`Error::NotServed`] if the engine does not take it, before any long
    /// work.
    fn served(&self, model: &Model) -> Result<bool> {
        let (checkpoint, family, topology) = (model.checkpoint(), model.family(), model.topology());
        match surgery::refusal(checkpoint, family, topology, self.device.is_cpu()) {
            None => Ok(matches!(family.serving(topology), Serving::Multimodal(_))),
            Some(reason) => Err(Error::NotServed {
                model: model.name.clone(),
                reason,
            }),
        }
    }
}

/// What a plan is called by its file: `half` of `plans/half.plan.json`.
pub fn plan_name(path: &Path) -> String {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    let name = name.strip_suffix(".json").unwrap_or(&name);
    name.strip_suffix(".plan").unwrap_or(name).to_owned()
}

/// Fails for a budget that `model` cannot meet, before the long work.
///
/// # Errors
/// Those of [`plan::check`], [`surgery::check_asked`] and
/// [`plan::check_target`].
fn expect_possible(options: &PlanOptions, model: &Model) -> Result<()> {
    let (family, topology) = (model.family(), model.topology());
    plan::check(options, topology)?;
    surgery::check_asked(&model.name, family, topology, options)?;
    plan::check_target(options, model.checkpoint(), family, topology)
}

#[cfg(test)]
mod tests {
    use router_stats::progress::Silent;

    use super::*;
    use crate::plan::LayerBudget;

    fn id(change: Change) -> String {
        Job {
            source: ModelSource {
                model: Some("org/base".to_owned()),
                ..ModelSource::default()
            },
            change,
            texts: Vec::new(),
            calibration: Calibration::default(),
            evaluation: None,
            uneven_weights: None,
            max_seq_len: None,
            stream: false,
            device: Device::Cpu,
            cache: Cache::new("unused"),
            reporter: Arc::new(Silent),
        }
        .id()
    }

    #[test]
    fn ids_tell_what_was_done() {
        let options = |experts, drop_layers| {
            Change::Make(Box::new(PlanOptions {
                experts,
                drop_layers,
                ..PlanOptions::default()
            }))
        };
        assert_eq!(id(Change::Nothing), "base");
        assert_eq!(id(Change::Plan("x/half.plan.json".into())), "base-half");
        assert_eq!(
            id(options(Some(ExpertBudget::Fraction(0.5)), None)),
            "base-reap-0.5"
        );
        assert_eq!(
            id(options(
                Some(ExpertBudget::Keep(64)),
                Some(LayerBudget::Count(2))
            )),
            "base-reap-keep64-drop2"
        );
        assert_eq!(
            id(Change::Make(Box::new(PlanOptions {
                target: Some(SizeTarget::Bytes(12 << 30)),
                ..PlanOptions::default()
            }))),
            "base-reap-12GiB"
        );
        assert_eq!(
            id(options(None, Some(LayerBudget::Fraction(0.25)))),
            "base-drop0.25"
        );
        assert_eq!(
            id(Change::Make(Box::new(PlanOptions {
                drop_moe: Some(LayerBudget::Count(2)),
                top_k: Some(3),
                ..PlanOptions::default()
            }))),
            "base-dropmoe2-top3"
        );
    }
}
