//! Evaluation of a small checkpoint from disk, against naive f64 arithmetic.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use router_stats::checkpoint::Checkpoint;
use router_stats::progress::Silent;

use super::*;

const VOCAB: usize = 40;
const HIDDEN: usize = 16;
const EXPERTS: usize = 4;
const LAYERS: usize = 2;
const OPTIONS: EvalOptions = EvalOptions {
    batch_tokens: 64,
    resamples: 200,
    confidence: 0.95,
    seed: 3,
};

/// Writes a Mixtral checkpoint with deterministic weights.
fn write(dir: &Path, vocab: usize) {
    let config = serde_json::json!({
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "intermediate_size": 8,
        "max_position_embeddings": 64,
        "num_attention_heads": 2,
        "num_experts_per_tok": 2,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": 1,
        "num_local_experts": EXPERTS,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "vocab_size": vocab,
    });
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let mut tensors = HashMap::new();
    let mut add = |name: String, shape: &[usize], scale: f32| {
        let phase = name.bytes().map(f32::from).sum::<f32>();
        let values: Vec<f32> = (0..shape.iter().product::<usize>())
            .map(|i| scale * (i as f32 * 1.37 + phase).sin())
            .collect();
        tensors.insert(name, Tensor::from_vec(values, shape, &Device::Cpu).unwrap());
    };
    add("model.embed_tokens.weight".into(), &[vocab, HIDDEN], 1.0);
    add("lm_head.weight".into(), &[vocab, HIDDEN], 1.0);
    add("model.norm.weight".into(), &[HIDDEN], 1.0);
    for layer in 0..LAYERS {
        let block = format!("model.layers.{layer}.");
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            add(format!("{block}{norm}.weight"), &[HIDDEN], 1.0);
        }
        for (projection, rows) in [("q", HIDDEN), ("k", 8), ("v", 8), ("o", HIDDEN)] {
            add(
                format!("{block}self_attn.{projection}_proj.weight"),
                &[rows, HIDDEN],
                0.4,
            );
        }
        let moe = format!("{block}block_sparse_moe.");
        add(format!("{moe}gate.weight"), &[EXPERTS, HIDDEN], 0.7);
        for expert in 0..EXPERTS {
            for (projection, shape) in [
                ("w1", [8, HIDDEN]),
                ("w2", [HIDDEN, 8]),
                ("w3", [8, HIDDEN]),
            ] {
                add(
                    format!("{moe}experts.{expert}.{projection}.weight"),
                    &shape,
                    0.8,
                );
            }
        }
    }
    candle_core::safetensors::save(&tensors, dir.join("model.safetensors")).unwrap();
}

/// A model of this vocabulary, and the folder it lives in.
pub(crate) fn model(vocab: usize) -> (tempfile::TempDir, Model) {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), vocab);
    let checkpoint = Arc::new(Checkpoint::open(dir.path()).unwrap());
    let model = Model::open(checkpoint, &Device::Cpu).unwrap();
    (dir, model)
}

/// Sequences of 2 to 21 tokens, two domains alternating.
fn sequences() -> Sequences {
    let mut sequences = Sequences {
        tokens: Vec::new(),
        starts: vec![0],
        domains: Vec::new(),
        document: Vec::new(),
        names: vec!["code".to_owned(), "math".to_owned()],
        weights: vec![3.0, 1.0],
        documents: vec![5, 5],
        seq_len: 21,
        seed: 0,
        hash: "c0ffee".to_owned(),
    };
    for sequence in 0..10u32 {
        let tokens =
            (0..2 + (sequence * 7) % 20).map(|i| (i * i * 3 + sequence * 11) % VOCAB as u32);
        sequences.tokens.extend(tokens);
        sequences.starts.push(sequences.tokens.len());
        sequences.domains.push((sequence % 2) as u16);
        sequences.document.push(sequence / 4);
    }
    sequences
}

pub(crate) fn variant<'a>(name: &str, model: &'a Model, keep: Option<Keep>) -> Variant<'a> {
    Variant {
        name: name.to_owned(),
        model,
        keep,
    }
}

