//! Law 2: a sliced model is the full one with dropped experts impossible to
//! choose and dropped layers skipped (f32, ≤ 1e-5).

use mistralrs_prune::plan::{LayerBudget, PlanOptions, ValidPlan};
use mistralrs_prune::surgery::Layout;
use prune_tests::{at_most, logits, worst, Golden};
use router_stats::family::Projections;
use router_stats::forward::Model;

use crate::cut::{decide, half, layouts, without_layers, Cut};

fn check(golden: &Golden, plan: &ValidPlan, what: &str) {
    let sequences = golden.sequences();
    let masked = logits(&golden.model, &sequences, Some(plan.keep()));
    // It is another model than the original.
    assert!(worst(&masked, &golden.tensors["logits"]) > 1e-2);
    for layout in layouts(&golden.model) {
        let cut = Cut::new(&golden.model, plan, layout);
        let sliced = logits(&cut.model, &sequences, None);
        let what = format!("{} {what}, {layout}", golden.name);
        at_most(1e-5, worst(&sliced, &masked), &what);
        check_size(plan, &cut, layout);
    }
}

/// What the plan predicted is what is there.
fn check_size(plan: &ValidPlan, cut: &Cut, layout: Layout) {
    let (predicted, model) = (&plan.plan().after, &cut.model);
    assert_eq!(cut.summary.bytes, model.checkpoint().bytes());
    assert_eq!(cut.summary.bytes, bytes_on_disk(model));
    let attention = &model.topology().attention.projections;
    // The engine's copy of latent attention has zeros that no plan counts.
    if layout == Layout::Hf || matches!(attention, Projections::Grouped(_)) {
        assert_eq!(predicted.bytes, cut.summary.bytes);
        let parameters = model.topology().parameters(model.family().names());
        let tensors = model.checkpoint().tensors();
        let vision = tensors.filter(|tensor| tensor.name.starts_with("model.visual."));
        let vision: usize = vision.map(|tensor| tensor.elements()).sum();
        assert_eq!(predicted.parameters, parameters + vision as u64);
    }
    assert_eq!(predicted.layers, model.topology().layers());
    assert_eq!(predicted.experts_per_layer, model.topology().experts());
    assert_eq!(cut.summary.tensors, model.checkpoint().names().count());
}

/// Bytes of the weight files without their headers.
fn bytes_on_disk(model: &Model) -> u64 {
    let files = std::fs::read_dir(model.checkpoint().dir()).unwrap();
    let weights = files.map(|file| file.unwrap().path()).filter(|path| {
        path.extension()
            .is_some_and(|suffix| suffix == "safetensors")
    });
    weights
        .map(|path| {
            let bytes = std::fs::read(path).unwrap();
            let header = u64::from_le_bytes(bytes[..8].try_into().unwrap());
            bytes.len() as u64 - 8 - header
        })
        .sum()
}

#[test]
fn half_of_the_experts() {
    for golden in Golden::all() {
        let plan = decide(&golden.model, &golden.sequences(), &half());
        check(&golden, &plan, "half of the experts");
    }
}

#[test]
fn half_of_the_experts_and_a_layer() {
    for golden in Golden::all() {
        let options = PlanOptions {
            drop_layers: Some(LayerBudget::Count(1)),
            ..half()
        };
        let plan = decide(&golden.model, &golden.sequences(), &options);
        assert_eq!(plan.keep().layers.len(), golden.layers() - 1);
        check(&golden, &plan, "half of the experts and a layer");
    }
}

#[test]
fn any_one_layer() {
    for golden in Golden::all() {
        let whole = decide(&golden.model, &golden.sequences(), &PlanOptions::default());
        for layer in 0..golden.layers() {
            let plan = without_layers(&golden.model, &whole, &[layer]);
            check(&golden, &plan, &format!("without layer {layer}"));
        }
    }
}
