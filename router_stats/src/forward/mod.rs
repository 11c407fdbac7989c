//! The observed forward pass, one block at a time.
//!
//! A block is loaded, every batch is pushed through it, and it is dropped.
//! [`IN_FLIGHT`] batches, two, are in it at a time, each with one expert, so
//! that memory holds one block's attention, two experts and the hidden states.
//! Arithmetic is f32. It owns no file formats and decides nothing: what
//! happens is told as [`Event`]s.

mod attention;
mod batch;
mod block;
mod causal;
mod event;
mod frequencies;
mod moe;
mod norm;
mod quantization;
mod rotary;
mod rounding;
mod routing;
pub(crate) mod rows;
mod simd;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "only tests call it")]
mod testing;
mod weights;

use std::ops::Range;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use rayon::prelude::*;

pub use batch::Batch;
pub use block::Block;
pub use event::{BlockPart, Event};
pub use quantization::Quantization;
pub use rounding::Rounding;
pub use routing::{route, Routes};

use crate::calibration::Sequences;
use crate::checkpoint::{Checkpoint, ExpertReader};
use crate::family::{self, Family, Keep, Names, Projection, Topology};
use crate::progress::{Progress, Update};
use crate::{Error, Result};

/// Batches that pass through a block at the same time: while one is in a part
/// that does not run in parallel, the other keeps the processor busy.
pub const IN_FLIGHT: usize = 2;

/// A checkpoint with its family and structure, ready to run.
#[derive(Clone)]
pub struct Model {
    checkpoint: Arc<Checkpoint>,
    family: &'static dyn Family,
    topology: Topology,
    device: Device,
    rounding: Option<Rounding>,
}

impl Model {
    /// Detects the family, reads the structure, and checks that every tensor it
    /// asks for is there; no weights are read yet.
    ///
    /// # Errors
    /// `UnknownFamily` or `Config`; `MissingTensor`, `Shape` or `Dtype` for the
    /// first tensor that is missing or malformed.
    pub fn open(checkpoint: Arc<Checkpoint>, device: &Device) -> Result<Self> {
        let family = family::detect(checkpoint.config())?;
        let topology = family.topology(checkpoint.config())?;
        check_tensors(&checkpoint, family.names(), &topology)?;
        Ok(Self {
            checkpoint,
            family,
            topology,
            device: device.clone(),
            rounding: None,
        })
    }

    /// The model with every projection of attention, MLPs and experts rounded
    /// through `quantization` when it is loaded: see
    /// [`Names::is_projection`]. The checkpoint is shared and stays as it is.
    ///
    /// An expert is rounded whenever it is read, once for every batch: one core
    /// rounds 200 to 400 million weights a second to types in blocks of 32, 30
    /// to 40 to those in blocks of 256. Larger batches pay this less often.
    ///
    /// # Errors
    /// `Unquantizable` for the first matrix that is not whole blocks.
    pub fn quantized(&self, quantization: Quantization) -> Result<Self> {
        let whole = |shape: &[usize]| {
            shape
                .iter()
                .product::<usize>()
                .is_multiple_of(quantization.block())
        };
        match self.projections().find(|(_, shape)| !whole(shape)) {
            None => Ok(self.rounded(Rounding::Blocks(quantization))),
            Some((tensor, shape)) => Err(Error::Unquantizable {
                path: self.checkpoint.dir().to_path_buf(),
                tensor,
                quantization,
                expected: format!("a multiple of {} elements", quantization.block()),
                found: format!("shape {shape:?}"),
            }),
        }
    }

    /// The model with its weights rounded when they are loaded. The checkpoint is
    /// shared and stays as it is.
    pub fn rounded(&self, rounding: Rounding) -> Self {
        Self {
            rounding: Some(rounding),
            ..self.clone()
        }
    }

