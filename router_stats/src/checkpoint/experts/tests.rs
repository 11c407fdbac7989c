use super::*;
use crate::checkpoint::testing::{self, Stored as File};
use crate::family::{RouterRule, FAMILIES};

const E: usize = 3;

fn names() -> &'static Names {
    FAMILIES[0].names()
}

fn spec(intermediate: usize) -> MoeSpec {
    let router = RouterRule::softmax(2, true);
    MoeSpec {
        experts: E,
        intermediate,
        router,
        shared: None,
    }
}

/// A value of its own, exact in every dtype, for each element of a matrix.
fn matrix(expert: usize, projection: Projection, elements: usize) -> Vec<f32> {
    let first = (expert * 3 + projection as usize) * elements;
    (first..first + elements)
        .map(|i| i as f32 * 0.5 - 8.0)
        .collect()
}

fn mirrored(values: &[f32], columns: usize) -> Vec<f32> {
    (0..columns)
        .flat_map(|c| values.iter().skip(c).step_by(columns).copied())
        .collect()
}

/// The tensors of layer 1 in a layout.
fn files(layout: Layout, dtype: Dtype, hidden: usize, width: usize) -> Vec<File> {
    let elements = hidden * width;
    let Layout::Stacked { transposed } = layout else {
        if layout == Layout::Stacks {
            return Projection::ALL
                .map(|p| stack(p, dtype, hidden, width))
                .to_vec();
        }
        let each = (0..E).flat_map(|expert| Projection::ALL.map(|p| (expert, p)));
        return each
            .map(|(expert, p)| {
                let shape = if p == Projection::Down {
                    [hidden, width]
                } else {
                    [width, hidden]
                };
                testing::tensor(
                    &names().expert(1, expert, p),
                    dtype,
                    &shape,
                    &matrix(expert, p, elements),
                )
            })
            .collect();
    };
    let (mut gate_up, mut down) = (Vec::new(), Vec::new());
    for expert in 0..E {
        let [gate, up, last] = Projection::ALL.map(|p| matrix(expert, p, elements));
        let both = [gate, up].concat();
        gate_up.extend(if transposed {
            mirrored(&both, hidden)
        } else {
            both
        });
        down.extend(if transposed {
            mirrored(&last, width)
        } else {
            last
        });
    }
    let (gate_up_shape, down_shape) = if transposed {
        ([E, hidden, 2 * width], [E, width, hidden])
    } else {
        ([E, 2 * width, hidden], [E, hidden, width])
    };
    vec![
        testing::tensor(
            &names().in_block(1, names().stacked_gate_up),
            dtype,
            &gate_up_shape,
            &gate_up,
        ),
        testing::tensor(
            &names().in_block(1, names().stacked_down),
            dtype,
            &down_shape,
            &down,
        ),
    ]
}

/// One projection of all experts.
fn stack(p: Projection, dtype: Dtype, hidden: usize, width: usize) -> File {
    let [rows, columns] = match p {
        Projection::Down => [hidden, width],
        Projection::Gate | Projection::Up => [width, hidden],
    };
    let values: Vec<f32> = (0..E)
        .flat_map(|it| matrix(it, p, rows * columns))
        .collect();
    let name = names().in_block(1, &names().stack(p));
    testing::tensor(&name, dtype, &[E, rows, columns], &values)
}

fn checkpoint(files: &[File]) -> (tempfile::TempDir, Checkpoint) {
    let dir = tempfile::tempdir().unwrap();
    testing::write(dir.path(), "{}", files);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    (dir, checkpoint)
}

fn open_error(files: &[File], hidden: usize, width: usize) -> Error {
    let (_dir, checkpoint) = checkpoint(files);
    ExpertReader::open(&checkpoint, names(), 1, &spec(width), hidden).unwrap_err()
}

const LAYOUTS: [Layout; 4] = [
    Layout::Stacks,
    Layout::PerExpert,
    Layout::Stacked { transposed: false },
    Layout::Stacked { transposed: true },
];