/// Expert 1 of every layer is dropped.
pub(crate) fn without_an_expert(model: &Model) -> Keep {
    let mut keep = Keep::all(model.topology());
    for experts in &mut keep.experts {
        experts.retain(|&expert| expert != 1);
    }
    keep
}

/// Softmax of every token of every sequence in f64: [tokens][V].
fn softmax(model: &Model, keep: Option<&Keep>, sequences: &Sequences) -> Vec<Vec<f64>> {
    let hidden = model.hidden_states(sequences, keep, 64, &Silent).unwrap();
    let head = model.head().unwrap();
    let logits = hidden.iter().flat_map(|batch| {
        model
            .logits(&head, batch)
            .unwrap()
            .to_vec2::<f32>()
            .unwrap()
    });
    logits
        .map(|row| {
            let weights: Vec<f64> = row.iter().map(|&z| f64::from(z).exp()).collect();
            let sum: f64 = weights.iter().sum();
            weights.into_iter().map(|w| w / sum).collect()
        })
        .collect()
}

/// Mean of `f(token, target)` over the predictions of a domain.
fn mean(sequences: &Sequences, domain: u16, f: impl Fn(usize, usize) -> f64) -> f64 {
    let (mut sum, mut count) = (0.0, 0.0);
    for sequence in (0..sequences.len()).filter(|&s| sequences.domains[s] == domain) {
        for token in sequences.starts[sequence]..sequences.starts[sequence + 1] - 1 {
            sum += f(token, sequences.tokens[token + 1] as usize);
            count += 1.0;
        }
    }
    sum / count
}

fn value(model: &Measured, metric: &str, domain: Option<&str>) -> f64 {
    model.estimate(metric, domain).unwrap().value
}

#[test]
fn a_masked_model_is_measured_as_arithmetic_says() {
    let (_dir, model) = model(VOCAB);
    let sequences = sequences();
    let keep = without_an_expert(&model);
    let reference = variant("original", &model, None);
    let variants = [
        variant("same", &model, None),
        variant("masked", &model, Some(keep.clone())),
    ];
    let report = evaluate(&reference, &variants, &sequences, &OPTIONS, &Silent).unwrap();

    let same = &report.variants[0];
    assert!(!same.masked && report.variants[1].masked);
    assert_eq!(same.fingerprint, report.reference.fingerprint);
    for metric in ["nll_change", "perplexity_change"] {
        let change = same.estimate(metric, None).unwrap();
        assert_eq!((change.value, change.interval()), (0.0, Some((0.0, 0.0))));
    }
    assert_eq!(value(same, "top1_agreement", None), 1.0);
    assert!((value(same, "overlap", None) - 1.0).abs() < 1e-5);
    assert_eq!(value(same, "kl", None), 0.0);

    let (p, q) = (
        softmax(&model, None, &sequences),
        softmax(&model, Some(&keep), &sequences),
    );
    let masked = &report.variants[1];
    let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-5, "{a} against {b}");
    let mut mixed = 0.0;
    for (domain, name, weight) in [(0, "code", 0.75), (1, "math", 0.25)] {
        let overlap =
            |token: usize, _| p[token].iter().zip(&q[token]).map(|(p, q)| p.min(*q)).sum();
        let nll = mean(&sequences, domain, |token, target| -q[token][target].ln());
        let before = mean(&sequences, domain, |token, target| -p[token][target].ln());
        close(value(masked, "nll", Some(name)), nll);
        close(value(&report.reference, "nll", Some(name)), before);
        close(
            value(masked, "perplexity_change", Some(name)),
            (nll - before).exp() - 1.0,
        );
        let divergence = |token: usize, _| {
            let terms = p[token].iter().zip(&q[token]);
            terms.map(|(p, q)| p * (p / q).ln()).sum()
        };
        close(
            value(masked, "kl", Some(name)),
            mean(&sequences, domain, divergence),
        );
        close(
            value(masked, "overlap", Some(name)),
            mean(&sequences, domain, overlap),
        );
        mixed += weight * nll;
    }
    close(value(masked, "perplexity", None), mixed.exp());
    assert!(
        (value(masked, "nll_change", None)).abs() > 1e-4,
        "the mask must matter"
    );

    let tokens: Vec<u64> = report
        .provenance
        .domains
        .iter()
        .map(|domain| domain.tokens)
        .collect();
    assert_eq!(
        tokens.iter().sum::<u64>() as usize,
        sequences.tokens.len() - sequences.len()
    );
}

