//! The calibration run: every batch through every block, once, observed.

use std::ops::Range;
use std::path::PathBuf;

use candle_core::Tensor;
use rayon::prelude::*;

use super::state::{last_tokens, State};
use super::Sequences;
use crate::forward::{Batch, Block, Model, IN_FLIGHT};
use crate::observer::{self, span, Shape, Tables, OBSERVERS, SEQUENCES, TOKENS};
use crate::progress::{Progress, Update};
use crate::stats::{DomainProvenance, Provenance, Stats};
use crate::{Error, Result};

/// How to run a calibration.
#[derive(Debug, Clone)]
pub struct CalibrateOptions {
    /// Tokens that pass through a block together. More use wider matrix
    /// products and more memory.
    pub batch_tokens: usize,
    /// Folder for what a rerun continues from; `None` keeps nothing.
    pub state: Option<PathBuf>,
    /// Keep hidden states in the state folder instead of in memory.
    pub spill: bool,
    /// Run only batches `index` modulo `count`. The statistics of all shards
    /// `[0, count]` … `[count − 1, count]` merge to those of `[0, 1]`.
    pub shard: [usize; 2],
}

impl Default for CalibrateOptions {
    fn default() -> Self {
        Self {
            batch_tokens: 8192,
            state: None,
            spill: false,
            shard: [0, 1],
        }
    }
}

/// The batches of a run: which sequences, and their layout.
pub(super) type Batches = Vec<(Range<usize>, Batch)>;

/// Runs `sequences` through `model` and returns what the observers saw.
///
/// Blocks are loaded one at a time. With a state folder, the hidden states and
/// statistics are stored after every block and a rerun with the same model,
/// sequences and options continues after the last finished one, or returns at
/// once if that was the last of all. The folder stays: once the result is
/// stored, [`remove_state`](super::remove_state) removes it.
///
/// # Errors
/// Names a malformed tensor; `NonFinite` also for experts that no token was
/// routed to; `NonFiniteActivations` names the layer where numbers overflow;
/// `Interrupted` if the user asks to stop; `StateInUse` if another run has the
/// state folder; `Io` if it cannot be written.
pub fn calibrate(
    model: &Model,
    sequences: &Sequences,
    options: &CalibrateOptions,
    progress: &dyn Progress,
) -> Result<Stats> {
    let all_here = &mut |_: &mut Model, _| Ok(());
    calibrate_arriving(&mut model.clone(), sequences, options, all_here, progress)
}

/// Weights that a run reads next; it is done with all before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weights {
    /// The token embedding.
    Embedding,
    /// All of the block with this index.
    Block(usize),
}

/// As [`calibrate`], of a model whose weights are not all here: `bring` is asked
/// for what is read next, while nothing of the model is in use.
///
/// # Errors
/// Those of [`calibrate`] and of `bring`; `NotHere` for weights that it did not
/// bring.
pub fn calibrate_arriving<E: From<Error>>(
    model: &mut Model,
    sequences: &Sequences,
    options: &CalibrateOptions,
    bring: &mut dyn FnMut(&mut Model, Weights) -> Result<(), E>,
    progress: &dyn Progress,
) -> Result<Stats, E> {
    let batches = shard_batches(model, sequences, options)?;
    let empty = empty_stats(model, sequences, options, &batches)?;
    let key = run_key(&empty.provenance, options);
    let mut state = State::open(model, &batches, options, key, empty)?;
    if state.is_empty() {
        bring(model, Weights::Embedding)?;
        state.embed(model, sequences, &batches)?;
    }
    let layers = model.topology().layers();
    let tokens: usize = batches.iter().map(|(_, batch)| batch.rows()).sum();
    let first = state.depth();
    for layer in first..layers {
        bring(model, Weights::Block(layer))?;
        let detail = format!("layer {}/{layers}", layer + 1);
        run_block(model, layer, &batches, &mut state, &|rows| {
            progress.step(&Update {
                stage: "Calibrating",
                detail: &detail,
                unit: "tok",
                done: (((layer - first) * tokens + rows) / (layers - first)) as u64,
                total: tokens as u64,
            })
        })?;
    }
    Ok(state.stats)
}

/// Pushes every batch through one block and advances `state`.
fn run_block(
    model: &Model,
    layer: usize,
    batches: &Batches,
    state: &mut State,
    progress: &dyn Fn(usize) -> Result<()>,
) -> Result<()> {
    let block = model.block(layer)?;
    let shape = shape(model, state.stats.provenance.domains.len());
    let (mut last, mut domains, mut done) = (Vec::new(), Vec::new(), 0);
    for (group, batches) in batches.chunks(IN_FLIGHT).enumerate() {
        let first = group * IN_FLIGHT;
        let inputs: Vec<Tensor> = (first..first + batches.len())
            .map(|index| state.take(index))
            .collect::<Result<_>>()?;
        let passed: Vec<Passed> = batches
            .par_iter()
            .zip(inputs)
            .map(|((_, batch), input)| pass(&block, &input, batch, &shape))
            .collect::<Result<_>>()?;
        // In the order of batches, so that sums do not depend on threads.
        for (index, ((_, batch), passed)) in batches.iter().zip(passed).enumerate() {
            check_finite(model, layer, &passed.tables)?;
            observer::add_block(&mut state.stats.tables, layer, &passed.tables);
            last.extend(passed.last);
            domains.extend(batch.sequences().map(|rows| batch.domains[rows.start]));
            state.put(first + index, passed.output)?;
            done += batch.rows();
        }
        progress(done)?;
    }
    block.check_experts(unrouted(&state.stats, layer)?.into_iter())?;
    state.last.push(last);
    let tables = &mut state.stats.tables;
    span::observe(&state.last, layer + 1, shape.hidden, &domains, tables);
    state.save()
}