    /// Names and shapes of the matrices that quantisation rounds, of one expert
    /// for every layer.
    fn projections(&self) -> impl Iterator<Item = (String, Vec<usize>)> + '_ {
        let names = self.family.names();
        let experts = (0..self.topology.layers()).filter_map(|layer| {
            let moe = self.topology.moe(layer)?;
            let name = names.expert(layer, 0, Projection::Gate);
            Some((name, vec![moe.intermediate, self.topology.hidden]))
        });
        let others = self.topology.tensors_beside_experts(names).into_iter();
        others
            .map(|tensor| (tensor.name, tensor.shape))
            .filter(|(name, _)| names.is_projection(name))
            .chain(experts)
    }

    /// The type that its projections are rounded through; `None` if there is
    /// none.
    pub fn quantization(&self) -> Option<Quantization> {
        self.rounding.and_then(Rounding::quantization)
    }

    /// Whether its head is another than that of the checkpoint.
    pub fn rounds_head(&self) -> bool {
        matches!(self.rounding, Some(Rounding::Rows { .. } | Rounding::Bf16))
    }

    /// The checkpoint it reads.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// The checkpoint, to bring or let go of its shards.
    ///
    /// # Errors
    /// `Structure` if others read it too.
    pub fn checkpoint_mut(&mut self) -> Result<&mut Checkpoint> {
        Arc::get_mut(&mut self.checkpoint).ok_or_else(|| Error::Structure {
            what: "a checkpoint whose shards come and go".to_owned(),
            expected: "one reader".to_owned(),
            found: "several".to_owned(),
        })
    }

    /// Its family.
    pub fn family(&self) -> &'static dyn Family {
        self.family
    }

    /// Its structure.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Loads block `layer`.
    ///
    /// # Errors
    /// Names the tensor that is missing or malformed.
    pub fn block(&self, layer: usize) -> Result<Block<'_>> {
        self.block_of(&Keep::all(&self.topology), layer)
    }

    /// Loads what `keep` leaves of block `layer`: sublayers that go are not
    /// read, and tokens are routed to as many experts as it says. Which experts
    /// stay is said to [`Block::forward`].
    ///
    /// # Errors
    /// Names the tensor that is missing or malformed.
    pub fn block_of(&self, keep: &Keep, layer: usize) -> Result<Block<'_>> {
        let topology = keep.routed(&self.topology);
        let (source, names) = (self.source(), self.family.names());
        Block::load(source, names, &topology, layer, keep.skip(layer))
    }

    /// A batch of `sequences`: where they start and their rotary angles. Their
    /// tokens are read, and checked, by [`embed`](Self::embed) alone.
    ///
    /// # Errors
    /// Only if the device has no room for the angles.
    pub fn batch(&self, sequences: &Sequences, range: Range<usize>) -> Result<Batch> {
        Batch::new(sequences, range, &self.topology.attention, &self.device)
    }

    /// The token embedding, for [`embed`](Self::embed).
    ///
    /// # Errors
    /// Names the tensor if it is missing or malformed.
    pub fn embedding(&self) -> Result<Tensor> {
        let shape = [self.topology.vocab, self.topology.hidden];
        self.source().tensor(self.family.names().embedding, &shape)
    }

    /// Embeds the tokens of the sequences in `range`: [N, H].
    ///
    /// # Errors
    /// `Structure` if a token is outside the vocabulary.
    pub fn embed(
        &self,
        embedding: &Tensor,
        sequences: &Sequences,
        range: Range<usize>,
    ) -> Result<Tensor> {
        let tokens = &sequences.tokens[sequences.starts[range.start]..sequences.starts[range.end]];
        if let Some(token) = tokens
            .iter()
            .find(|&&token| token as usize >= self.topology.vocab)
        {
            return Err(Error::Structure {
                what: format!("tokens of {}", self.checkpoint.dir().display()),
                expected: format!("below the vocabulary of {}", self.topology.vocab),
                found: token.to_string(),
            });
        }
        rows::gather(embedding, tokens)
    }

    /// Final-norm hidden states [N, H] of every batch of
    /// `sequences.batches(batch_tokens)`, block by block.
    ///
    /// What `keep` drops takes no part: dropped layers and sublayers are skipped,
    /// dropped experts have a router logit of −∞.
    ///
    /// # Errors
    /// Names a malformed tensor; `Structure` if `keep` does not fit the model;
    /// `Interrupted` if the user asks to stop.
    pub fn hidden_states(
        &self,
        sequences: &Sequences,
        keep: Option<&Keep>,
        batch_tokens: usize,
        progress: &dyn Progress,
    ) -> Result<Vec<Tensor>> {
        let everything = Keep::all(&self.topology);
        let keep = keep.unwrap_or(&everything);
        keep.check(&self.topology)?;
        let ranges = sequences.batches(batch_tokens);
        let embedding = self.embedding()?;
        let mut batches = Vec::with_capacity(ranges.len());
        for range in ranges {
            let hidden = self.embed(&embedding, sequences, range.clone())?;
            batches.push((self.batch(sequences, range)?, hidden));
        }
        drop(embedding);
        let total = (sequences.tokens.len() * keep.layers.len()) as u64;
        let mut done = 0;
        for (index, &layer) in keep.layers.iter().enumerate() {
            let block = self.block_of(keep, layer)?;
            let mask = keep.mask(&self.topology, layer);
            let mask = mask.contains(&false).then_some(mask.as_slice());
            let detail = format!("layer {}/{}", index + 1, keep.layers.len());
            for group in batches.chunks_mut(IN_FLIGHT) {
                group.par_iter_mut().try_for_each(|(batch, hidden)| {
                    *hidden = block.forward(hidden, batch, mask, &mut |_| Ok(()))?;
                    Ok::<_, Error>(())
                })?;
                done += group
                    .iter()
                    .map(|(batch, _)| batch.rows() as u64)
                    .sum::<u64>();
                progress.step(&Update {
                    stage: "Evaluating",
                    detail: &detail,
                    unit: "tok",
                    done: done / keep.layers.len() as u64,
                    total: total / keep.layers.len() as u64,
                })?;
            }
        }
        let final_norm = self.family.names().final_norm;
        let norm = norm::Norm::load(self.source(), final_norm, &self.topology)?;
        batches
            .into_iter()
            .map(|(_, hidden)| norm.forward(&hidden))
            .collect()
    }

    /// The head, for [`logits`](Self::logits).
    ///
    /// # Errors
    /// Names the tensor if it is missing or malformed.
    pub fn head(&self) -> Result<Head> {
        let names = self.family.names();
        let source = self.source();
        let (vocab, hidden) = (self.topology.vocab, self.topology.hidden);
        let name = match self.topology.tied_head {
            true => names.embedding,
            false => names.head,
        };
        let bias = match self.topology.head_bias {
            true => Some(source.tensor(&Names::bias_of(names.head), &[vocab])?),
            false => None,
        };
        Ok(Head(weights::Linear::new(
            source.head(name, [vocab, hidden])?,
            bias,
        )))
    }

    /// Logits [n, V] of final-norm hidden states [n, H].
    ///
    /// # Errors
    /// Only if shapes disagree.
    pub fn logits(&self, head: &Head, hidden: &Tensor) -> Result<Tensor> {
        head.0.forward(hidden)
    }

    fn source(&self) -> weights::Source<'_> {
        weights::Source {
            checkpoint: &self.checkpoint,
            device: &self.device,
            rounding: self.rounding,
            hidden: self.topology.hidden,
        }
    }
}

/// Checks that every tensor of the structure is there, in either layout of
/// experts.
fn check_tensors(
    checkpoint: &Checkpoint,
    names: &'static Names,
    topology: &Topology,
) -> Result<()> {
    for tensor in topology.tensors_beside_experts(names) {
        checkpoint.weight(&tensor.name, &tensor.shape)?;
    }
    for layer in 0..topology.layers() {
        if let Some(moe) = topology.moe(layer) {
            ExpertReader::open(checkpoint, names, layer, moe, topology.hidden)?;
        }
    }
    Ok(())
}

/// What turns final-norm hidden states [n, H] into logits [n, V].
#[derive(Debug)]
pub struct Head(weights::Linear);

#[cfg(test)]
mod tests;
