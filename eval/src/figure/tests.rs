//! What every figure must be.

use proptest::prelude::*;

use super::*;
use crate::compare::Estimate;

fn estimate(value: f64, width: f64) -> Estimate {
    Estimate {
        value,
        low: Some(value - width),
        high: Some(value + width),
    }
}

/// One of each, of arbitrary numbers and one arbitrary name.
fn plots(values: &[f64], name: &str) -> Vec<Box<dyn Plot>> {
    let at = |index: usize| values[index % values.len()];
    let width = |index: usize| at(index).abs() * 0.1;
    let (layers, experts) = (3, 5);
    let fates = |layer: usize| -> Vec<Fate> {
        (0..experts)
            .map(|expert| [Fate::Kept, Fate::Dropped, Fate::Protected][(layer + expert) % 3])
            .collect()
    };
    vec![
        Box::new(Heatmap {
            criterion: name.to_owned(),
            layers: (0..layers)
                .map(|layer| HeatmapLayer {
                    layer,
                    dropped: layer == 1,
                    scores: (0..experts)
                        .map(|expert| at(layer * experts + expert))
                        .collect(),
                    fates: fates(layer),
                })
                .collect(),
        }),
        Box::new(Load {
            text: name.to_owned(),
            layers: (0..layers)
                .map(|layer| LoadLayer {
                    layer,
                    dropped: layer == 1,
                    before: (0..experts).map(|expert| at(layer + expert)).collect(),
                    kept: fates(layer)
                        .iter()
                        .map(|fate| *fate != Fate::Dropped)
                        .collect(),
                    after: (layer != 1).then(|| (0..experts).map(at).collect()),
                })
                .collect(),
        }),
        Box::new(Influence {
            layers: (0..layers)
                .map(|layer| InfluenceLayer {
                    layer,
                    dropped: layer == 1,
                    skipped: [layer == 0, layer == 2],
                    block: at(layer),
                    parts: Some([at(layer + 1), at(layer + 2)]),
                })
                .collect(),
        }),
        Box::new(Pareto {
            name: "pareto".to_owned(),
            metric: name.to_owned(),
            unit: Unit::Change,
            lower_is_better: true,
            confidence: 0.95,
            points: (0..20)
                .map(|index| ParetoPoint {
                    name: format!("{name} {index}"),
                    series: format!("{name} {}", index % 11),
                    bytes: 1 << (3 * index),
                    value: at(index),
                    low: Some(at(index) - width(index)),
                    high: Some(at(index) + width(index)),
                    on_front: index % 3 == 0,
                })
                .collect(),
        }),
        Box::new(Domains {
            metric: name.to_owned(),
            unit: Unit::Percent,
            confidence: 0.9,
            groups: vec![Group {
                domain: name.to_owned(),
                bars: (0..3)
                    .map(|index| Bar {
                        name: name.to_owned(),
                        value: at(index),
                        low: Some(at(index) - width(index)),
                        high: Some(at(index) + width(index)),
                    })
                    .collect(),
            }],
        }),
        Box::new(Cliff {
            name: "cliff".to_owned(),
            series: name.to_owned(),
            metric: name.to_owned(),
            unit: Unit::Number,
            confidence: 0.95,
            points: (0..6)
                .map(|index| CliffPoint {
                    fraction: index as f64 / 6.0,
                    value: at(index),
                    low: Some(at(index) - width(index)),
                    high: None,
                })
                .collect(),
            breaks: Some(Break {
                fraction: 0.5,
                low: 0.4,
                high: 0.6,
            }),
            fit: vec![[0.0, at(0)], [0.5, at(1)], [0.9, at(2)]],
        }),
        Box::new(Matrix {
            name: "matrix".to_owned(),
            title: name.to_owned(),
            description: name.to_owned(),
            down: name.to_owned(),
            across: name.to_owned(),
            rows: vec![name.to_owned(), "b".to_owned()],
            columns: vec!["a".to_owned(), name.to_owned(), "c".to_owned()],
            values: (0..2)
                .map(|row| {
                    (0..3)
                        .map(|column| estimate(at(row + column), width(row + column)))
                        .collect()
                })
                .collect(),
            unit: Unit::Change,
        }),
    ]
}

/// Opening and closing tags of a document, nested correctly.
fn well_formed(xml: &str) -> bool {
    let mut open = Vec::new();
    for tag in xml.split('<').skip(1) {
        let Some((tag, text)) = tag.split_once('>') else {
            return false;
        };
        if text.contains('>') {
            return false;
        }
        let name = |tag: &str| tag.split([' ', '/']).next().unwrap_or_default().to_owned();
        if let Some(closed) = tag.strip_prefix('/') {
            if open.pop() != Some(closed.to_owned()) {
                return false;
            }
        } else if !tag.ends_with('/') {
            open.push(name(tag));
        }
    }
    open.is_empty()
}

/// Values of the attributes that hold positions and lengths.
fn geometry(svg: &str) -> Vec<&str> {
    [
        " x=\"",
        " y=\"",
        " x1=\"",
        " x2=\"",
        " y1=\"",
        " y2=\"",
        " width=\"",
        " height=\"",
        " d=\"",
        "viewBox=\"",
    ]
    .iter()
    .flat_map(|name| svg.split(name).skip(1))
    .filter_map(|rest| rest.split('"').next())
    .collect()
}