/// What a batch left behind in a block.
struct Passed {
    /// The residual stream [N, H].
    output: Tensor,
    /// What the observers saw.
    tables: Tables,
    /// States of the last token of each sequence.
    last: Vec<f32>,
}

fn pass(block: &Block<'_>, input: &Tensor, batch: &Batch, shape: &Shape) -> Result<Passed> {
    let mut tables = observer::block_tables(shape);
    let output = block.forward(input, batch, None, &mut |event| {
        OBSERVERS
            .iter()
            .try_for_each(|observer| observer.observe(event, batch, &mut tables))
    })?;
    let last = last_tokens(&output, batch)?;
    Ok(Passed {
        output,
        tables,
        last,
    })
}

/// Checks that what observers saw of a batch in a block is finite.
fn check_finite(model: &Model, layer: usize, tables: &Tables) -> Result<()> {
    for (name, table) in tables {
        if let Some(&value) = table.values.iter().find(|value| !value.is_finite()) {
            return Err(Error::NonFiniteActivations {
                path: model.checkpoint().dir().to_path_buf(),
                layer,
                table: name.clone(),
                value,
            });
        }
    }
    Ok(())
}

fn shape(model: &Model, domains: usize) -> Shape {
    let topology = model.topology();
    Shape {
        domains,
        layers: topology.layers(),
        experts: topology.max_experts(),
        hidden: topology.hidden,
    }
}

/// The batches of this shard.
fn shard_batches(
    model: &Model,
    sequences: &Sequences,
    options: &CalibrateOptions,
) -> Result<Batches> {
    let [index, count] = options.shard;
    let ranges = sequences.batches(options.batch_tokens);
    if index >= count || count > ranges.len() {
        return Err(Error::Structure {
            what: "shard".to_owned(),
            expected: format!("index/count with index < count ≤ {} batches", ranges.len()),
            found: format!("{index}/{count}"),
        });
    }
    ranges
        .into_iter()
        .skip(index)
        .step_by(count)
        .map(|range| Ok((range.clone(), model.batch(sequences, range)?)))
        .collect()
}

/// Experts of `layer` that no token was routed to.
fn unrouted(stats: &Stats, layer: usize) -> Result<Vec<usize>> {
    let counts = stats.table(observer::routing::COUNT)?;
    let domains = stats.provenance.domains.len();
    Ok((0..stats.provenance.experts[layer])
        .filter(|&expert| (0..domains).all(|domain| counts.row(&[domain, layer])[expert] == 0.0))
        .collect())
}

/// Identifies a run: the same key means the same hidden states at every depth.
fn run_key(provenance: &Provenance, options: &CalibrateOptions) -> String {
    let Provenance {
        created_by,
        fingerprint,
        corpus,
        ..
    } = provenance;
    let [index, count] = options.shard;
    format!(
        "{created_by} {fingerprint} {corpus} {} {index}/{count}",
        options.batch_tokens
    )
}

/// Statistics of nothing yet, with the provenance of this run.
fn empty_stats(
    model: &Model,
    sequences: &Sequences,
    options: &CalibrateOptions,
    batches: &Batches,
) -> Result<Stats> {
    let topology = model.topology();
    let shape = shape(model, sequences.names.len());
    let mut domains: Vec<DomainProvenance> = sequences
        .names
        .iter()
        .zip(&sequences.weights)
        .zip(&sequences.documents)
        .map(|((name, &weight), &documents)| DomainProvenance {
            name: name.clone(),
            weight,
            tokens: 0,
            sequences: 0,
            documents,
        })
        .collect();
    for (_, batch) in batches {
        for rows in batch.sequences() {
            let domain = &mut domains[usize::from(batch.domains[rows.start])];
            domain.tokens += rows.len() as u64;
            domain.sequences += 1;
        }
    }
    let mut tables = observer::tables(&shape);
    let mut count = |name: &str, count: fn(&DomainProvenance) -> u64| {
        if let Some(table) = tables.get_mut(name) {
            table.values = domains.iter().map(|domain| count(domain) as f64).collect();
        }
    };
    count(TOKENS, |domain| domain.tokens);
    count(SEQUENCES, |domain| domain.sequences);
    Ok(Stats {
        provenance: Provenance {
            model: model.checkpoint().name(),
            fingerprint: model.checkpoint().fingerprint()?,
            family: model.family().model_type().to_owned(),
            corpus: sequences.hash.clone(),
            domains,
            seq_len: sequences.seq_len,
            batch_tokens: options.batch_tokens,
            seed: sequences.seed,
            experts: topology.experts(),
            top_k: (0..shape.layers)
                .find_map(|layer| topology.moe(layer))
                .map_or(0, |moe| moe.router.top_k),
            hidden: topology.hidden,
            shards: vec![options.shard],
            created_by: concat!("router-stats ", env!("CARGO_PKG_VERSION")).to_owned(),
        },
        tables,
    })
}

#[cfg(test)]
mod tests;
