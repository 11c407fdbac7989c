//! Law 4: our forward pass is Hugging Face transformers' (f32, ≤ 1e-4).

use candle_core::{Device, Tensor};
use prune_tests::{at_most, logits, worst, Golden};
use router_stats::family::Keep;
use router_stats::forward::Event;

#[test]
fn logits_are_those_of_transformers() {
    for golden in Golden::all() {
        let ours = logits(&golden.model, &golden.sequences(), None);
        let what = format!("{} logits", golden.family);
        at_most(1e-4, worst(&ours, &golden.tensors["logits_f64"]), &what);
    }
}

#[test]
fn the_residual_stream_is_the_same_at_every_depth() {
    for golden in Golden::all() {
        let (model, sequences) = (&golden.model, golden.sequences());
        let all = 0..sequences.len();
        let batch = model.batch(&sequences, all.clone()).unwrap();
        let embedding = model.embedding().unwrap();
        let mut hidden = model.embed(&embedding, &sequences, all).unwrap();
        let expected = &golden.tensors["hidden_states"];
        assert_eq!(expected.dim(0).unwrap(), golden.layers() + 1);
        for depth in 0..=golden.layers() {
            let what = format!("{} hidden states at depth {depth}", golden.family);
            at_most(1e-4, worst(&hidden, &expected.get(depth).unwrap()), &what);
            if depth < golden.layers() {
                let block = model.block(depth).unwrap();
                hidden = block
                    .forward(&hidden, &batch, None, &mut |_| Ok(()))
                    .unwrap();
            }
        }
    }
}

#[test]
fn routers_choose_the_same_experts_with_the_same_gates() {
    for golden in Golden::all() {
        let (model, sequences) = (&golden.model, golden.sequences());
        let all = 0..sequences.len();
        let batch = model.batch(&sequences, all).unwrap();
        let hidden = &golden.tensors["hidden_states"];
        let mut routed = 0;
        for layer in 0..golden.layers() {
            // From the golden input, so that a layer answers for itself alone.
            let input = hidden.get(layer).unwrap().flatten_to(1).unwrap();
            let mut choice = None;
            model
                .block(layer)
                .unwrap()
                .forward(&input, &batch, None, &mut |event| {
                    if let Event::Routing { routes } = event {
                        choice = Some((routes.experts.clone(), routes.gates.clone()));
                    }
                    Ok(())
                })
                .unwrap();
            let expected = golden.tensors.get(&format!("layers.{layer}.experts"));
            assert_eq!(choice.is_some(), expected.is_some(), "layer {layer}");
            let (Some((experts, gates)), Some(expected)) = (choice, expected) else {
                continue;
            };
            let expected: Vec<i64> = expected.flatten_all().unwrap().to_vec1().unwrap();
            let experts: Vec<i64> = experts.into_iter().map(i64::from).collect();
            assert_eq!(experts, expected, "{} layer {layer}", golden.family);
            let count = gates.len();
            let gates = Tensor::from_vec(gates, count, &Device::Cpu).unwrap();
            let difference = worst(&gates, &golden.tensors[&format!("layers.{layer}.gates")]);
            let what = format!("{} gates of layer {layer}", golden.family);
            at_most(1e-5, difference, &what);
            routed += 1;
        }
        assert_eq!(
            routed,
            model
                .topology()
                .experts()
                .iter()
                .filter(|&&n| n > 0)
                .count()
        );
    }
}

#[test]
fn masked_experts_are_those_transformers_would_not_choose() {
    for golden in Golden::all() {
        let pruned = golden.file("golden_pruned");
        let mut keep = Keep::all(golden.model.topology());
        for (layer, kept) in keep.experts.iter_mut().enumerate() {
            if let Some(golden) = pruned.get(&format!("layers.{layer}.kept")) {
                let golden: Vec<i64> = golden.to_vec1().unwrap();
                *kept = golden.into_iter().map(|expert| expert as usize).collect();
            }
        }
        assert!(!keep.is_identity(golden.model.topology()));
        let ours = logits(&golden.model, &golden.sequences(), Some(&keep));
        let what = format!("{} masked logits", golden.family);
        at_most(1e-4, worst(&ours, &pruned["logits"]), &what);
        // The mask does something: the whole model is farther away.
        assert!(worst(&ours, &golden.tensors["logits"]) > 1e-2);
    }
}