#[test]
fn a_well_formed_document_is_told_from_others() {
    assert!(well_formed("<a b=\"c\"><d/>text<e>x</e></a>"));
    for broken in ["<a>", "<a><b></a></b>", "<a>></a>", "<a"] {
        assert!(!well_formed(broken), "{broken}");
    }
}

#[test]
fn figures_differ_in_name_and_say_what_they_show() {
    let figures: Vec<Figure> = plots(&[0.1, 0.5, 0.2, 0.9], "reap")
        .iter()
        .map(|plot| Figure::new(plot.as_ref()).unwrap())
        .collect();
    let names: std::collections::BTreeSet<_> = figures.iter().map(|f| f.name.clone()).collect();
    assert_eq!(names.len(), 7);
    for figure in figures {
        assert!(!figure.title.is_empty() && figure.description.len() > 20);
        let columns = figure.table.columns.len();
        assert!(!figure.table.rows.is_empty());
        assert!(figure.table.rows.iter().all(|row| row.len() <= columns));
        let html = figure.to_html();
        assert!(html.contains("class=\"fig wide\"") && html.contains("class=\"fig narrow\""));
    }
}

#[test]
fn what_is_not_a_number_is_refused_by_name() {
    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e200] {
        for plot in plots(&[0.3, bad, 0.1], "reap") {
            let error = Figure::new(plot.as_ref()).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("figure `{}`: ", plot.name())),
                "{error}"
            );
            assert!(error.contains("expected a number up to 1e100"), "{error}");
        }
    }
}

#[test]
fn nothing_to_draw_is_refused() {
    let empty: [&dyn Plot; 4] = [
        &Heatmap {
            criterion: String::new(),
            layers: vec![],
        },
        &Load {
            text: String::new(),
            layers: vec![],
        },
        &Influence { layers: vec![] },
        &Domains {
            metric: String::new(),
            unit: Unit::Number,
            confidence: 0.95,
            groups: vec![],
        },
    ];
    for plot in empty {
        let error = Figure::new(plot).unwrap_err().to_string();
        assert!(error.ends_with("expected some, found 0"), "{error}");
    }
}

#[test]
fn an_interval_is_the_right_way_round() {
    let error = Figure::new(&Domains {
        metric: "loss".to_owned(),
        unit: Unit::Number,
        confidence: 0.95,
        groups: vec![Group {
            domain: "math".to_owned(),
            bars: vec![Bar {
                name: "half".to_owned(),
                value: 1.0,
                low: Some(2.0),
                high: Some(1.0),
            }],
        }],
    })
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "figure `domains`: interval of `half` on `math`: expected its lower end first, found [2, 1]"
    );
}

#[test]
fn the_front_is_what_no_smaller_model_is_as_good_as() {
    let point = |bytes, value| ParetoPoint {
        name: String::new(),
        series: String::new(),
        bytes,
        value,
        low: None,
        high: None,
        on_front: false,
    };
    let mut plot = Pareto {
        name: "pareto".to_owned(),
        metric: "loss".to_owned(),
        unit: Unit::Change,
        lower_is_better: true,
        confidence: 0.95,
        points: vec![
            point(10, 0.5),
            point(20, 0.2),
            point(20, 0.3),
            point(30, 0.2),
            point(40, 0.1),
        ],
    };
    let front = |plot: &Pareto| plot.points.iter().map(|p| p.on_front).collect::<Vec<_>>();
    plot.find_front();
    assert_eq!(front(&plot), [true, true, false, false, true]);
    plot.lower_is_better = false;
    plot.find_front();
    assert_eq!(front(&plot), [true, false, false, false, false]);
}

#[test]
fn a_wide_layer_lies_down_and_a_narrow_page_turns_it() {
    let plot = Heatmap {
        criterion: "reap".to_owned(),
        layers: (0..48)
            .map(|layer| HeatmapLayer {
                layer,
                dropped: false,
                scores: (0..128).map(f64::from).collect(),
                fates: vec![],
            })
            .collect(),
    };
    assert!(!plot.draw(WIDE).grid.unwrap().transposed);
    let narrow = plot.draw(NARROW);
    assert!(narrow.grid.unwrap().transposed);
    assert!(narrow.height > 128.0 * 6.0);
    assert_eq!(plot.title(), "Saliency of the experts");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_numbers_and_names_make_a_sound_drawing(
        values in prop::collection::vec(prop_oneof![-1e99..1e99, -1.0..1.0_f64, Just(0.0), 0.0..1e-90], 1..12),
        name in "\\PC{0,40}|.{0,12}|</svg><script>|\u{0}\u{202e}]]>",
    ) {
        for plot in plots(&values, &name) {
            let figure = Figure::new(plot.as_ref()).unwrap();
            for svg in [figure.to_svg(), format!("<p>{}</p>", figure.to_html())] {
                prop_assert!(well_formed(svg.trim_end()), "{}", svg);
                prop_assert!(!svg.contains("<script"));
                for value in geometry(&svg) {
                    prop_assert!(
                        !value.contains("NaN") && !value.contains("inf") && !value.contains('e'),
                        "{}: {}", figure.name, value
                    );
                }
            }
            prop_assert!(well_formed(&figure.table.to_html()));
        }
    }
}
