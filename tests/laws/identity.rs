//! Law 1: a plan that keeps everything reproduces every tensor bit for bit.

use mistralrs_prune::plan::PlanOptions;
use mistralrs_prune::surgery::Layout;
use prune_tests::{demo, logits, open, ragged, worst, Golden};
use router_stats::checkpoint::Checkpoint;
use router_stats::forward::Model;

use crate::cut::{decide, Cut};

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

fn assert_same_tensors(left: &Checkpoint, right: &Checkpoint) {
    assert!(left.names().eq(right.names()));
    for tensor in left.tensors() {
        let other = right.tensor(tensor.name).unwrap();
        assert_eq!(tensor.dtype, other.dtype, "{}", tensor.name);
        assert_eq!(tensor.shape, other.shape, "{}", tensor.name);
        assert!(tensor.data == other.data, "{}: bits differ", tensor.name);
    }
}

#[test]
fn the_hf_layout_of_everything_is_the_original() {
    for model in models() {
        let cut = identity(&model, Layout::Hf);
        assert_same_tensors(model.checkpoint(), cut.model.checkpoint());
        assert_eq!(cut.summary.bytes, model.checkpoint().bytes());
        assert_eq!(cut.model.topology(), model.topology());
    }
}

#[test]
fn the_way_to_the_engine_s_layout_and_back_changes_no_bit() {
    for model in models() {
        let engine = identity(&model, Layout::Engine);
        let stacked = !engine
            .model
            .checkpoint()
            .names()
            .eq(model.checkpoint().names());
        let expected = model.family().serving(model.topology()).layout().unwrap();
        assert_eq!(stacked, expected.stacked);
        let sequences = ragged(&[9, 4], 259, 1);
        let ours = logits(&engine.model, &sequences, None);
        assert_eq!(worst(&ours, &logits(&model, &sequences, None)), 0.0);
        let back = Cut::convert(&engine.model, Layout::Hf);
        assert_same_tensors(model.checkpoint(), back.model.checkpoint());
    }
}

#[test]
fn keys_of_the_configuration_survive() {
    for model in models() {
        let cut = identity(&model, Layout::Hf);
        let (before, after) = (
            model.checkpoint().config().value(),
            cut.model.checkpoint().config().value(),
        );
        assert_eq!(before, after);
    }
}