#[test]
fn every_layout_reads_the_same_experts() {
    // H = 2I and H = I are the ambiguous orientations.
    for (hidden, width) in [(6, 2), (4, 2), (2, 2), (2, 6)] {
        for (layout, dtype) in LAYOUTS
            .into_iter()
            .flat_map(|l| [Dtype::BF16, Dtype::F16, Dtype::F32].map(|d| (l, d)))
        {
            let (_dir, checkpoint) = checkpoint(&files(layout, dtype, hidden, width));
            let reader = ExpertReader::open(&checkpoint, names(), 1, &spec(width), hidden).unwrap();
            assert_eq!(reader.layout(), layout);
            assert_eq!(reader.element(Projection::Down), dtype.into());
            let elements = hidden * width;
            for expert in 0..E {
                let (mut gate_up, mut down) = (vec![0.0; 2 * elements], vec![0.0; elements]);
                reader.read_f32(expert, &mut gate_up, &mut down).unwrap();
                let read = [&gate_up[..elements], &gate_up[elements..], &down[..]];
                for (p, read) in Projection::ALL.into_iter().zip(read) {
                    let expected = matrix(expert, p, elements);
                    assert_eq!(read, expected, "{layout:?} {dtype} {expert} {p:?}");
                    let raw = reader.raw(expert, p).unwrap();
                    assert_eq!(*raw, *testing::tensor("", dtype, &[], &expected).3);
                    let transposed = layout == Layout::Stacked { transposed: true };
                    assert_eq!(matches!(raw, Cow::Owned(_)), transposed);
                }
            }
        }
    }
}

#[test]
fn a_missing_expert_is_named_with_its_shape() {
    let mut files = files(Layout::PerExpert, Dtype::BF16, 4, 3);
    files.remove(5);
    match open_error(&files, 4, 3) {
        Error::MissingTensor {
            tensor, expected, ..
        } => {
            assert_eq!(tensor, "model.layers.1.mlp.experts.1.down_proj.weight");
            assert_eq!(expected, "[4, 3]");
        }
        other => panic!("{other}"),
    }
    assert!(matches!(open_error(&[], 4, 3), Error::MissingTensor { .. }));
}

#[test]
fn a_missing_half_of_a_stack_is_named() {
    let mut files = files(Layout::Stacked { transposed: true }, Dtype::BF16, 4, 3);
    files.pop();
    match open_error(&files, 4, 3) {
        Error::MissingTensor { tensor, .. } => {
            assert_eq!(tensor, "model.layers.1.mlp.experts.down_proj");
        }
        other => panic!("{other}"),
    }
}

#[test]
fn wrong_shapes_are_named() {
    for layout in LAYOUTS {
        // The configuration says width 5, the tensors have 3.
        let files = files(layout, Dtype::BF16, 4, 3);
        assert!(
            matches!(open_error(&files, 4, 5), Error::Shape { .. }),
            "{layout:?}"
        );
        assert!(
            matches!(open_error(&files, 6, 3), Error::Shape { .. }),
            "{layout:?}"
        );
    }
}

#[test]
fn orientations_must_agree() {
    let mut mixed = files(Layout::Stacked { transposed: true }, Dtype::BF16, 4, 3);
    mixed[1] = files(Layout::Stacked { transposed: false }, Dtype::BF16, 4, 3).remove(1);
    match open_error(&mixed, 4, 3) {
        Error::Shape {
            tensor,
            expected,
            found,
            ..
        } => {
            assert!(tensor.ends_with("down_proj"));
            assert_eq!((expected, found), (vec![E, 3, 4], vec![E, 4, 3]));
        }
        other => panic!("{other}"),
    }
}

#[test]
fn dtypes_must_agree_and_be_floats() {
    let mut mixed = files(Layout::PerExpert, Dtype::BF16, 4, 3);
    mixed[4] = files(Layout::PerExpert, Dtype::F16, 4, 3).remove(4);
    match open_error(&mixed, 4, 3) {
        Error::MixedDtypes {
            tensor,
            expected,
            found,
            ..
        } => {
            assert_eq!(tensor, "model.layers.1.mlp.experts.1.up_proj.weight");
            assert_eq!((&expected[..], &found[..]), ("BF16", "F16"));
        }
        other => panic!("{other}"),
    }
    let mut integers = files(Layout::Stacked { transposed: false }, Dtype::F32, 4, 3);
    integers.iter_mut().for_each(|file| file.1 = Dtype::I32);
    assert!(matches!(open_error(&integers, 4, 3), Error::Dtype { found, .. } if found == "I32"));
}

#[test]
fn a_weight_that_is_not_finite_is_found_where_it_is_stored() {
    for layout in LAYOUTS {
        for bad in 0..36 {
            let mut files = files(layout, Dtype::BF16, 4, 3);
            // Element `bad` of the expert 2 that `position` belongs to.
            let (file, element) = match layout {
                Layout::PerExpert => (6 + bad / 12, bad % 12),
                Layout::Stacks => (bad / 12, 2 * 12 + bad % 12),
                Layout::Stacked { .. } if bad < 24 => (0, 2 * 24 + bad),
                Layout::Stacked { .. } => (1, 2 * 12 + bad - 24),
            };
            files[file].3[2 * element..2 * element + 2].copy_from_slice(&[0x80, 0xff]);
            let (_dir, checkpoint) = checkpoint(&files);
            let reader = ExpertReader::open(&checkpoint, names(), 1, &spec(3), 4).unwrap();
            let (mut gate_up, mut down) = (vec![0.0; 24], vec![0.0; 12]);
            reader.read_f32(1, &mut gate_up, &mut down).unwrap();
            match reader.read_f32(2, &mut gate_up, &mut down).unwrap_err() {
                Error::NonFinite {
                    tensor,
                    index,
                    value,
                    ..
                } => {
                    assert_eq!((&tensor, index), (&files[file].0, element), "{layout:?}");
                    assert_eq!(value, f32::NEG_INFINITY);
                }
                other => panic!("{other}"),
            }
        }
    }
}