#[test]
fn batches_and_company_do_not_matter() {
    let (_dir, model) = model(VOCAB);
    let (_other, other) = self::model(VOCAB);
    let sequences = sequences();
    let reference = variant("original", &model, None);
    let masked = variant("masked", &model, Some(without_an_expert(&model)));
    let run = |variants: &[Variant<'_>], batch_tokens| {
        let options = EvalOptions {
            batch_tokens,
            ..OPTIONS
        };
        evaluate(&reference, variants, &sequences, &options, &Silent).unwrap()
    };
    let alone = run(std::slice::from_ref(&masked), 1);
    let company = run(&[variant("copy", &other, None), masked], 1000);
    for metric in ["nll", "nll_change", "overlap"] {
        let (a, b) = (&alone.variants[0], &company.variants[1]);
        assert!((value(a, metric, None) - value(b, metric, None)).abs() < 1e-5);
    }
    assert_eq!(value(&company.variants[0], "nll_change", None), 0.0);
    let nobody = run(&[], 64);
    assert!(
        (value(&nobody.reference, "nll", None) - value(&alone.reference, "nll", None)).abs() < 1e-5
    );
    assert!(nobody.variants.is_empty());
}

#[test]
fn what_cannot_be_evaluated_is_refused_first() {
    let (_dir, model) = model(VOCAB);
    let (_larger, larger) = self::model(VOCAB + 1);
    let reference = variant("original", &model, None);
    let error = |variants: &[Variant<'_>], sequences: &Sequences, options: &EvalOptions| {
        evaluate(&reference, variants, sequences, options, &Silent)
            .unwrap_err()
            .to_string()
    };
    let text = sequences();
    let twice = variant("original", &model, None);
    assert!(error(&[twice], &text, &OPTIONS).contains("model `original`"));
    let foreign = variant("larger", &larger, None);
    assert!(error(&[foreign], &text, &OPTIONS)
        .contains("a vocabulary of 40 as in `original`, found 41"));
    let mut unknown = sequences();
    unknown.tokens[3] = VOCAB as u32;
    assert!(error(&[], &unknown, &OPTIONS).contains("found 40 in sequence 1"));
    let weightless = Sequences {
        weights: vec![0.0, 0.0],
        ..sequences()
    };
    assert!(error(&[], &weightless, &OPTIONS).contains("a domain of positive weight"));
    let certain = EvalOptions {
        confidence: 1.0,
        ..OPTIONS
    };
    assert!(error(&[], &text, &certain).contains("confidence: expected a number between 0 and 1"));
}

#[test]
fn variants_that_come_one_by_one_are_measured_as_together() {
    let (_dir, model) = model(VOCAB);
    let sequences = sequences();
    let reference = variant("original", &model, None);
    let variants = [
        variant("masked", &model, Some(without_an_expert(&model))),
        variant("same", &model, None),
    ];
    let together = evaluate(&reference, &variants, &sequences, &OPTIONS, &Silent).unwrap();
    let mut evaluation = Evaluation::new(&reference, &sequences, &OPTIONS, &Silent).unwrap();
    // The reference's own sums do not depend on what was measured before.
    let alone = evaluation.report(Vec::new(), &Silent).unwrap();
    assert_eq!(alone.reference, together.reference);
    for (variant, expected) in variants.iter().zip(&together.variants) {
        let measured = evaluation.measure(variant, &Silent).unwrap();
        let report = evaluation.report(vec![measured], &Silent).unwrap();
        assert_eq!(report.variants[0], *expected);
        assert_eq!(report.reference, together.reference);
    }
}
