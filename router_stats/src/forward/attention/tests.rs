//! Attention against transformers 5.23: the named class in f64 with
//! `num_attention_heads` etc. as the specs here, on the [`chirp`]s below.

use candle_core::Device;
use safetensors::Dtype;

use super::*;
use crate::calibration::Sequences;
use crate::checkpoint::{testing, Checkpoint};
use crate::family::{
    AttentionSpec, GroupedQuery, Latent, NormSpec, Pairs, QkNorm, RotarySpec, Scaling, Yarn,
    FAMILIES,
};

const HIDDEN: usize = 8;
/// Tokens of the sequence whose outputs are known.
const TOKENS: usize = 5;
/// Tokens of the one before it, more than latent attention takes together.
const BEFORE: usize = 2100;
/// Tokens whose outputs are compared.
const COMPARED: [usize; 2] = [1, 4];

/// A reproducible sequence without low rank when cut into rows.
fn chirp(n: usize, seed: usize) -> Vec<f32> {
    (1..=n)
        .map(|i| (0.37 * (i * i) as f64 + seed as f64).sin() as f32)
        .collect()
}

/// Runs attention with tensors of these names, sorted, and shapes on two
/// sequences and compares the outputs of the second.
fn check(spec: AttentionSpec, tensors: &[(&str, &[usize])], expected: [[f32; HIDDEN]; 2]) {
    assert!(tensors.is_sorted());
    let names = FAMILIES[0].names();
    let stored: Vec<_> = tensors
        .iter()
        .enumerate()
        .map(|(index, (name, shape))| {
            let mut values = chirp(shape.iter().product(), index + 1);
            if name.contains("norm") {
                values.iter_mut().for_each(|x| *x = 1.0 + 0.5 * *x);
            }
            let name = names.in_block(0, &format!("{}{name}", names.attention));
            testing::tensor(&name, Dtype::F32, shape, &values)
        })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    testing::write(dir.path(), "{}", &stored);
    let topology = Topology {
        hidden: HIDDEN,
        vocab: 1,
        max_positions: 64,
        norm: NormSpec::rms(1e-6),
        tied_head: false,
        head_bias: false,
        attention: spec,
        mlps: Vec::new(),
        prediction_layers: 0,
    };
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let source = Source {
        checkpoint: &checkpoint,
        device: &Device::Cpu,
        rounding: None,
        hidden: topology.hidden,
    };
    let attention = Attention::load(source, names, &topology, 0).unwrap();
    let sequences = Sequences {
        tokens: vec![0; BEFORE + TOKENS],
        starts: vec![0, BEFORE, BEFORE + TOKENS],
        domains: vec![0, 0],
        document: vec![0, 0],
        names: vec!["text".to_owned()],
        weights: vec![1.0],
        documents: vec![1],
        seq_len: BEFORE,
        seed: 0,
        hash: String::new(),
    };
    let batch = Batch::new(&sequences, 0..2, &topology.attention, &Device::Cpu).unwrap();
    let input = [chirp(BEFORE * HIDDEN, 99), chirp(TOKENS * HIDDEN, 0)].concat();
    let input = Tensor::from_vec(input, (BEFORE + TOKENS, HIDDEN), &Device::Cpu).unwrap();
    let output = attention.forward(&input, &batch).unwrap();
    let output = output.to_vec2::<f32>().unwrap();
    for (token, expected) in COMPARED.into_iter().zip(expected) {
        for (found, expected) in output[BEFORE + token].iter().zip(expected) {
            let error = (found - expected).abs() / expected.abs().max(1.0);
            assert!(error < 1e-5, "token {token}: {found} for {expected}");
        }
    }
}

fn latent(pairs: Pairs, q_rank: Option<usize>, scale: f64, scaling: Scaling) -> AttentionSpec {
    AttentionSpec {
        projections: Projections::Latent(Latent {
            heads: 2,
            q_rank,
            kv_rank: 5,
            nope_dim: 6,
            value_dim: 3,
            eps: 1e-6,
            bias: q_rank.is_some(),
        }),
        rotary: RotarySpec {
            pairs,
            scaling,
            ..RotarySpec::plain(4, 100.0)
        },
        scale,
        windows: vec![None],
    }
}

