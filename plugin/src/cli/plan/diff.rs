//! `plan diff`: how two plans for one model differ.

use std::path::PathBuf;

use crate::cli::inspect::{self, compared};
use crate::cli::output;
use crate::cli::table::Table;
use crate::pipeline::plan_name;
use crate::plan::{self, diff, Difference, LayerDifference, Plan, Relation};

/// Arguments of `plan diff`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// First plan
    #[arg(value_name = "A")]
    first: PathBuf,

    /// Second plan
    #[arg(value_name = "B")]
    second: PathBuf,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs `plan diff`.
pub(super) fn execute(args: &Args) -> anyhow::Result<()> {
    let (first, second) = (plan::read(&args.first)?, plan::read(&args.second)?);
    let found = diff(&first, &second, &args.second.display().to_string())?;
    if args.json {
        let paths = [&args.first, &args.second].map(|path| path.display().to_string());
        let names = [paths[0].as_str(), paths[1].as_str()];
        let json = found.describe(names, [&first, &second]);
        return Ok(output::json(&json)?);
    }
    Ok(output::data(&text(names(args), &first, &second, &found))?)
}

/// What the plans are called: by their files, or by their paths if those have
/// the same name.
fn names(args: &Args) -> [String; 2] {
    let paths = [&args.first, &args.second];
    let [first, second] = paths.map(|path| plan_name(path));
    if first == second {
        paths.map(|path| path.display().to_string())
    } else {
        [first, second]
    }
}

fn text(names: [String; 2], first: &Plan, second: &Plan, found: &Difference) -> String {
    let [a, b] = &names;
    let mut parts = vec![compared([a, b], &first.after, &second.after, &[])];
    let mut methods = Table::new(&["", a, b]).words(1).words(2);
    let mut differs = false;
    for ((what, first), (_, second)) in method(first).into_iter().zip(method(second)) {
        if first != second {
            methods.row([what.to_owned(), first, second]);
            differs = true;
        }
    }
    parts.push(if differs {
        methods.to_string()
    } else {
        "  decided in the same way".to_owned()
    });
    let different: Vec<_> = found
        .layers
        .iter()
        .filter(|layer| !layer.is_same())
        .collect();
    if !different.is_empty() {
        parts.push(layers(&names, &different));
    }
    let count: usize = different
        .iter()
        .map(|layer| layer.only_first.len() + layer.only_second.len())
        .sum();
    parts.push(match found.relation {
        Relation::Same => "  both keep the same".to_owned(),
        Relation::SecondWithinFirst => {
            format!("  {a} keeps all that {b} keeps, and {count} experts more")
        }
        Relation::FirstWithinSecond => {
            format!("  {b} keeps all that {a} keeps, and {count} experts more")
        }
        Relation::Neither => {
            let layers = different.len();
            format!("  they differ in {count} experts of {layers} layers, and neither keeps all that the other does")
        }
    });
    parts.join("\n\n")
}

/// How a plan was decided, fact by fact.
fn method(plan: &Plan) -> Vec<(&'static str, String)> {
    let method = &plan.method;
    let weights: Vec<String> = plan.stats.domains.iter().map(inspect::weighed).collect();
    let mut facts = vec![
        ("statistics", inspect::short(&plan.stats.hash).to_owned()),
        ("domains", weights.join(", ")),
        ("asked for", inspect::asked(plan)),
        ("criterion", method.criterion.clone()),
        ("allocation", method.allocation().to_owned()),
        ("layer criterion", method.layer_criterion.clone()),
        ("seed", method.seed.to_string()),
    ];
    let constraints = &method.constraints;
    let super_experts = constraints.super_experts.as_deref();
    facts.extend([
        (
            "super experts",
            super_experts.map_or_else(|| "not protected".to_owned(), inspect::ids),
        ),
        ("protected", inspect::ids(&constraints.protected)),
    ]);
    facts
}

fn layers(names: &[String; 2], different: &[&LayerDifference]) -> String {
    let [a, b] = names;
    let (only_a, only_b) = (format!("only {a}"), format!("only {b}"));
    let mut table = Table::new(&["layer", a, b, &only_a, &only_b])
        .words(3)
        .words(4);
    for layer in different {
        let kept = |index: usize| match layer.fate[index] {
            Some(fate) if layer.kept[index] == 0 => fate.to_owned(),
            Some(fate) => format!("{} ({fate})", layer.kept[index]),
            None => layer.kept[index].to_string(),
        };
        // Of experts that all go, no list is needed.
        let all_go = |plan: usize| layer.dropped[plan] || layer.skipped[plan].mlp;
        let list = |experts: &[usize]| match all_go(0) || all_go(1) {
            true => String::new(),
            false => {
                let experts: Vec<String> = experts.iter().map(ToString::to_string).collect();
                experts.join(" ")
            }
        };
        table.row([
            layer.layer.to_string(),
            kept(0),
            kept(1),
            list(&layer.only_first),
            list(&layer.only_second),
        ]);
    }
    table.to_string()
}