#[test]
fn experts_and_buffers_that_do_not_fit_are_refused() {
    let (_dir, checkpoint) = checkpoint(&files(Layout::PerExpert, Dtype::BF16, 4, 3));
    let reader = ExpertReader::open(&checkpoint, names(), 1, &spec(3), 4).unwrap();
    assert!(matches!(
        reader.raw(E, Projection::Up),
        Err(Error::Structure { .. })
    ));
    let short = reader.read_f32(0, &mut [0.0; 23], &mut [0.0; 12]);
    assert!(matches!(short, Err(Error::Structure { .. })));
}

const FP8: &str =
    r#"{"quantization_config": {"quant_method": "fp8", "weight_block_size": [2, 4]}}"#;

/// fp8 experts of H = 6 and I = 3, every code 1.5, with the scales of each
/// matrix counted up from a quarter.
fn fp8_files() -> Vec<File> {
    let mut all = Vec::new();
    for mut weight in files(Layout::PerExpert, Dtype::F32, 6, 3) {
        let blocks = [weight.2[0].div_ceil(2), weight.2[1].div_ceil(4)];
        let values: Vec<f32> = (1..=blocks[0] * blocks[1])
            .map(|n| n as f32 / 4.0)
            .collect();
        let name = format!("{}_scale_inv", weight.0);
        all.push(testing::tensor(&name, Dtype::F32, &blocks, &values));
        (weight.1, weight.3) = (Dtype::F8_E4M3, vec![0x3c; 18]);
        all.push(weight);
    }
    all
}

#[test]
fn fp8_experts_are_scaled_and_kept_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    testing::write(dir.path(), FP8, &fp8_files());
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let reader = ExpertReader::open(&checkpoint, names(), 1, &spec(3), 6).unwrap();
    assert_eq!(
        (reader.layout(), reader.element(Projection::Up)),
        (Layout::PerExpert, Dtype::F8_E4M3.into())
    );
    let (mut gate_up, mut down) = (vec![0.0; 36], vec![0.0; 18]);
    reader.read_f32(2, &mut gate_up, &mut down).unwrap();
    // [3, 6] in blocks of [2, 4], and [6, 3].
    let (wide, rest) = (
        [0.375, 0.375, 0.375, 0.375, 0.75, 0.75],
        [1.125, 1.125, 1.125, 1.125, 1.5, 1.5],
    );
    assert_eq!(gate_up[..18], [wide, wide, rest].concat());
    assert_eq!(gate_up[18..], gate_up[..18]);
    for (row, values) in down.chunks(3).enumerate() {
        assert_eq!(values, [0.375 * (row / 2 + 1) as f32; 3]);
    }
    assert_eq!(*reader.raw(1, Projection::Down).unwrap(), [0x3c; 18]);
}

#[test]
fn fp8_experts_without_scales_and_stacks_of_them_are_refused() {
    let refused = |files: &[File]| {
        let dir = tempfile::tempdir().unwrap();
        testing::write(dir.path(), FP8, files);
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        ExpertReader::open(&checkpoint, names(), 1, &spec(3), 6).unwrap_err()
    };
    let mut lacking = fp8_files();
    lacking.remove(8);
    match refused(&lacking) {
        Error::MissingTensor { tensor, .. } => {
            assert_eq!(
                tensor,
                "model.layers.1.mlp.experts.1.up_proj.weight_scale_inv"
            );
        }
        other => panic!("{other}"),
    }
    for transposed in [false, true] {
        let mut stack = files(Layout::Stacked { transposed }, Dtype::F32, 6, 3);
        for file in &mut stack {
            file.3.truncate(file.3.len() / 4);
            file.1 = Dtype::F8_E4M3;
        }
        let error = refused(&stack);
        assert!(error.hint().is_some());
        assert!(
            matches!(error, Error::Dtype { expected: "BF16, F16 or F32", found, .. }
            if found == "F8_E4M3")
        );
    }
}