#[test]
fn latent_attention_with_query_latent_biases_and_yarn() {
    // DeepseekV3Attention, rope_interleave true and false; rope_parameters of
    // factor 4, original 16, beta_fast 2, beta_slow 0.5, mscale 1,
    // mscale_all_dim 0.5.
    let tensors: [(&str, &[usize]); 10] = [
        ("kv_a_layernorm.weight", &[5]),
        ("kv_a_proj_with_mqa.bias", &[9]),
        ("kv_a_proj_with_mqa.weight", &[9, HIDDEN]),
        ("kv_b_proj.weight", &[18, 5]),
        ("o_proj.bias", &[HIDDEN]),
        ("o_proj.weight", &[HIDDEN, 6]),
        ("q_a_layernorm.weight", &[7]),
        ("q_a_proj.bias", &[7]),
        ("q_a_proj.weight", &[7, HIDDEN]),
        ("q_b_proj.weight", &[20, 7]),
    ];
    let yarn = Scaling::Yarn(Yarn {
        factor: 4.0,
        original: 16,
        beta_fast: 2.0,
        beta_slow: 0.5,
        magnitude: 1.064_821_625_369_571_5,
    });
    let scale = 0.361_585_568_735_380_34;
    check(
        latent(Pairs::Adjacent, Some(7), scale, yarn.clone()),
        &tensors,
        [
            [
                0.158744, -1.31126, 1.61554, -1.75517, 2.04927, 3.03079, 0.603697, -1.55024,
            ],
            [
                -0.107506, -3.93056, 0.180575, 1.33526, -0.884985, 1.75009, -0.854255, -3.90902,
            ],
        ],
    );
    check(
        latent(Pairs::Halves, Some(7), scale, yarn),
        &tensors,
        [
            [
                -1.27106, -1.19548, 0.2988, 0.428437, 1.76721, 0.6294, -0.181943, -3.01058,
            ],
            [
                0.190837, -3.70625, 0.292838, 1.27356, -0.747948, 2.67754, -1.2392, -4.34973,
            ],
        ],
    );
}

#[test]
fn latent_attention_with_queries_from_the_residual_stream() {
    // DeepseekV2Attention, q_lora_rank None, rope_type default.
    check(
        latent(Pairs::Adjacent, None, 0.1f64.sqrt(), Scaling::None),
        &[
            ("kv_a_layernorm.weight", &[5]),
            ("kv_a_proj_with_mqa.weight", &[9, HIDDEN]),
            ("kv_b_proj.weight", &[18, 5]),
            ("o_proj.weight", &[HIDDEN, 6]),
            ("q_proj.weight", &[20, HIDDEN]),
        ],
        [
            [
                0.743957, -0.358452, 1.01072, 2.91901, -0.397963, -3.80089, -5.06935, -0.152184,
            ],
            [
                0.436347, -0.676093, -0.0640137, 1.02599, -0.0381369, -1.65711, -1.94703, -0.173582,
            ],
        ],
    );
}

#[test]
fn norms_over_all_heads_and_clipping() {
    // OlmoeAttention, clip_qkv 0.9.
    let query = GroupedQuery {
        qk_norm: Some(QkNorm::Whole),
        clip: Some(0.9),
        ..GroupedQuery::plain(4, 2, 2)
    };
    check(
        AttentionSpec::grouped(query, RotarySpec::plain(2, 100.0), vec![None]),
        &[
            ("k_norm.weight", &[4]),
            ("k_proj.weight", &[4, HIDDEN]),
            ("o_proj.weight", &[HIDDEN, 8]),
            ("q_norm.weight", &[8]),
            ("q_proj.weight", &[8, HIDDEN]),
            ("v_proj.weight", &[4, HIDDEN]),
        ],
        [
            [
                1.33987, -0.856276, -0.276119, 0.126583, -0.0194774, -0.446998, -0.562172,
                0.0391994,
            ],
            [
                -0.139507, -0.259719, -0.283565, 0.141392, 0.373239, -0.248297, -0.518197, 0.695445,
            ],
        ],
    );
}

#[test]
fn norms_over_heads_biases_and_partial_rotary_positions() {
    // Glm4MoeAttention, partial_rotary_factor 0.5, use_qk_norm, attention_bias.
    let query = GroupedQuery {
        qk_norm: Some(QkNorm::Head),
        qkv_bias: true,
        ..GroupedQuery::plain(4, 2, 8)
    };
    check(
        AttentionSpec::grouped(query, RotarySpec::plain(4, 100.0), vec![None]),
        &[
            ("k_norm.weight", &[8]),
            ("k_proj.bias", &[16]),
            ("k_proj.weight", &[16, HIDDEN]),
            ("o_proj.weight", &[HIDDEN, 32]),
            ("q_norm.weight", &[8]),
            ("q_proj.bias", &[32]),
            ("q_proj.weight", &[32, HIDDEN]),
            ("v_proj.bias", &[16]),
            ("v_proj.weight", &[16, HIDDEN]),
        ],
        [
            [
                -2.16993, 3.04029, 1.80648, 5.33638, -10.5945, -0.387467, -9.34434, -6.19728,
            ],
            [
                -1.16582, -1.07531, 6.8717, -0.336914, -2.90813, -0.503532, 0.506756, -2.50854,
            ],
        ],
    );
}
