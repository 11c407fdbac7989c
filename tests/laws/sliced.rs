//! Law 2: a sliced model is the full one with dropped experts impossible to
//! choose and dropped layers skipped (f32, ≤ 1e-5).

use mistralrs_prune::plan::{LayerBudget, PlanOptions, ValidPlan};
use mistralrs_prune::surgery::Layout;
use prune_tests::{at_most, logits, worst, Golden};
use router_stats::family::{Keep, Projections};
use router_stats::forward::Model;
use router_stats::size::Size;

use crate::cut::{
    decide, fewer, half, layouts, with_top_k, without_experts, without_layers, writable, Cut,
};

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
        // As many experts a token as were asked for.
        assert_eq!(predicted.active_parameters, active(model));
    }
    assert_eq!(predicted.layers, model.topology().layers());
    assert_eq!(predicted.experts_per_layer, model.topology().experts());
    assert_eq!(cut.summary.tensors, model.checkpoint().names().count());
}

/// Weights that a token meets in a whole model.
fn active(model: &Model) -> u64 {
    let keep = Keep::all(model.topology());
    let size = Size::of(model.checkpoint(), model.family(), model.topology(), &keep);
    size.unwrap().active_parameters
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

#[test]
fn without_experts_of_any_layers_that_can_be_written_so() {
    let mut written = Vec::new();
    for golden in Golden::all() {
        let model = &golden.model;
        let plan = decide(model, &golden.sequences(), &half());
        let sets = writable(model);
        for layers in &sets {
            let plan = without_experts(model, &plan, layers);
            check(&golden, &plan, &format!("without experts of {layers:?}"));
        }
        written.push((golden.name, sets.len()));
    }
    // Three of four layers, of which one is dense; after the dense one, the next.
    written.retain(|&(_, sets)| sets > 0);
    assert_eq!(
        written,
        [
            ("qwen3_moe", 13),
            ("qwen3_vl_moe", 6),
            ("qwen2_moe", 5),
            ("deepseek_v2", 3),
            ("deepseek_v2_lite", 3),
            ("deepseek_v3", 3),
            ("kimi_k2", 3),
            ("glm4_moe", 3),
            ("glm4_moe_lite", 3),
        ]
    );
}

#[test]
fn with_fewer_experts_a_token() {
    for golden in Golden::all() {
        let Some(top_k) = fewer(&golden.model) else {
            assert_eq!(golden.name, "phimoe");
            continue;
        };
        let plan = decide(&golden.model, &golden.sequences(), &half());
        let plan = with_top_k(&golden.model, &plan, top_k);
        check(&golden, &plan, &format!("top {top_k}"));
    }
}
