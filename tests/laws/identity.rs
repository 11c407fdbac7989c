//! Law 1: a plan that keeps everything reproduces every tensor bit for bit.

use mistralrs_prune::plan::PlanOptions;
use mistralrs_prune::surgery::{self, Layout};
use prune_tests::{at_most, demo, logits, open, ragged, worst, Golden};
use router_stats::family::{Projections, Role};
use router_stats::forward::Model;

use crate::cut::{decide, layouts, Cut};

/// The golden checkpoints (f32) and the demo model (bf16, tied head).
fn models() -> impl Iterator<Item = Model> {
    Golden::all()
        .map(|golden| golden.model)
        .chain([open(&demo())])
}

fn identity(model: &Model, layout: Layout) -> Cut {
    let sequences = ragged(&[12, 5], 259, 1);
    let plan = decide(model, &sequences, &PlanOptions::default());
    assert!(plan.keep().is_identity(model.topology()));
    assert_eq!(plan.plan().before, plan.plan().after);
    Cut::new(model, &plan, layout)
}

/// Multi-token-prediction blocks, which are not carried over, apart.
fn assert_same_tensors(original: &Model, other: &Model) {
    let (left, right) = (original.checkpoint(), other.checkpoint());
    let names = original.family().names();
    let carried = |name: &&str| match names.role(name) {
        Role::Global => true,
        Role::Block { layer, .. } => !original.topology().predicts(layer),
    };
    assert!(left.names().filter(carried).eq(right.names()));
    for tensor in left.tensors().filter(|tensor| carried(&tensor.name)) {
        let other = right.tensor(tensor.name).unwrap();
        assert_eq!(tensor.element, other.element, "{}", tensor.name);
        assert_eq!(tensor.shape, other.shape, "{}", tensor.name);
        let (kept, stored) = (other.data().unwrap(), tensor.data().unwrap());
        assert!(kept == stored, "{}: bits differ", tensor.name);
    }
}

#[test]
fn the_hf_layout_of_everything_is_the_original() {
    for model in models() {
        let cut = identity(&model, Layout::Hf);
        assert_same_tensors(&model, &cut.model);
        let mut topology = model.topology().clone();
        if topology.prediction_layers == 0 {
            assert_eq!(cut.summary.bytes, model.checkpoint().bytes());
        }
        topology.prediction_layers = 0;
        assert_eq!(*cut.model.topology(), topology);
    }
}

#[test]
fn the_way_to_the_engine_s_layout_and_back_changes_nothing() {
    for model in models() {
        if !layouts(&model).contains(&Layout::Engine) {
            continue;
        }
        let engine = identity(&model, Layout::Engine);
        let sequences = ragged(&[9, 4], 259, 1);
        let expected = logits(&model, &sequences, None);
        // Dimensions may be summed in another order.
        let difference = worst(&logits(&engine.model, &sequences, None), &expected);
        let what = format!("{} for the engine", model.family().model_type());
        at_most(1e-5, difference, &what);
        // What is in the engine's layout stays in it.
        let again = Cut::convert(&engine.model, Layout::Engine);
        assert_same_tensors(&engine.model, &again.model);
        let config = |cut: &Cut| cut.model.checkpoint().config().value().clone();
        assert_eq!(config(&again), config(&engine));
        let stored = |model: &Model| {
            let (checkpoint, family) = (model.checkpoint(), model.family());
            surgery::is_stored_as(checkpoint, family, model.topology(), Layout::Engine).unwrap()
        };
        assert!(stored(&engine.model), "{what}");

        let back = Cut::convert(&engine.model, Layout::Hf);
        let values = |model: &Model| match &model.topology().attention.projections {
            Projections::Grouped(_) => None,
            Projections::Latent(latent) => Some(latent.value_dim),
        };
        if values(&back.model) == values(&model) {
            assert_same_tensors(&model, &back.model);
        } else {
            // Zeros that the engine needs stay, and change nothing.
            let difference = worst(&logits(&back.model, &sequences, None), &expected);
            at_most(1e-5, difference, &format!("{what} and back"));
        }
    }
}

#[test]
fn keys_of_the_configuration_survive() {
    for model in models() {
        let cut = identity(&model, Layout::Hf);
        let mut before = model.checkpoint().config().value().clone();
        if model.topology().prediction_layers > 0 {
            before["num_nextn_predict_layers"] = 0.into();
        }
        assert_eq!(before, *cut.model.checkpoint().config().value());
    }
}
