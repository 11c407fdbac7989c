mod large;

use std::time::{Duration, Instant};

use router_stats::family::Topology;
use safetensors::Dtype;

use super::*;
use crate::memory::{Overhead, Serving, Traffic};
use crate::plan::fixture::{self, Stored};
use crate::plan::{MemoryBudget, PlanOptions};
use crate::surgery::{UqffDevice, UqffWeights};
use crate::Error;

fn serving(topology: &Topology) -> Serving<'_> {
    Serving {
        topology,
        traffic: Traffic {
            sequences: 1,
            tokens: 16,
        },
        device: UqffDevice::Cpu,
        float: Dtype::F32,
        overhead: Overhead {
            program: 1000,
            engine: 1000,
        },
        threads: 2,
    }
}

fn budget(bytes: u64, weights: Vec<UqffWeights>) -> MemoryBudget {
    MemoryBudget {
        bytes,
        sequences: 1,
        tokens: Some(16),
        weights,
    }
}

fn found(bytes: u64, weights: Vec<UqffWeights>) -> crate::Result<Vec<Cell>> {
    let fixture = fixture::model(Stored::PerExpert);
    let stats = fixture::stats(&fixture.checkpoint.fingerprint().unwrap());
    let options = PlanOptions::default();
    cells(&Question {
        stats: &stats,
        checkpoint: &fixture.checkpoint,
        family: fixture.family,
        options: &options,
        budget: &budget(bytes, weights),
        serving: serving(&fixture.topology),
    })
}

#[test]
fn with_room_for_everything_nothing_goes() {
    let cells = found(1 << 30, Vec::new()).unwrap();
    let best = &promising(cells)[0];
    assert!(best.is_whole());
    assert_eq!(best.weights(), "as they are");
    let plan = best.plan.plan();
    assert_eq!(plan.method.asked.flags(), ["--fit 1GiB"]);
    assert_eq!(plan.method.asked.fit.unwrap().predicted, best.memory.peak());
}

#[test]
fn every_cell_fits_and_keeps_as_many_experts_as_can_be() {
    let floats = vec![UqffWeights::Float];
    let whole = found(1 << 30, floats.clone()).unwrap()[0].memory.peak();
    let cells = found(whole - 1, floats.clone()).unwrap();
    assert!(cells.len() >= 2, "{}", cells.len());
    for cell in &cells {
        assert!(cell.memory.peak() < whole);
        assert!(!cell.is_whole());
    }
    // One expert of each layer is more than the byte that was missing.
    let kept = &cells[0].plan.keep().experts;
    assert_eq!(kept[0].len(), 5);
    let error = found(100, floats).unwrap_err();
    assert!(matches!(error, Error::FitTooSmall { smallest, .. } if smallest > 100));
    assert!(error.is_usage() && error.hint().unwrap().contains("--max-seqs"));
}

#[test]
fn the_best_that_removes_nothing_is_always_measured() {
    let mut cells = found(1 << 30, Vec::new()).unwrap();
    let whole = cells.iter().position(Cell::is_whole).unwrap();
    let mut other = cells.iter().find(|cell| !cell.is_whole()).unwrap().clone();
    other.estimate = -1.0;
    let whole = cells.remove(whole);
    let mut many = vec![other; MEASURED + 3];
    many.push(whole);
    let chosen = promising(many);
    assert_eq!(chosen.len(), MEASURED);
    assert!(chosen.iter().any(Cell::is_whole));
}

#[allow(clippy::print_stdout, reason = "a figure of the documentation")]
fn print(cells: usize, took: Duration) {
    println!("{cells} cells in {:.2} s", took.as_secs_f64());
}

/// 48 layers of 128 experts, as Qwen3-30B-A3B has them, with statistics: the
/// search itself, without running the model.
#[test]
fn a_large_model_is_searched_in_seconds() {
    let large = large::model(48, 128);
    let options = PlanOptions::default();
    let topology = &large.topology;
    // All of it takes more than six.
    let budget = budget(5_000_000, Vec::new());
    let started = Instant::now();
    let cells = cells(&Question {
        stats: &large.stats,
        checkpoint: &large.checkpoint,
        family: large.family,
        options: &options,
        budget: &budget,
        serving: serving(topology),
    })
    .unwrap();
    let took = started.elapsed();
    print(cells.len(), took);
    assert!(!cells.is_empty());
    assert!(took.as_secs() < 10, "{took:?}");
}
