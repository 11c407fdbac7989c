//! Law 4: our forward pass is Hugging Face transformers' (f32, ≤ 1e-4).

use candle_core::{Device, Tensor};
use prune_tests::{at_most, logits, worst, Golden};
use router_stats::family::{Part, Role, SCALE_SUFFIX};
use router_stats::forward::Event;

#[test]
fn logits_are_those_of_transformers() {
    for golden in Golden::all() {
        let ours = logits(&golden.model, &golden.sequences(), None);
        let what = format!("{} logits", golden.name);
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
            let what = format!("{} hidden states at depth {depth}", golden.name);
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
            assert_eq!(experts, expected, "{} layer {layer}", golden.name);
            let count = gates.len();
            let gates = Tensor::from_vec(gates, count, &Device::Cpu).unwrap();
            let difference = worst(&gates, &golden.tensors[&format!("layers.{layer}.gates")]);
            let what = format!("{} gates of layer {layer}", golden.name);
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
        let (pruned, keep) = (golden.file("golden_pruned"), golden.kept());
        assert!(!keep.is_identity(golden.model.topology()));
        let ours = logits(&golden.model, &golden.sequences(), Some(&keep));
        let what = format!("{} masked logits", golden.name);
        at_most(1e-4, worst(&ours, &pruned["logits"]), &what);
        // The mask does something: the whole model is farther away.
        assert!(worst(&ours, &golden.tensors["logits"]) > 1e-2);
    }
}

#[test]
fn long_sequences_turn_at_other_frequencies() {
    let long = Golden::open("phimoe_long");
    let ours = logits(&long.model, &long.sequences(), None);
    at_most(
        1e-4,
        worst(&ours, &long.tensors["logits_f64"]),
        "phimoe_long logits",
    );
    let short = Golden::open("phimoe");
    assert_eq!(short.sequences().tokens, long.sequences().tokens);
    assert!(worst(&ours, &short.tensors["logits"]) > 1e-2);
}

#[test]
fn checkpoints_hold_what_their_structure_says() {
    for golden in Golden::all() {
        let (checkpoint, topology) = (golden.model.checkpoint(), golden.model.topology());
        let names = golden.model.family().names();
        let stacked = golden.model.family().stacks_experts();
        let mut expected: Vec<_> = topology
            .tensors(names)
            .into_iter()
            .map(|t| t.name)
            .collect();
        for tensor in topology.tensors(names) {
            match names.role(&tensor.name) {
                Role::Block {
                    part: Part::Expert { .. },
                    ..
                } if stacked => {}
                _ => assert_eq!(checkpoint.tensor(&tensor.name).unwrap().shape, tensor.shape),
            }
        }
        expected.sort_unstable();
        let stored = checkpoint.names().filter(|name| match names.role(name) {
            Role::Global => !name.starts_with("model.visual."),
            Role::Block { layer, part } => {
                let scales = name.ends_with(SCALE_SUFFIX);
                let whole = matches!(part, Part::StackedGateUp | Part::StackedDown);
                !topology.predicts(layer) && !scales && !whole
            }
        });
        if stacked {
            expected.retain(|name| {
                !matches!(
                    names.role(name),
                    Role::Block {
                        part: Part::Expert { .. },
                        ..
                    }
                )
            });
        }
        assert!(
            stored.eq(expected.iter().map(String::as_str)),
            "{}",
            golden.name
        );
    }
}
